"""What pruning takes from accuracy, and what fine-tuning gives back, on data that every machine has.

    python benchmarks/accuracy.py residual           a residual network on handwritten digits, five folds: about an hour on a core
    python benchmarks/accuracy.py vgg                a VGG-like one on the same folds: 40 minutes
    python benchmarks/accuracy.py text               a small GPT on the Python library's own sources: 40 minutes
    python benchmarks/accuracy.py residual --quick   one fold and a few patterns, too short to mean anything: does it run?

Every row starts from the same trained dense network of its fold: one-shot is ``zl.prune`` alone, statistics is that with
``zl.take_statistics`` on the training images, fine-tuned goes on with what pruning left (scheme "fixed"). The classifier is spared:
whole rows of it are classes. Whenever a fold is done, ``benchmarks/results/accuracy-*.json`` is written, with the learning curves.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accuracy_networks import SmallGPT, residual, vgg
from result_file import RESULTS, conditions, write_result
from torch import nn

import zellige as zl
from zellige.train import Distillation, OptimizerOptions
from zellige.train.data import find_data
from zellige.train.data.digits import FOLDS, load_digits

SPARSITIES = (0.5, 0.75, 0.9)
PATTERNS = ("block:8x8", "block:8x1", "tile:32", "nm:2:4", "unstructured")
ONLY_HALF = ("nm:2:4",)  # whose sparsity is part of them
QUICK = ((("block:8x8", 0.5), ("nm:2:4", 0.5)), 1)
CONTEXT, TEXT_BATCH, TEXT_STEPS, TEXT_SHARE = 128, 8, 3000, 0.2
TEXT_KEPT = 0.02  # of the files, to validate by
POINTS = 5  # of a learning curve
SEEN = 16  # batches of 32 texts that block-OBS sees
TEXT_RUNS = tuple((sparsity, start) for sparsity in (0.5, 0.75) for start in ("obs", "gradual"))


def combinations() -> tuple[tuple[str, float], ...]:
    """Patterns with the sparsities that they can have."""
    return tuple((pattern, sparsity) for pattern in PATTERNS for sparsity in SPARSITIES
                 if sparsity == SPARSITIES[0] or pattern not in ONLY_HALF)


def quiet(moment: object) -> None:
    """No bar: output goes to files."""


def digits(make: Callable[[], nn.Module], quick: bool, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Accuracy on the images that a fold keeps apart: dense, one-shot, fine-tuned. After every fold, what is known.

    ``known`` is that of a run before, which this one goes on from.
    """
    wanted, folds = QUICK if quick else (combinations(), FOLDS)
    epochs, tuning = (1, 1) if quick else (12, 6)
    rows: list[dict[str, Any]] = known.get("rows", [])
    for fold in range(known.get("folds", 0), folds):
        torch.manual_seed(fold)
        dense, data = make(), {"fold": fold}
        classifier = [name for name, module in dense.named_modules() if isinstance(module, nn.Linear)][-1]
        trained = zl.finetune(dense, zl.Recipe(scheme="dense", epochs=epochs, label_smoothing=0.05, seed=fold, data=data,
                                               optimizer=OptimizerOptions(learning_rate=3e-3)), "digits", progress=quiet)
        rows.append({"fold": fold, "pattern": "dense", "sparsity": 0.0, "fine_tuned": trained.accuracy,
                     "history": [row.as_dict() for row in trained.history]})
        for pattern, sparsity in wanted:
            tuned = copy.deepcopy(dense)
            zl.prune(tuned, pattern, sparsity, (torch.zeros(1, 1, 32, 32),), ignore=classifier)
            one_shot = accuracy_of(tuned, fold)
            measured = copy.deepcopy(tuned)
            zl.take_statistics(measured, load_digits(fold)[0].images.split(64))
            result = zl.finetune(tuned, zl.Recipe(epochs=tuning, label_smoothing=0.05, seed=FOLDS + fold, data=data,
                                                  optimizer=OptimizerOptions(learning_rate=2e-3)), "digits", progress=quiet)
            rows.append({"fold": fold, "pattern": pattern, "sparsity": sparsity, "one_shot": one_shot,
                         "statistics": accuracy_of(measured, fold), "fine_tuned": result.accuracy,
                         "history": [row.as_dict() for row in result.history]})
            print(f"fold {fold} {pattern} {sparsity:.0%}: dense {trained.accuracy:.2%}, one-shot {one_shot:.2%}, with statistics "
                  f"{rows[-1]['statistics']:.2%}, fine-tuned {result.accuracy:.2%}", flush=True)
        yield {"folds": fold + 1, "summary": summary(rows), "rows": rows}


