"""Compare the methods of ``zl.cluster``: the share of L1 mass that 8×8 blocks at 50 % keep, and the time that the search takes.

    python benchmarks/clustering.py
    python benchmarks/clustering.py --only gpt --keep /tmp/trained.pt
    python benchmarks/clustering.py --only gpt --keep /tmp/trained.pt --limit
    python benchmarks/clustering.py --only vgg --methods exchange --rounds 1

Weights: all matrices of a small transformer and the 3×3 layers of the digits network, both trained here; Gaussian noise, in which
nothing is hidden; and noise with rows and columns of different scale, of the size of VGG-16's first classifier layer, to see what a
large weight takes. Gain is what is kept beyond the weight as it is, in units of TETRIS's. Times are medians of the rounds, in which
methods take turns.

``--limit`` is a run of its own: the same search twenty and a hundred times as long on one weight of each kind, of which only what
is kept counts, to see how far from the best the default ends. What was measured before and isn't now stays in the file.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from byte_gpt import STEPS, bits_per_byte, train_byte_gpt
from result_file import RESULTS, conditions, write_result

import zellige as zl
from zellige.demo.digits import load_digits
from zellige.demo.network import DigitsNetwork
from zellige.demo.trained import TRAINING
from zellige.demo.training import train
from zellige.prune.clustering import METHODS
from zellige.prune.clustering.exchange import Cooling, anneal
from zellige.prune.clustering.grid import Grid, Orders
from zellige.prune.clustering.methods import QUICK
from zellige.prune.clustering.progress import Progress

PATTERN, SPARSITY = zl.Block(8, 8), 0.5
BASELINE = "tetris"
COMPARED = [BASELINE, "exchange", "mass"]
LONGER = (20, 100)
GAUSSIAN = (256, 512, 1024, 2048)
LIMITED = ("gpt layers.0.query", "gpt layers.1.value", "gpt layers.1.up", "gpt layers.2.down", "gaussian 256")

Weights = dict[str, torch.Tensor]


def gaussian() -> Weights:
    """Independent normal numbers."""
    return {f"gaussian {size}": torch.randn(size, size, generator=torch.Generator().manual_seed(0)) for size in GAUSSIAN}


def vgg() -> Weights:
    """Normal numbers times scales of rows and columns."""
    generator, rows, columns = torch.Generator().manual_seed(0), 4096, 25088
    scales = torch.randn(rows, 1, generator=generator), torch.randn(1, columns, generator=generator)
    weight = torch.randn(rows, columns, generator=generator).mul_((0.3 * (scales[0] + scales[1])).exp_())
    return {"as VGG-16's first classifier layer": weight}


def gpt() -> Weights:
    """Every matrix of a small transformer."""
    started = time.perf_counter()
    model = train_byte_gpt(lambda step, loss: print(f"\rtransformer: step {step} of {STEPS}, loss {loss:.3f}", end="", flush=True))
    print(f"\ntrained in {time.perf_counter() - started:.0f} s; {bits_per_byte(model):.2f} bits per byte on held-out text")
    matrices = {name.removesuffix(".weight"): weight.detach() for name, weight in model.named_parameters() if weight.dim() == 2}
    return {f"gpt {name}": weight for name, weight in matrices.items()}


def digits() -> Weights:
    """The digits network's wider 3×3 layers."""
    torch.manual_seed(0)
    network, (training, _) = DigitsNetwork(), load_digits()
    train(network, training, TRAINING)
    return {f"digits {name}": layer.weight.detach() for name, layer in network.named_modules()
            if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3) and layer.in_channels >= 32}


KINDS: dict[str, Callable[[], Weights]] = {"gpt": gpt, "digits": digits, "gaussian": gaussian, "vgg": vgg}
TRAINED = ("gpt", "digits")


def weights_of(kinds: list[str], keep: Path | None) -> Weights:
    """The weights of these kinds; trained ones from a file that has them, if one is named, and into it if it has not."""
    kept: dict[str, Weights] = torch.load(keep) if keep is not None and keep.exists() else {}
    for kind in kinds:
        if kind in TRAINED and kind not in kept:
            kept[kind] = KINDS[kind]()
            if keep is not None:
                torch.save(kept, keep)
    return {name: weight for kind in kinds for name, weight in (kept[kind] if kind in kept else KINDS[kind]()).items()}


