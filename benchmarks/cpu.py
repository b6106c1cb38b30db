"""Measure networks on this machine's CPU beside every dense engine, and write JSON files to ``benchmarks/results``.

    python benchmarks/cpu.py                            # everything, the most important networks first
    python benchmarks/cpu.py --group networks           # ResNet-50, VGG-16, Inception V3 at 0 to 95 %
    python benchmarks/cpu.py --group small-networks     # four smaller ones at 0, 50, 75 %
    python benchmarks/cpu.py --group conditions         # batches, one thread, odd sizes
    python benchmarks/cpu.py --only resnet50 --levels 0,0.5
    python benchmarks/cpu.py --list

A network at all its sparsities is one comparison, in a process of its own: rivals are built once, and every round gives a
turn to each of them and to our engine at each sparsity. For each row of the table there is a file as ``zellige bench --json``
writes it: times of all engines, with the machine's description, versions and settings; another has the speedups at all
sparsities. Run it on an otherwise idle machine. ``series.py`` says what there is to measure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from result_file import RESULTS, write_result
from series import GROUPS, SERIES, TABLE_LEVELS, Series

from zellige.bench.compare import compare_all
from zellige.bench.comparison import OURS, Comparison
from zellige.bench.subject import Subject, as_it_is, pruned_subject
from zellige.cpu.host import usable_cpus
from zellige.errors import ZelligeError
from zellige.models import resolve
from zellige.patterns import parse_pattern


def subjects(series: Series) -> Iterator[Subject]:
    """The network at each sparsity, made when it is asked for."""
    sys.path.insert(0, str(Path(__file__).parent))  # where odd_networks is
    named = resolve(series.model, batch=series.batch, shape=(3, series.size, series.size) if series.size else None)
    for level in series.levels:
        yield pruned_subject(named, parse_pattern(series.pattern), level) if level else as_it_is(named)


def measure(series: Series, threads: int, rounds: int, against: Sequence[str] | None, results: Path) -> None:
    """Run one comparison, against every rival that this machine has unless told which; writes its files."""
    found = compare_all(subjects(series), series.threads or threads, against=against, rounds=min(rounds, series.rounds))
    for comparison in found:
        if comparison.sparsity in TABLE_LEVELS:
            write_result(results / series.file_name(comparison.sparsity), comparison.as_dict())
        print(f"\n{comparison.tables()[0]}\n\n{comparison.summary()}", flush=True)
    if not set(series.levels) <= set(TABLE_LEVELS):
        write_result(results / series.curve_file, curve(series, found))


def curve(series: Series, found: Sequence[Comparison]) -> dict[str, object]:
    """Time and speedup against sparsity."""
    return {
        "model": series.model,
        "pattern": series.pattern,
        "fastest_dense": found[0].fastest_dense,
        "points": [{"sparsity": one.sparsity, "median_ms": one.contestants[OURS].timing.median_ms,
                    "speedup_over_fastest": one.over_fastest.median if one.over_fastest else None,
                    "quartiles": one.over_fastest.quartiles if one.over_fastest else None} for one in found],
        "conditions": dict(found[0].conditions),
    }  # fmt: skip


def chosen(only: str, group: str | None, levels: Sequence[float] | None) -> list[Series]:
    """What to measure: of that group, with names that contain the text, at those sparsities."""
    found = [series for series in SERIES if only in series.name and group in (None, series.group)]
    if levels is None:
        return found
    fewer = [replace(series, levels=tuple(level for level in series.levels if level in levels)) for series in found]
    return [series for series in fewer if series.levels]


def main() -> int:
    """Measure what is asked for; returns the exit status, 0 only if all of it was measured."""
    parser = argparse.ArgumentParser(description="Benchmark networks on this machine's CPU.")
    parser.add_argument("--only", default="", metavar="TEXT", help="comparisons whose name contains this")
    parser.add_argument("--group", choices=GROUPS)
    parser.add_argument("--levels", type=lambda text: [float(part) for part in text.split(",")], help="sparsities, with commas")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="for comparisons that don't say themselves")
    parser.add_argument("--rounds", type=int, default=1000, help="at most so many")
    parser.add_argument("--against", type=lambda text: text.split(","), metavar="NAMES", help="rivals, with commas (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="name the comparisons and leave")
    asked = parser.parse_args()
    todo = chosen(asked.only, asked.group, asked.levels)
    if asked.list:
        print("\n".join(f"{series.name} at {', '.join(f'{level:.0%}' for level in series.levels)}" for series in todo))
        return 0
    if not todo:
        print("there is nothing of that kind to measure: see --list", file=sys.stderr)
        return 1
    failed = 0
    for series in todo:
        started = time.perf_counter()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:  # nobody's threads or memory stay behind
            try:
                process.submit(measure, series, asked.threads, asked.rounds, asked.against, asked.results).result()
            except (ZelligeError, BrokenProcessPool) as error:
                failed += 1
                print(f"{series.name}: {error}", file=sys.stderr)
                continue
        print(f"\n{series.name} took {time.perf_counter() - started:.0f} s\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