def accuracy_of(model: nn.Module, fold: int) -> float:
    """Share of a fold's images that a network gets right."""
    _, kept = load_digits(fold)
    with torch.no_grad():
        right = [model.eval()(images).argmax(1) == labels
                 for images, labels in zip(kept.images.split(64), kept.labels.split(64), strict=True)]
    return float(torch.cat(right).double().mean())


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the folds, and how far from dense: the mean of the differences in each fold."""
    found = []
    dense = {row["fold"]: row["fine_tuned"] for row in rows if row["pattern"] == "dense"}
    for key in dict.fromkeys((row["pattern"], row["sparsity"]) for row in rows):
        same = [row for row in rows if (row["pattern"], row["sparsity"]) == key]
        entry: dict[str, Any] = dict(zip(("pattern", "sparsity"), key, strict=True))
        for kind in ("one_shot", "statistics", "fine_tuned"):
            if kind in same[0]:
                shares = [row[kind] for row in same]
                entry[kind] = {"mean": statistics.mean(shares), "spread": statistics.stdev(shares) if len(shares) > 1 else 0.0}
        entry["lost_points"] = 100 * statistics.mean(dense[row["fold"]] - row["fine_tuned"] for row in same)
        found.append(entry)
    return found


def text(quick: bool, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Bits per byte on files that were kept apart: dense, and after fine-tuning for a fifth of its steps, with the dense network as
    teacher. After every run, what is known."""
    steps, points = (20, 1) if quick else (TEXT_STEPS, POINTS)
    few = int(steps * TEXT_SHARE)
    data = "text:" + os.pathsep.join(library_sources())
    options = {"context": CONTEXT, "validation": TEXT_KEPT}
    common = {"batch": TEXT_BATCH, "clip": 1.0, "precision": "bf16", "data": options}
    torch.manual_seed(0)
    dense = SmallGPT(longest=CONTEXT)
    recipe = zl.Recipe(scheme="dense", steps=steps, evaluate_every=max(1, steps // points),
                       optimizer=OptimizerOptions(learning_rate=2e-3), **common)
    trained = zl.finetune(dense, recipe, data, progress=quiet)
    before = trained.history[-1].bits
    print(f"dense: {before:.4f} bits", flush=True)
    rows: list[dict[str, Any]] = [{"pattern": "dense", "sparsity": 0.0, "bits": before,
                                   "history": [row.as_dict() for row in trained.history]}]
    samples = find_data(data, options).training
    apart = len(samples) // SEEN
    seen = [samples.batch(list(range(number * apart, number * apart + 32)), None)[0] for number in range(SEEN)]
    for sparsity, start in TEXT_RUNS:
        tuned = copy.deepcopy(dense)
        changes: dict[str, Any] = {"scheme": "fixed", "optimizer": OptimizerOptions(learning_rate=1e-3)}
        if start == "obs":
            zl.prune(tuned.cpu(), "block:8x8", sparsity, (seen[0],), ignore="head", solver="obs", data=seen)
        else:
            changes = {"scheme": {"name": "gradual", "until": 0.35}, "optimizer": OptimizerOptions(learning_rate=2e-3),
                       "pattern": "block:8x8", "sparsity": sparsity, "ignore": "head"}
        recipe = zl.Recipe(steps=few, seed=1, evaluate_every=max(1, few // points), distillation=Distillation(), **common,
                           **changes)
        result = zl.finetune(tuned, recipe, data, teacher=dense, progress=quiet)
        bits = result.history[-1].bits
        rows.append({"pattern": "block:8x8", "sparsity": sparsity, "start": start, "bits": bits, "over_dense": bits / before - 1,
                     "history": [row.as_dict() for row in result.history]})
        print(f"{start} {sparsity:.0%}: {bits:.4f} bits, {bits / before - 1:+.2%} of dense", flush=True)
        yield {"rows": rows}


def library_sources() -> list[str]:
    """The modules and packages of the Python library, as patterns; without what was installed beside it."""
    library = Path(sysconfig.get_path("stdlib"))
    packages = [library / name for name in sorted(sys.stdlib_module_names) if (library / name / "__init__.py").is_file()]
    return [f"{place}/*.py" for place in (library, *packages)]


TABLES: dict[str, Callable[[bool, dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "residual": partial(digits, residual), "vgg": partial(digits, vgg), "text": text,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--quick", action="store_true", help="so short that the figures mean nothing; nothing is written")
    parser.add_argument("--resume", action="store_true", help="go on behind the folds that the result file has")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = RESULTS / f"accuracy-{options.table}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if options.resume and path.exists() else {}
    for found in TABLES[options.table](options.quick, known):
        if not options.quick:
            write_result(path, {**conditions(options.threads, 1), **found})


if __name__ == "__main__":
    main()
