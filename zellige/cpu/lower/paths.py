"""Ways to run one layer, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zellige.cpu.lower.lowering import Lowering


@dataclass(frozen=True)
class Path:
    """One way: its name and why it would be taken, the share of the multiplications it does, its cycles as the model has
    them, and what appends its calls to the plan."""

    name: str
    reason: str
    density: float
    cycles: float
    append: Callable[[], None]


def choose(lowering: Lowering, paths: list[Path]) -> Path:
    """The path that takes the fewest cycles: as the model has it, or as measured with ``tune="measure"``."""
    if len(paths) == 1:
        return paths[0]
    if lowering.options.tune == "measure":
        from zellige.cpu.measure import measure_paths
        return measure_paths(lowering, paths)
    best, *others = sorted(paths, key=lambda path: path.cycles)
    beaten = ", ".join(f"{other.cycles / best.cycles:.2f}× the cycles by {other.name}" for other in others)
    return Path(best.name, f"{best.reason}; model: {beaten}", best.density, best.cycles, best.append)
