"""A process that loads a network and runs it has little more anonymous memory than packed weights and activations.

Anonymous memory is what the system counts as such: whole pages, huge ones too. The process runs twice: where code must be compiled
first, LLVM stays in memory; the bound is for a process that finds it in the cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
def kilobytes(path, field):
    with open(f"/proc/self/{path}", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))
engine = zl.load(sys.argv[1], threads=2)
inputs = [np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape) for shape in engine.input_shapes]
for _ in range(3):
    engine(*inputs)
program = engine._program
print(json.dumps({"weights": program.tables.weight_bytes, "live": program.live_bytes, "arena": program.arena.bytes.nbytes,
                  "anonymous": kilobytes("smaps_rollup", "Anonymous"), "peak": kilobytes("status", "VmHWM")}))
"""


def in_process(path: Path) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
    """At half of its blocks; the peak, which counts what LLVM's and Python's files bring in too, has a layer or two more."""
    import torch
    import torchvision

    import zellige as zl

    torch.manual_seed(0)
    model, inputs = torchvision.models.resnet50().eval(), (torch.randn(1, 3, 224, 224),)
    zl.prune(model, zl.Block(8, 8), sparsity=0.5, example_inputs=inputs)
    zl.compile(model, inputs, threads=2).save(path := tmp_path / "model.zlg")
    _, facts = (in_process(path) for _ in range(2))
    assert facts["anonymous"] <= bound(facts)
    assert facts["peak"] <= 2.5 * bound(facts)
