"""Compare the methods of ``zl.cluster``: the share of L1 mass that 8×8 blocks at 50 % keep, and the time that the search takes.

    python benchmarks/clustering.py
    python benchmarks/clustering.py --only 256 --without annealing
    python benchmarks/clustering.py --only digits

Weights are Gaussian noise, in which nothing is hidden; a stand-in for trained transformer weights: heavy tails (Student's t of 4
degrees), rows and columns of different scale, and a part of rank 16; and the 3×3 layers of the digits network, trained as in the
demonstration. Gain is what is kept beyond the weight as it is, in units of TETRIS's. Times are medians of the rounds, in which the
methods take turns. The annealing, there to show how far from the best the others end, runs once, on weights of up to 256 lines.
What was measured before and isn't now stays in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from result_file import RESULTS, conditions, write_result

import zellige as zl
from zellige.demo.digits import load_digits
from zellige.demo.network import DigitsNetwork
from zellige.demo.story import TRAINING
from zellige.demo.training import train
from zellige.prune.clustering import METHODS

PATTERN, SPARSITY = zl.Block(8, 8), 0.5
BASELINE, REFERENCE = "tetris", "annealing"
ANNEALED = 256  # lines; beyond, it would take minutes


def gaussian(size: int) -> torch.Tensor:
    """Independent normal numbers."""
    return torch.randn(size, size, generator=torch.Generator().manual_seed(0))


def structured(size: int) -> torch.Tensor:
    """Heavy-tailed noise, scaled by row and by column, and a part of low rank."""
    generator, rank, degrees = torch.Generator().manual_seed(0), 16, 4
    normal = torch.randn(degrees + 1, size, size, generator=generator)
    tailed = normal[0] / (normal[1:].square().mean(0)).sqrt()
    rows, columns = torch.randn(size, 1, generator=generator), torch.randn(1, size, generator=generator)
    left, right = torch.randn(size, rank, generator=generator), torch.randn(rank, size, generator=generator)
    return tailed * torch.exp(0.3 * (rows + columns)) + 1.4 * (left @ right) / rank**0.5


def trained() -> dict[str, torch.Tensor]:
    """The digits network's wider 3×3 layers."""
    torch.manual_seed(0)
    network, (training, _) = DigitsNetwork(), load_digits()
    train(network, training, TRAINING)
    return {f"digits {name}": layer.weight.detach() for name, layer in network.named_modules()
            if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3) and layer.in_channels >= 32}


@dataclass
class Trial:
    """What one method made of a weight, round after round."""

    method: str
    found: zl.Clustering
    seconds: list[float]

    def facts(self, baseline: Trial) -> dict[str, object]:
        gain = baseline.found.kept - baseline.found.kept_before
        times = [mine / other for mine, other in zip(self.seconds, baseline.seconds, strict=False)]
        return {"method": self.method, "kept": self.found.kept, "seconds": statistics.median(self.seconds),
                "gain_over_tetris": (self.found.kept - self.found.kept_before) / gain,
                "time_over_tetris": statistics.median(times)}  # fmt: skip


def measure(name: str, weight: torch.Tensor, methods: list[str], rounds: int) -> dict[str, object]:
    """All methods on one weight."""
    trials: dict[str, Trial] = {}
    for done in range(rounds):
        for method in methods:
            if method == REFERENCE and (done or max(weight.shape) > ANNEALED):
                continue
            started = time.perf_counter()
            found = zl.cluster(weight, PATTERN, SPARSITY, method)
            seconds = time.perf_counter() - started
            trials.setdefault(method, Trial(method, found, [])).seconds.append(seconds)
    baseline = trials[BASELINE]
    facts = [trial.facts(baseline) for trial in trials.values()]
    magnitudes = weight.double().abs()
    unstructured = float((magnitudes * zl.Unstructured().mask(magnitudes, SPARSITY)).sum() / magnitudes.sum())
    print(f"{name}, {tuple(weight.shape)}: as it is {baseline.found.kept_before:.4f}, unstructured {unstructured:.4f}")
    for row in facts:
        print(f"  {row['method']:10} {row['kept']:.4f}, gain × {row['gain_over_tetris']:.3f}, {row['seconds']:8.3f} s, "
              f"time × {row['time_over_tetris']:.1f}", flush=True)  # fmt: skip
    return {"weight": name, "shape": list(weight.shape), "kept_before": baseline.found.kept_before,
            "unstructured": unstructured, "methods": facts}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the methods of zl.cluster.")
    parser.add_argument("--only", default="", metavar="TEXT", help="weights whose name contains this")
    parser.add_argument("--without", type=lambda text: text.split(","), default=[], metavar="METHODS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--result", type=Path, default=RESULTS / "clustering.json")
    asked = parser.parse_args()
    methods = [BASELINE, *(name for name in METHODS if name != BASELINE and name not in asked.without)]
    makers: dict[str, Callable[[int], torch.Tensor]] = {"gaussian": gaussian, "structured": structured}
    weights = {f"{kind} {size}": make(size) for kind, make in makers.items() for size in (256, 512, 1024)}
    if "digits" in asked.only or asked.only in "digits":
        weights |= trained()
    torch.set_num_threads(asked.threads)
    rows = [measure(name, weight, methods, asked.rounds) for name, weight in weights.items() if asked.only in name]
    measured = conditions(asked.threads, asked.rounds)
    earlier = json.loads(asked.result.read_text(encoding="utf-8"))["weights"] if asked.result.exists() else []
    names = {row["weight"] for row in rows}
    kept = [row for row in earlier if row["weight"] not in names]
    write_result(asked.result, {"pattern": str(PATTERN), "sparsity": SPARSITY, "threads": asked.threads,
                                "weights": kept + [{**row, "conditions": measured} for row in rows]})  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
