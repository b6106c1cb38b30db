"""Measure the table of networks on this machine's CPU, and write one JSON file per row to ``benchmarks/results``.

    python benchmarks/cpu.py                        # every row
    python benchmarks/cpu.py --only resnet50        # rows whose file name contains it
    python benchmarks/cpu.py --list

Each file is what ``zellige bench --json`` writes: times of all engines from one run, with the machine's description,
versions and settings. Run it on an otherwise idle machine; ``readme_table.py`` makes the README's table from the files.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from zellige.bench.compare import compare
from zellige.bench.subject import as_it_is, pruned_subject
from zellige.cpu.host import usable_cpus
from zellige.errors import ZelligeError
from zellige.models import resolve
from zellige.pack.atomic import write_atomically
from zellige.patterns import parse_pattern

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One measurement: which network, pruned how (sparsity 0: not at all), in which batches."""

    model: str
    pattern: str
    sparsity: float
    batch: int = 1

    @property
    def file_name(self) -> str:
        network = self.model.partition(":")[2].replace("_", "-")
        how = f"{self.pattern.replace(':', '')}-{self.sparsity * 100:.0f}" if self.sparsity else "dense"
        return f"cpu-{network}-{how}-batch{self.batch}.json"


NETWORKS = {
    "torchvision:resnet50": (0.0, 0.5, 0.75, 0.9),
    "torchvision:vgg16": (0.0, 0.5, 0.75, 0.9),
    "torchvision:inception_v3": (0.0, 0.5, 0.75, 0.9),
}
ROWS = tuple(Row(model, "block:8x8", sparsity) for model, levels in NETWORKS.items() for sparsity in levels)


def measure(row: Row, threads: int, rounds: int) -> bytes:
    """Run one comparison against every rival that this machine has; returns its JSON."""
    named = resolve(row.model, batch=row.batch)
    subject = pruned_subject(named, parse_pattern(row.pattern), row.sparsity) if row.sparsity else as_it_is(named)
    comparison = compare(subject, threads, rounds=rounds)
    print(f"\n{comparison.tables()[0]}\n\n{comparison.summary()}", flush=True)
    return comparison.to_json().encode()


def main() -> int:
    """Measure the rows asked for; returns the exit status, 0 only if every one of them was measured."""
    parser = argparse.ArgumentParser(description="Benchmark networks on this machine's CPU.")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose file name contains this")
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="name the rows and leave")
    asked = parser.parse_args()
    rows = [row for row in ROWS if asked.only in row.file_name]
    if asked.list:
        print("\n".join(row.file_name for row in rows))
        return 0
    if not rows:
        print(f"no row's file name contains {asked.only!r}: see --list", file=sys.stderr)
        return 1
    failed = 0
    for row in rows:
        started = time.perf_counter()
        try:
            write_atomically(asked.results / row.file_name, [measure(row, asked.threads, asked.rounds)])
        except ZelligeError as error:
            failed += 1
            print(f"{row.file_name}: {error}", file=sys.stderr)
            continue
        gc.collect()
        print(f"{row.file_name} written after {time.perf_counter() - started:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
