"""What a study tries: one pattern at one sparsity, by one criterion, in one order of channels; and the grid of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from zellige.errors import PruneError
from zellige.patterns import Pattern
from zellige.patterns.shares import exact_sparsity
from zellige.prune.request import checked_pattern
from zellige.study.axes import AS_TRAINED, CRITERIA, ORDERS, criterion_named, order_named

Value = TypeVar("Value")

@dataclass(frozen=True)
class Trial:
    """One way to prune a network; ``sparsity`` is what ``zl.prune`` is asked for."""

    pattern: str
    sparsity: float
    criterion: str = "l1"
    order: str = AS_TRAINED

    def __str__(self) -> str:
        beside = "" if self.order == AS_TRAINED else f", {self.order}"
        return f"{self.pattern} at {self.sparsity:g} by {self.criterion}{beside}"


@dataclass(frozen=True)
class LeftOut:
    """A pattern at a sparsity that can't be tried, and why; ``beside`` is the criterion or the order that can't do it, if that is
    the reason."""

    pattern: str
    sparsity: float
    reason: str
    beside: str = ""


def grid(
    patterns: Sequence[Pattern | str], sparsities: Sequence[float], criteria: Sequence[str], orders: Sequence[str]
) -> tuple[list[Trial], list[LeftOut]]:
    """All trials, pattern by pattern, and what patterns can't have: 2:4, for instance, has one sparsity.

    >>> trials, left_out = grid(["block:8x8", "nm:2:4"], [0.5, 0.75], ["l1"], [AS_TRAINED])
    >>> [str(trial) for trial in trials]
    ['block:8x8 at 0.5 by l1', 'block:8x8 at 0.75 by l1', 'nm:2:4 at 0.5 by l1']
    >>> [(one.pattern, one.sparsity) for one in left_out]
    [('nm:2:4', 0.75)]

    Raises:
        PruneError: an axis is empty, names something twice or something unknown, or nothing is left to try.
    """
    shapes = [checked_pattern(pattern) for pattern in _axis("patterns", patterns)]
    _axis("patterns", [str(shape) for shape in shapes])
    levels = [float(exact_sparsity(share)) for share in _axis("sparsities", sparsities)]
    _axis("sparsities", levels)
    for criterion in _axis("criteria", criteria):
        criterion_named(criterion)
    for order in _axis("orders", orders):
        order_named(order)
    trials: list[Trial] = []
    left_out: list[LeftOut] = []
    for shape, sparsity in product(shapes, levels):
        try:
            shape.check(sparsity)
        except PruneError as error:
            left_out.append(LeftOut(str(shape), sparsity, str(error)))
            continue
        refused = [LeftOut(str(shape), sparsity, reason, name) for table, names in ((CRITERIA, criteria), (ORDERS, orders))
                   for name in names if (reason := table[name].refusal(shape)) is not None]  # fmt: skip
        left_out += refused
        without = {one.beside for one in refused}
        trials += [Trial(str(shape), sparsity, criterion, order) for criterion, order in product(criteria, orders)
                   if not {criterion, order} & without]  # fmt: skip
    if not trials:
        raise PruneError(f"Nothing is left to compare: {'; '.join(dict.fromkeys(one.reason for one in left_out))}")
    return trials, left_out


def _axis(name: str, values: Sequence[Value]) -> Sequence[Value]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not values:
        raise PruneError(f"{name} is a list of one or more, not {values!r}.")
    if any(value in values[:at] for at, value in enumerate(values)):
        raise PruneError(f"{name} names something twice: {', '.join(map(str, values))}.")
    return values
