"""What the compiler shows of its work: ``ZELLIGE_DEBUG=1`` the plan, 2 the graph after each pass too, 3 IR, 4 assembly."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from zellige.errors import ZelligeError

PLAN, GRAPH, IR, ASSEMBLY = 1, 2, 3, 4
VARIABLE = "ZELLIGE_DEBUG"


def debug_level() -> int:
    """The level that the environment asks for; 0 shows nothing."""
    text = os.environ.get(VARIABLE, "") or "0"
    if not text.isdecimal():
        raise ZelligeError(f"{VARIABLE} must be a number from 0 (nothing) to {ASSEMBLY} (all), not {text!r}")
    return int(text)


def debug(level: int, title: str, text: Callable[[], str]) -> None:
    """Print a titled text to stderr if the environment asks for this level; ``text`` is called only then."""
    if debug_level() >= level:
        print(f"── zellige: {title} ──\n{text()}", file=sys.stderr, flush=True)
