"""A process that loads a network, runs it, and prints as JSON what memory it took, in bytes. ``memory.py`` starts it.

    python benchmarks/loaded_process.py FILE.zlg THREADS

Nothing else is imported: this is what a server that runs the network would be.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

import zellige as zl

RUNS = 5


def kilobytes(path: str, field: str) -> int:
    """The bytes of a field of one of the system's accounts of this process."""
    lines = Path("/proc/self", path).read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    file, threads = sys.argv[1:]
    imported = kilobytes("smaps_rollup", "Anonymous")
    engine = zl.load(file, threads=int(threads))
    inputs = [np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape) for shape in engine.input_shapes]
    for _ in range(RUNS):
        engine(*inputs)
    program = engine._program
    print(json.dumps({
        "packed_weights": program.tables.weight_bytes, "indices": program.tables.nbytes - program.tables.weight_bytes,
        "live_activations": program.live_bytes, "arena": program.arena.bytes.nbytes, "scratch": program.scratch.bytes.nbytes,
        "anonymous_before": imported, "anonymous": kilobytes("smaps_rollup", "Anonymous"),
        "huge_pages": kilobytes("smaps_rollup", "AnonHugePages"), "resident": kilobytes("smaps_rollup", "Rss"),
        "peak_resident": kilobytes("status", "VmHWM")}))  # fmt: skip


if __name__ == "__main__":
    main()
