"""Arguments that several functions take, checked alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from zellige.errors import PruneError

T = TypeVar("T")


def named(kind: str, known: Mapping[str, T], name: object) -> T:
    """What a table of some kind of thing has by that name.

    Raises:
        PruneError: it has none.

    >>> named("method", {"slow": 1, "quick": 2}, "fast")
    Traceback (most recent call last):
    zellige.errors.PruneError: Unknown method 'fast'. Known: slow, quick.
    """
    if not isinstance(name, str) or name not in known:
        raise PruneError(f"Unknown {kind} {name!r}. Known: {', '.join(known)}.")
    return known[name]


def check_seed(seed: Any) -> None:
    """Refuses what can't start a random generator."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 63:
        raise PruneError(f"The seed must be a whole number from 0 to 2⁶³ − 1, not {seed!r}.")


def check_progress(progress: Any, takes: str = "a text, such as print") -> None:
    """Refuses what can't be told how far things are; None is nobody to tell."""
    if progress is not None and not callable(progress):
        raise PruneError(f"progress is a function that takes {takes}; not {progress!r}.")
