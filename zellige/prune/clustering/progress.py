"""How a search tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called with the steps done, and with how many there are in all, or None where nobody knows."""


def silent(done: int, of: int | None) -> None:
    """Tells nobody."""
