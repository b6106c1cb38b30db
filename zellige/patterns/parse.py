"""Patterns by name, as the command line writes them: ``block:8x8``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zellige.errors import PruneError
from zellige.patterns.block import Block
from zellige.patterns.pattern import Pattern

PATTERNS: dict[str, tuple[str, Callable[[Sequence[str]], Pattern]]] = {
    "block": ("block:8x8 or block:8x8:per-tap", Block.parse),
}
"""Name → (its form, what reads the arguments). A new pattern is one file beside this one, and one row here."""


def parse_pattern(text: str) -> Pattern:
    """Reads a pattern from its text form; ``str(pattern)`` gives the text back.

    >>> parse_pattern("block:8x4")
    Block(rows=8, columns=4, per_tap=False)

    Raises:
        PruneError: the name is not known, or the arguments do not fit it.
    """
    name, *arguments = text.strip().split(":")
    if name not in PATTERNS:
        known = "; ".join(form for form, _ in PATTERNS.values())
        raise PruneError(f"Unknown pattern '{text}'. Known: {known}.")
    _, read = PATTERNS[name]
    return read(arguments)
