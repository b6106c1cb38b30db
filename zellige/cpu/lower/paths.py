"""Ways to run one layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """One way: its name and why it would be taken, the share of the multiplications it does, its cycles as the model has
    them, and what appends its calls to the plan."""

    name: str
    reason: str
    density: float
    cycles: float
    append: Callable[[], None]
