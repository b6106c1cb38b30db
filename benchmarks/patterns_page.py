"""Put the study of ``patterns.py`` into ``README.md`` and ``docs/pruning.md``: tables between markers, and figures.

    python benchmarks/patterns_page.py            # rewrite what stands between the markers, and draw
    python benchmarks/patterns_page.py --check    # only say whether the tables are up to date

Every number comes from the result file; nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pages import replaced, table

from zellige import Sensitivity, Study
from zellige.figures import save_figure
from zellige.study import Row
from zellige.study.plot import plot_studies

ROOT = Path(__file__).parent.parent
TITLES = {"residual": "residual network", "plain": "plain network"}
SHOWN = ("unstructured", "block:8x8", "block:8x4", "block:8x1", "tile-rows:64", "channel", "nm:2:4")
"""In the README."""
NARROW, NARROW_LEVELS = ("block:8x8", "block:8x4", "block:8x1"), (0.5, 0.75)
PARTS, ALL, CRITERIA, MOVED, BARE = "parts", "patterns", "criteria", "permuted", "as pruned"
PANEL = (4.9, 3.9)  # inches


def whole(network: dict[str, Any]) -> Study:
    """All patterns by L1, with the speeds that a stage of its own measured."""
    return Study.from_dict(network[PARTS][ALL]).with_speeds(Study.from_dict(network["speed"]))


def patterns(facts: dict[str, Any]) -> str:
    """For every network a table of all patterns, and under which conditions they were measured."""
    parts = []
    for name, network in facts["networks"].items():
        study = whole(network)
        parts += [f"**{TITLES[name].capitalize()}**, {network['parameters']:,} parameters; dense: {_dense(study)}", ""]
        parts += [_grid(study, list(dict.fromkeys(row.trial.pattern for row in study.rows)), with_l1=True), ""]
    return "\n".join([*parts, _conditions(facts)])


def short(facts: dict[str, Any]) -> str:
    """The patterns of the README, on the plain network."""
    study = whole(facts["networks"]["plain"])
    return "\n".join([_grid(study, SHOWN, with_l1=False), "", f"The dense network: {_dense(study)}. {_conditions(facts)}"])


def criteria(facts: dict[str, Any]) -> str:
    """Accuracies by criterion, with channels permuted first, and without statistics taken again."""
    rows = []
    for name, network in facts["networks"].items():
        studies = {part: Study.from_dict(network[PARTS][part]) for part in (ALL, CRITERIA, MOVED, BARE)}
        names = list(dict.fromkeys(row.trial.criterion for row in studies[CRITERIA].rows))
        bare = {row.trial: row for row in studies[BARE].rows}
        moved = {(row.trial.pattern, row.trial.sparsity): row for row in studies[MOVED].rows}
        known = {(row.trial.pattern, row.trial.sparsity, row.trial.criterion): row for part in (ALL, CRITERIA)
                 for row in studies[part].rows}  # fmt: skip
        rows += [
            [TITLES[name], row.trial.pattern, f"{row.trial.sparsity:.0%}", _accuracy(row),
             *(_accuracy(known.get((row.trial.pattern, row.trial.sparsity, criterion))) for criterion in names),
             _accuracy(moved.get((row.trial.pattern, row.trial.sparsity))), _accuracy(bare[row.trial])]
            for row in studies[ALL].rows if row.trial in bare
        ]  # fmt: skip
    return table(["network", "pattern", "sparsity", "l1", *names, "l1, permuted", "l1, statistics as they were"], rows, texts=2)


def narrow(facts: dict[str, Any]) -> str:
    """8×8 blocks beside narrower ones: accuracies of every network trained, and speeds where they were measured."""
    rows = []
    for name, network in facts["networks"].items():
        first = whole(network)
        others = {f"seed {seed}": Study.from_dict(study) for seed, study in network.get("seeds", {}).items()}
        for title, study in {f"seed {network['training']['seed']}": first, **others}.items():
            known = {(row.trial.pattern, row.trial.sparsity): row for row in study.rows}
            for level in NARROW_LEVELS:
                found = [known.get((pattern, level)) for pattern in NARROW]
                rows.append([TITLES[name], title, f"{level:.0%}", *map(_accuracy, found), *map(_speed, found)])
    sizes = [pattern.removeprefix("block:").replace("x", "×") for pattern in NARROW]
    heads = [f"{size}: {what}" for what in ("accuracy", "speed") for size in sizes]
    return table(["network", "trained from", "sparsity", *heads], rows, texts=2)


def _grid(study: Study, chosen: Any, with_l1: bool) -> str:
    """Patterns down, sparsities across."""
    known = {(row.trial.pattern, row.trial.sparsity): row for row in study.rows}
    levels = sorted({row.trial.sparsity for row in study.rows})
    kinds: dict[str, Callable[[Row | None], str]] = {"L1": _kept} if with_l1 else {}
    kinds |= {"accuracy": _accuracy, "speed": _speed}
    heads = [f"{level:.0%}: {kind}" if not at else kind for level in levels for at, kind in enumerate(kinds)]
    rows = [[f"`{pattern}`", *(cell(known.get((pattern, level))) for level in levels for cell in kinds.values())]
            for pattern in chosen]  # fmt: skip
    return table(["pattern", *heads], rows)


def _kept(row: Row | None) -> str:
    return "" if row is None else f"{row.kept_l1:.1%}"


def _accuracy(row: Row | None) -> str:
    return "" if row is None or row.accuracy is None else f"{row.accuracy:.1%}"


def _speed(row: Row | None) -> str:
    return "" if row is None or row.speed is None else f"{row.speed.over_dense.median:.2f}×"


def _dense(study: Study) -> str:
    return f"{study.dense_accuracy:.1%} of the test images right, {study.dense_ms:.3g} ms compiled"


def _conditions(facts: dict[str, Any]) -> str:
    """Under which conditions the numbers were taken, each different one once."""
    return " ".join(dict.fromkeys(_facts(network) for network in facts["networks"].values()))


def _facts(network: dict[str, Any]) -> str:
    speed, training = network["speed"]["conditions"], network["training"]
    cpu, versions = speed["cpu"], speed["versions"]
    sizes = "×".join(map(str, speed["inputs"][0]))
    threads = f"{speed['threads']} thread{'s' * (speed['threads'] > 1)}"
    return (f"Measured: {cpu['name']} ({cpu['llvm_name']}), {cpu['cpus']} CPUs, {threads}, f32, inputs {sizes}, "
            f"{speed['rounds']} rounds; Python {versions['python']}, PyTorch {versions['torch']}, llvmlite {versions['llvmlite']}; "
            f"{speed['date'][:10]}. Networks trained for {training['epochs']} epochs from seed {training['seed']}; accuracy on 360 "
            "test images of one random split.")  # fmt: skip


def _sensitivities(facts: dict[str, Any]) -> Iterator[tuple[str, Sensitivity]]:
    for name, network in facts["networks"].items():
        yield TITLES[name], Sensitivity.from_dict(network["sensitivity"][0])


def draw(facts: dict[str, Any], figures: Path) -> None:
    """The figures, into files that depend on nothing but the results."""
    figures.mkdir(parents=True, exist_ok=True)
    plot_studies(figures / "patterns.svg", {TITLES[name]: whole(network) for name, network in facts["networks"].items()})
    curves = list(_sensitivities(facts))

    def panels(axes: Any) -> None:
        for one, (title, found) in zip(axes if len(curves) > 1 else [axes], curves, strict=True):
            found.draw(one)
            one.set_title(title)

    save_figure(figures / "sensitivity.svg", panels, len(curves), (len(curves) * PANEL[0], PANEL[1]))


PAGES: dict[str, dict[str, Callable[[dict[str, Any]], str]]] = {
    "README.md": {"patterns": short},
    "docs/pruning.md": {"patterns": patterns, "narrow": narrow, "criteria": criteria},
}
"""Which tables stand between markers of which name in which file."""


def main() -> int:
    """Returns the exit status: 0 if the pages have the tables (now)."""
    parser = argparse.ArgumentParser(description="Put the study of patterns into README.md and docs/pruning.md.")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "results" / "patterns.json")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the pages are")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a table is out of date")
    asked = parser.parse_args()
    if not asked.result.exists():
        print(f"there is no {asked.result}: run benchmarks/patterns.py first", file=sys.stderr)
        return 1
    facts = json.loads(asked.result.read_text())
    if not all("speed" in network for network in facts["networks"].values()):
        print(f"{asked.result} has no speeds yet: run benchmarks/patterns.py --stages speed first", file=sys.stderr)
        return 1
    stale = 0
    for page, tables in PAGES.items():
        text = fresh = (asked.root / page).read_text()
        for name, make in tables.items():
            try:
                fresh = replaced(fresh, f"<!-- {name} -->", f"<!-- /{name} -->", make(facts))
            except ValueError as error:
                print(f"{page}: {error}", file=sys.stderr)
                return 1
        if asked.check and fresh != text:
            stale = 1
            print(f"{page}: a table is out of date; run benchmarks/patterns_page.py", file=sys.stderr)
        if not asked.check:
            (asked.root / page).write_text(fresh)
    if not asked.check:
        draw(facts, asked.root / "docs" / "figures")
    return stale


if __name__ == "__main__":
    sys.exit(main())
