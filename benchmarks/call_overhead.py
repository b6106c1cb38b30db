"""Measure what one call costs besides the arithmetic: back-to-back calls of networks of one layer.

    python benchmarks/call_overhead.py                  # two threads
    python benchmarks/call_overhead.py --threads 1

``tiny`` is so small that the calling thread does all of it; ``shared`` is just large enough to be shared out, so that every
call meets its workers at a barrier. ``inside`` is the time from the first kernel to the end of the last, as one thread's clock
has it; the rest is Python, the way into the launch code, and the workers' waking up. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import zellige as zl
from zellige.bench.conditions import processor, versions
from zellige.cpu.host import usable_cpus
from zellige.pack.atomic import write_atomically

RESULT = Path(__file__).parent / "results" / "call-overhead.json"
WARM_UP = 300
LAYERS = {
    "tiny": (torch.nn.Conv2d(8, 8, 1), (1, 8, 4, 4)),
    "shared": (torch.nn.Conv2d(96, 96, 1), (1, 96, 14, 14)),
}


@dataclass(frozen=True)
class Overhead:
    """Microseconds of a call of one network with one kind of arrays."""

    network: str
    arrays: str
    threads: int
    median: float
    best: float
    p99: float
    inside: float

    @property
    def fixed(self) -> float:
        return self.median - self.inside

    def __str__(self) -> str:
        return (f"{self.network:8} {self.arrays:7} {self.threads:7} {self.median:9.1f} {self.best:7.1f} {self.p99:7.1f} "
                f"{self.inside:8.1f} {self.fixed:7.1f}")


def time_calls(call: Callable[[], object], count: int) -> np.ndarray:
    """Microseconds of every one of ``count`` calls, one right after another."""
    for _ in range(WARM_UP):
        call()
    stamps = np.empty(count + 1, np.int64)
    stamps[0] = time.perf_counter_ns()
    for number in range(count):
        call()
        stamps[number + 1] = time.perf_counter_ns()
    return np.diff(stamps) / 1e3


def measure(network: str, threads: int, count: int) -> list[Overhead]:
    """Both kinds of arrays on one network."""
    layer, shape = LAYERS[network]
    tensor = torch.randn(shape)
    array = tensor.numpy()
    engine = zl.compile(layer.eval(), (tensor,), threads=threads)
    inside = engine.profile(rounds=max(1, count // 10)).total_microseconds
    rows = []
    for arrays, call in (("numpy", lambda: engine(array)), ("torch", lambda: engine(tensor))):
        spans = time_calls(call, count)
        rows.append(Overhead(network, arrays, threads, float(np.median(spans)), float(spans.min()),
                             float(np.percentile(spans, 99)), inside))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the fixed cost of one call.")
    parser.add_argument("--threads", type=int, default=min(2, usable_cpus()))
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--result", type=Path, default=RESULT)
    asked = parser.parse_args()
    rows = [row for network in LAYERS for row in measure(network, asked.threads, asked.calls)]
    print(f"{'network':8} {'arrays':7} {'threads':>7} {'median µs':>9} {'best':>7} {'p99':>7} {'inside':>8} {'fixed':>7}")
    print("\n".join(map(str, rows)))
    facts = {"processor": processor(), "versions": versions(), "calls": asked.calls,
             "microseconds": [asdict(row) | {"fixed": row.fixed} for row in rows]}
    write_atomically(asked.result, [(json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()])
    print(f"written to {asked.result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
