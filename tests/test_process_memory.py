"""A process that loads a network and runs it has little more anonymous memory than packed weights and activations.

Anonymous memory is what the system counts as such: whole pages, huge ones too. How much of LLVM's and Python's files is mapped
beside it isn't the process's doing alone, and isn't counted: 70 MB, or 100 where LLVM compiles. The process runs twice: where code
must be compiled first, LLVM stays in memory; the bound is for a process that finds it in the cache.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_networks import Build

from zellige.cpu.lower.lowering import Options
from zellige.engine import Engine, build_engine
from zellige.passes.pipeline import optimize

ACTIVATIONS = 1.3
REST = 40e6
"""Python, NumPy and llvmlite take 26 MB of it; indices and the threads' scratch memory are not counted apart."""

SCRIPT = """
import json, math, sys
import numpy as np
import zellige as zl
def anonymous():
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))
engine = zl.load(sys.argv[1], threads=2)
inputs = [np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape) for shape in engine.input_shapes]
for _ in range(3):
    engine(*inputs)
program = engine._program
print(json.dumps({"weights": program.tables.weight_bytes, "live": program.live_bytes, "arena": program.arena.bytes.nbytes,
                  "anonymous": anonymous()}))
"""


def in_process(path: Path) -> dict[str, int]:
    """What the script says, and the most anonymous memory that it was seen with: looked up every other millisecond."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, path], stdout=subprocess.PIPE, text=True)
    peak, end = 0, time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < end, process.kill()
        peak = max(peak, resident_anonymous(process.pid))
        time.sleep(0.002)
    assert process.stdout is not None and process.returncode == 0
    return json.loads(process.stdout.read()) | {"peak": peak}


def resident_anonymous(process: int) -> int:
    """Of a process that ended meanwhile, nothing."""
    _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def bound(facts: dict[str, int]) -> float:
    return facts["weights"] + ACTIVATIONS * facts["live"] + REST


def two_layers() -> Engine:
    """A convolution with large maps, and a linear layer of 64 MB of which 7 of 8 blocks are gone."""
    b = Build(1, 8, 128, 128, dtype="float32")
    y = b("max_pool2d", b.activation(b.conv(b.x, 16, 3, padding=(1, 1, 1, 1)), "relu"), kernel=(8, 8), stride=(8, 8))
    weight = b.random(4096, 4096)
    weight = b.graph.constants[weight]
    weight *= np.kron(np.arange(512 * 512).reshape(512, 512) % 8 == 0, np.ones((8, 8), np.float32))
    name = next(name for name, array in b.graph.constants.items() if array is weight)
    return build_engine(optimize(b.done(b("linear", b("reshape", y, shape=(1, 4096)), name))), Options(), threads=2)


def test_a_network_with_one_large_layer(tmp_path: Path) -> None:
    """Were its dense weights kept anywhere, they alone would break the bound."""
    two_layers().save(path := tmp_path / "model.zlg")
    _, facts = (in_process(path) for _ in range(2))
    assert 8e6 < facts["weights"] < 12e6 and 1e6 < facts["live"] <= facts["arena"] < 1.1 * facts["live"] + 40_000
    assert facts["anonymous"] <= bound(facts) < 64e6


@pytest.mark.full
def test_resnet50(tmp_path: Path) -> None:
    """At half of its blocks. At most, while it loads, all weights are there twice: as planned, and in the kernels' tables."""
    import torch
    import torchvision

    import zellige as zl

    torch.manual_seed(0)
    model, inputs = torchvision.models.resnet50().eval(), (torch.randn(1, 3, 224, 224),)
    zl.prune(model, zl.Block(8, 8), sparsity=0.5, example_inputs=inputs)
    zl.compile(model, inputs, threads=2).save(path := tmp_path / "model.zlg")
    _, facts = (in_process(path) for _ in range(2))
    assert facts["anonymous"] <= bound(facts)
    assert facts["anonymous"] < facts["peak"] <= bound(facts) + facts["weights"], facts
