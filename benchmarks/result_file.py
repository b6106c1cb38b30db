"""Result files: JSON in ``benchmarks/results``, each with the machine and the versions that it was measured on."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path

from zellige.bench.conditions import processor, versions
from zellige.pack.atomic import write_atomically

RESULTS = Path(__file__).parent / "results"


def conditions(threads: int, rounds: int) -> dict[str, object]:
    """Under which conditions a result was measured, as ``zellige bench`` tells them."""
    return {
        "cpu": processor(),
        "threads": threads,
        "rounds": rounds,
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_result(path: Path, facts: Mapping[str, object]) -> None:
    """Write a result, whole or not at all, into a directory that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [(json.dumps(facts, indent=1, allow_nan=False) + "\n").encode()])
    print(f"written: {path.name}", flush=True)