@dataclass
class Trial:
    """What one method made of a weight, round after round."""

    method: str
    found: zl.Clustering
    seconds: list[float]

    def facts(self, baseline: Trial | None) -> dict[str, object]:
        alone = {"method": self.method, "kept": self.found.kept, "seconds": statistics.median(self.seconds)}
        if baseline is None:
            return alone
        times = [mine / other for mine, other in zip(self.seconds, baseline.seconds, strict=True)]
        return {**alone, "gain_over_tetris": gain(self.found, baseline.found), "time_over_tetris": statistics.median(times)}


def gain(found: zl.Clustering, baseline: zl.Clustering) -> float:
    return (found.kept - found.kept_before) / (baseline.kept - baseline.kept_before)


def measure(name: str, weight: torch.Tensor, methods: list[str], rounds: int) -> dict[str, object]:
    """Methods on one weight."""
    trials: dict[str, Trial] = {}
    for _ in range(rounds):
        for method in methods:
            started = time.perf_counter()
            found = zl.cluster(weight, PATTERN, SPARSITY, method)
            seconds = time.perf_counter() - started
            trials.setdefault(method, Trial(method, found, [])).seconds.append(seconds)
    facts = [trial.facts(trials.get(BASELINE)) for trial in trials.values()]
    before, peak = trials[methods[0]].found.kept_before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(f"{name}, {tuple(weight.shape)}: as it is {before:.4f}")
    for row in facts:
        against = f", gain × {row['gain_over_tetris']:.3f}, time × {row['time_over_tetris']:.1f}" if BASELINE in trials else ""
        print(f"  {row['method']:10} {row['kept']:.4f}, {row['seconds']:8.3f} s{against}", flush=True)
    return {"kept_before": before, "unstructured": unstructured(weight), "methods": facts, "peak_bytes": peak}


def unstructured(weight: torch.Tensor) -> float:
    """The share that the larger half of the numbers is."""
    ordered = weight.detach().abs().flatten().sort(descending=True).values.double()
    return float(ordered[: len(ordered) - int(SPARSITY * len(ordered))].sum() / ordered.sum())


def limit(name: str, weight: torch.Tensor) -> dict[str, object]:
    """What is kept after a much longer search, and the gain in units of TETRIS's."""
    baseline, rows = zl.cluster(weight, PATTERN, SPARSITY, BASELINE), []
    for times in LONGER:
        cooling = replace(QUICK, tries=QUICK.tries * times, visits=QUICK.visits * times // 2, work=QUICK.work * times)
        METHODS["longer"] = partial(_annealed, cooling)
        found = zl.cluster(weight, PATTERN, SPARSITY, "longer")
        rows.append({"times": times, "kept": found.kept, "gain_over_tetris": gain(found, baseline)})
        print(f"{name}, {times} times as long: {found.kept:.4f}, gain × {rows[-1]['gain_over_tetris']:.3f}", flush=True)
    return {"longer": rows}


def _annealed(cooling: Cooling, grid: Grid, seed: int, progress: Progress) -> Orders:
    return anneal(grid, cooling, seed, progress)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the methods of zl.cluster.")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(KINDS), metavar="KINDS", help=", ".join(KINDS))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=COMPARED)
    parser.add_argument("--limit", action="store_true", help="search for much longer, on some weights")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where trained weights are kept, for the next run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--result", type=Path, default=RESULTS / "clustering.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    weights = weights_of(asked.only, asked.keep)
    facts: dict[str, Any] = {"pattern": str(PATTERN), "sparsity": SPARSITY, "weights": []}
    if asked.result.exists():
        facts = json.loads(asked.result.read_text(encoding="utf-8"))
    rows = {row["weight"]: row for row in facts["weights"]}
    for name, weight in weights.items():
        if asked.limit and name not in LIMITED:
            continue
        new = limit(name, weight) if asked.limit else {
            **measure(name, weight, asked.methods, asked.rounds), "conditions": conditions(asked.threads, asked.rounds)}
        rows[name] = {**rows.get(name, {}), "weight": name, "shape": list(weight.shape), **new}
    write_result(asked.result, {**facts, "weights": list(rows.values())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
