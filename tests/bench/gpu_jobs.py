"""Jobs for processes of the tests: what works, what fails, dies, hangs, and tells what it has so far."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

VARIABLE = "ZELLIGE_TEST_PREPARED"


def prepare() -> None:
    os.environ[VARIABLE] = "yes"


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


def unable() -> None:
    raise RuntimeError("no GPU")
