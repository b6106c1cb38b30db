"""One-shot pruning: accuracy without any training after it, and what the solvers cost.

    python benchmarks/one_shot.py digits
    python benchmarks/one_shot.py resnet50 --solver obs
    python benchmarks/one_shot.py resnet50 --solver admm --images 32 --threads 1

``digits``: the demonstration's network is trained from several seeds, then pruned in 8×8 blocks at 50, 75 and 90 % by each way; 256
training images calibrate, 256 others measure output errors, the test images accuracy, also after batch norms were given new
statistics on the calibration images. ``resnet50``: time and memory alone, since
its weights are random (with batch-norm statistics that fit them) and so are the images. CPU seconds count all threads, and hold
on a busy machine as well; wall seconds don't. What was measured before and isn't now stays in the file.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from result_file import RESULTS, conditions, write_result

import zellige as zl
from zellige.demo.digits import load_digits
from zellige.demo.network import DigitsNetwork
from zellige.demo.trained import TEST_BATCH, TRAINING
from zellige.demo.training import accuracy, train
from zellige.models.statistics import warm_statistics
from zellige.prune.solvers import OBS, SOLVERS, Problem, Solution, Solver

PATTERN = zl.Block(8, 8)
SPARSITIES = (0.5, 0.75, 0.9)
WAYS: dict[str, dict[str, Any]] = {"magnitude": {}, "wanda": {"score": "wanda"}, **{name: {"solver": name} for name in SOLVERS}}
SEEDS = (0, 1, 2)
CALIBRATION, HELD_OUT, BATCH = 256, 32, 32


def digits(seed: int) -> list[dict[str, object]]:
    """The ways at all sparsities, on one trained network."""
    training, test = load_digits()
    torch.manual_seed(seed)
    dense = DigitsNetwork()
    train(dense, training, TRAINING, seed=seed)
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
    batches = [training.images[part] for part in chosen[: 2 * CALIBRATION].split(64)]
    data, held_out = batches[: len(batches) // 2], batches[len(batches) // 2:]
    rows: list[dict[str, object]] = [{"seed": seed, "way": "dense", "sparsity": 0, "accuracy": accuracy(dense, test, TEST_BATCH)}]
    for sparsity in SPARSITIES:
        for way, options in WAYS.items():
            pruned = copy.deepcopy(dense)
            given = {**options, "data": data} if options else {}
            if "solver" in options:
                given["held_out"] = held_out
            started = time.process_time()
            report = zl.prune(pruned, PATTERN, sparsity, (test.images[:1],), **given)
            row = {"seed": seed, "way": way, "sparsity": sparsity, "cpu_s": time.process_time() - started,
                   "accuracy": accuracy(pruned, test, TEST_BATCH)}
            zl.take_statistics(pruned, data)
            row["accuracy_new_statistics"] = accuracy(pruned, test, TEST_BATCH)
            errors = [layer.errors for layer in report.pruned if layer.errors is not None]
            if errors:
                row["output_error"] = statistics.mean(error.solver for error in errors)
                row["output_error_by_magnitude"] = statistics.mean(error.magnitude for error in errors)
            rows.append(row)
            print(f"seed {seed}, {sparsity:.0%}, {way}: accuracy {row['accuracy']:.2%}, with new statistics "
                  f"{row['accuracy_new_statistics']:.2%}", flush=True)
    return rows


@dataclass(frozen=True)
class Timed(Solver):
    """A solver, and the seconds (wall, CPU) that it took for each layer."""

    solver: Solver = field(default_factory=OBS)
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.solver)

    def refusal(self, pattern: Any) -> str | None:
        return self.solver.refusal(pattern)

    def solve(self, problem: Problem) -> Solution:
        started = time.perf_counter(), time.process_time()
        solution = self.solver.solve(problem)
        self.seconds[problem.layer] = (time.perf_counter() - started[0], time.process_time() - started[1])
        return solution


def resnet50(name: str, images: int, sparsity: float) -> dict[str, object]:
    """One solver on ResNet-50 at 224×224."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    example = torch.zeros(1, 3, 224, 224)
    warm_statistics(model, (example,))
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(len(part), 3, 224, 224, generator=generator)
               for count in (images, HELD_OUT) for part in torch.empty(count).split(BATCH)]
    calibrating = -(-images // BATCH)
    solver = Timed(solver=SOLVERS[name])
    started = time.perf_counter(), time.process_time()

    def progress(text: str) -> None:
        print(f"{time.perf_counter() - started[0]:7.1f} s  {text}", flush=True)

    report = zl.prune(model, PATTERN, sparsity, (example,), solver=solver, data=batches[:calibrating],
                      held_out=batches[calibrating:], progress=progress)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    print(report)
    facts = {"wall_s": wall, "cpu_s": cpu, "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    solving = {"solving_wall_s": sum(wall for wall, _ in solver.seconds.values()),
               "solving_cpu_s": sum(cpu for _, cpu in solver.seconds.values())}
    print({**facts, **solving})
    layers = [{"name": layer.name, "shape": list(layer.shape), "cpu_s": solver.seconds[layer.name][1],
               "output_error": layer.errors.solver, "output_error_by_magnitude": layer.errors.magnitude}
              for layer in report.pruned if layer.errors is not None]
    return {"solver": name, "images": images, "held_out": HELD_OUT, "sparsity": sparsity, **facts, **solving, "layers": layers}


def keep(path: Path, rows: list[dict[str, object]], same: tuple[str, ...], facts: Mapping[str, object]) -> None:
    """Writes the rows, and of what was in the file all that differs from them in one of ``same``."""
    earlier = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    now = {tuple(row[key] for key in same) for row in rows}
    kept = [row for row in earlier if tuple(row[key] for key in same) not in now]
    write_result(path, {"pattern": str(PATTERN), "rows": [*kept, *({**row, **facts} for row in rows)]})


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy and cost of one-shot pruning.")
    parser.add_argument("network", choices=("digits", "resnet50"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--solver", choices=tuple(SOLVERS), default="obs")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=CALIBRATION)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--result", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    path = asked.result or RESULTS / f"one-shot-{asked.network}.json"
    measured = {"conditions": conditions(asked.threads, 1)}
    if asked.network == "digits":
        for seed in asked.seeds:
            keep(path, digits(seed), ("seed", "way", "sparsity"), measured)
    else:
        row = {**resnet50(asked.solver, asked.images, asked.sparsity), "threads": asked.threads}
        keep(path, [row], ("solver", "images", "sparsity", "threads"), measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
