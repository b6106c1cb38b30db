"""Measure the time of single layers against the share of blocks that they keep, and fit a line to it.

    python benchmarks/layer_time.py
    python benchmarks/layer_time.py --only 256 --rounds 3

Networks of one convolution, pruned in 8×8 blocks to 0 … 95 %, take turns; a point is the median over the rounds of what
``Engine.profile`` says of the layer itself, without copies in and out. The fit has the fixed part of the time, which no missing
block saves (transforms, stores), the part that grows with the blocks, and r². It is made of the points that run on the same kernel
as the dense layer: where another becomes faster, the line bends.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_file import RESULTS, conditions, write_result

import zellige as zl
from zellige.cpu.host import usable_cpus

KERNELS = {"dense": "band", "sparse": "band", "winograd": "winograd",
           "small winograd": "small winograd"}
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Layer:
    """A square convolution of stride 1: input and output channels, taps a side, pixels a side, and whether Winograd may be used."""

    columns: int
    rows: int
    taps: int
    size: int
    winograd: bool = True

    @property
    def name(self) -> str:
        how = "" if self.taps == 1 else ", Winograd" if self.winograd else ", direct"
        return f"{self.taps}×{self.taps} {self.columns}→{self.rows}, {self.size}²{how}"

    def compiled(self, sparsity: float, threads: int) -> zl.Engine:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(self.columns, self.rows, self.taps, padding=self.taps // 2)).eval()
        pixels = (torch.randn(1, self.columns, self.size, self.size),)
        if sparsity:
            zl.prune(network, zl.Block(8, 8), sparsity=sparsity, example_inputs=pixels, targets="0")
        return zl.compile(network, pixels, threads=threads, winograd=self.winograd)


LAYERS = (
    Layer(256, 64, 1, 56),
    Layer(512, 128, 1, 28),
    Layer(1024, 256, 1, 14),
    Layer(128, 128, 3, 28, winograd=False),
    Layer(64, 64, 3, 56),
    Layer(128, 128, 3, 28),
    Layer(256, 256, 3, 14),
)


def measure(layer: Layer, threads: int, rounds: int) -> dict[str, object]:
    """Points and fit of one layer."""
    engines = [layer.compiled(level, threads) for level in LEVELS]
    profiles = [[engine.profile(rounds=30) for engine in engines] for _ in range(rounds)]
    rows = [[profile.rows[0] for profile in by_round] for by_round in zip(*profiles, strict=True)]
    times = [statistics.median(row.microseconds for row in of_engine) for of_engine in rows]
    kept = [of_engine[0].density for of_engine in rows]
    paths = [of_engine[0].path for of_engine in rows]
    points: list[dict[str, Any]] = [
        {"kept": share, "microseconds": time, "path": path, "fitted": KERNELS[path] == KERNELS[paths[0]]}
        for share, time, path in zip(kept, times, paths, strict=True)
    ]
    fitted = [point for point in points if point["fitted"]]
    line = fit([point["kept"] for point in fitted], [point["microseconds"] for point in fitted])
    return {"layer": layer.name, "points": points} | line


def fit(kept: list[float], times: list[float]) -> dict[str, float]:
    """The straight line of least squares: its fixed part, its slope, and the share of the variance that it explains."""
    slope, fixed = np.polyfit(kept, times, 1)
    left = np.array(times) - (slope * np.array(kept) + fixed)
    return {"fixed_microseconds": float(fixed), "microseconds_of_all_blocks": float(slope),
            "r_squared": float(1 - left.var() / np.var(times))}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure layers' time against kept blocks.")
    parser.add_argument("--only", default="", metavar="TEXT", help="layers whose name contains this")
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--result", type=Path, default=RESULTS / "layer-time.json")
    asked = parser.parse_args()
    found = []
    for layer in LAYERS:
        if asked.only not in layer.name:
            continue
        found.append(measure(layer, asked.threads, asked.rounds))
        facts = found[-1]
        print(f"{facts['layer']:28} {facts['fixed_microseconds']:7.1f} µs fixed + {facts['microseconds_of_all_blocks']:7.1f} µs × "
              f"kept blocks, r² {facts['r_squared']:.4f}", flush=True)  # fmt: skip
    write_result(asked.result, {"pattern": "block:8x8", "layers": found, "conditions": conditions(asked.threads, asked.rounds)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
