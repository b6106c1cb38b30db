"""Jobs for processes of the tests: what works, what fails, dies, hangs, and tells what it has so far."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "ZELLIGE_TEST_PREPARED"


def prepare() -> None:
    os.environ[VARIABLE] = "yes"


def begin(caches: Mapping[str, str], threads: int | None) -> None:
    """In place of what a process of the benchmark does first."""
    os.environ.update(caches)
    os.environ[VARIABLE] = str(threads)


def keep(name: str) -> list[str]:
    """Put a file into each of the caches; what they have now."""
    root = Path(os.environ["ZELLIGE_CACHE"])
    for directory in (root / "choices", Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]), Path(os.environ["TRITON_CACHE_DIR"])):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def job(what: Any) -> Any:
    """A number is doubled; words are as they say."""
    if what == "fail":
        raise ValueError("it fell")
    if what == "die":
        os._exit(3)
    if what == "hang":
        time.sleep(60)
    if what == "process":
        return os.getpid()
    return os.environ[VARIABLE] if what == "prepared" else 2 * what


def steps(last: str) -> Iterator[int]:
    """Two results so far, then the last: or it comes to no end."""
    yield 1
    yield 2
    job(last)
    yield 3


def asleep(seconds: float) -> float:
    time.sleep(seconds)
    return time.monotonic()


def unable(*_: object) -> None:
    raise RuntimeError("no GPU")
