"""Measure the memory of a process that loads a network and runs it, and hold it against a bound.

    python benchmarks/memory.py                                # ResNet-50 at 50 %
    python benchmarks/memory.py --model torchvision:vgg16 --sparsity 0.75
    python benchmarks/memory.py --file model.zlg               # a network that was compiled before

Anonymous memory is what no file stands behind, as the system counts it (``Anonymous`` of ``/proc/PID/smaps_rollup``): whole
pages, huge ones too. The bound is packed weights (Winograd's copies are such) + 1.3 × the largest live set of
activations + 40 MB; indices are not in it, nor is Python. The process is started twice: *first*, with an empty cache of machine
code, where LLVM compiles and stays in memory, and *again*, where code comes from the cache. The bound is for the second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from own_engines import compiled
from result_file import RESULTS, conditions, write_result

from zellige.cpu.host import usable_cpus
from zellige.models import resolve

LOADED = Path(__file__).parent / "loaded_process.py"
ACTIVATIONS, REST = 1.3, 40e6


def bound(facts: dict[str, int]) -> float:
    """The bytes of anonymous memory that the process may have."""
    return facts["packed_weights"] + ACTIVATIONS * facts["live_activations"] + REST


def in_process(file: Path, threads: int, cache: Path) -> dict[str, int]:
    """What a process of its own says of its memory."""
    done = subprocess.run([sys.executable, LOADED, file, str(threads)], env=os.environ | {"ZELLIGE_CACHE": str(cache)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def table(first: dict[str, int], again: dict[str, int]) -> str:
    lines = [f"{name.replace('_', ' '):20} {value / 1e6:8.1f} {first[name] / 1e6:8.1f}" for name, value in again.items()]
    return "\n".join([f"{'MB':20} {'again':>8} {'first':>8}", *lines, f"{'bound':20} {bound(again) / 1e6:8.1f}"])


def main() -> int:
    """Measure; the exit status is 0 if the bound is met."""
    parser = argparse.ArgumentParser(description="Measure the memory of a process that loads and runs a network.")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--pattern", default="block:8x8")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--file", type=Path, help="a .zlg file; no result is written")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = asked.file or Path(folder) / "model.zlg"
        if asked.file is None:
            compiled(resolve(asked.model), asked.pattern, asked.sparsity, asked.threads).save(file)
        first, again = (in_process(file, asked.threads, Path(folder) / "cache") for _ in range(2))
        size = file.stat().st_size
    met = again["anonymous"] <= bound(again)
    print(f"{table(first, again)}\nanonymous memory is {again['anonymous'] / bound(again):.1%} of the bound")
    if asked.file is None:
        facts = {"model": asked.model, "pattern": asked.pattern, "sparsity": asked.sparsity, "file": size,
                 "bound": bound(again), "met": met, "bytes": again, "bytes_without_cache": first,
                 "conditions": conditions(asked.threads, 1)}  # fmt: skip
        write_result(asked.results / f"memory-{asked.model.split(':')[-1]}-{round(100 * asked.sparsity)}.json", facts)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
