"""Ways to run one layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zellige.cpu.costs import Demand


@dataclass(frozen=True)
class Path:
    """One way: its name and why it would be taken, the share of the multiplications it does, what its calls ask of a machine, and
    what appends them to the plan. The calls do the work of the nodes ``included``, too."""

    name: str
    reason: str
    density: float
    demands: tuple[Demand, ...]
    append: Callable[[], None]
    included: tuple[str, ...] = ()
