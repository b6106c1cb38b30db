"""One option for every layer, such that together they do least harm within a budget: the multiple-choice knapsack problem.

Costs are counted in whole units, of which the budget holds ``UNITS``, each rounded up: the budget is never overrun, and
nothing better is to be had within a budget that is smaller by one unit for each layer. Dynamic programming, so exact but for
the rounding (Kellerer, Pferschy, Pisinger, Knapsack problems, chapter 11).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNITS = 20_000


def least_harm(harms: Sequence[np.ndarray], costs: Sequence[np.ndarray], budget: float) -> list[int] | None:
    """The number of the option that each layer takes, or None if even the cheapest cost more than the budget. Among equals the
    earlier option is taken.

    >>> least_harm([np.array([0.0, 5.0]), np.array([0.0, 1.0])], [np.array([3.0, 1.0]), np.array([3.0, 1.0])], 4.0)
    [0, 1]
    """
    spare = budget - sum(float(cost.min()) for cost in costs)
    if spare < 0:
        return None
    units = [_units(cost - cost.min(), spare) for cost in costs]
    best = np.zeros(UNITS + 1)  # the least harm so far that so many units can buy
    taken = np.zeros((len(costs), UNITS + 1), np.int32)
    for harm, needs, chosen in zip(harms, units, taken, strict=True):
        after = np.full(UNITS + 1, np.inf)
        for option in np.flatnonzero(needs <= UNITS):
            need = int(needs[option])
            total = best[:UNITS + 1 - need] + harm[option]
            better = total < after[need:]
            after[need:][better] = total[better]
            chosen[need:][better] = option
        best = after
    left, options = UNITS, []
    for needs, chosen in zip(reversed(units), reversed(taken), strict=True):
        options.append(int(chosen[left]))
        left -= int(needs[options[-1]])
    return options[::-1]


def _units(costs: np.ndarray, spare: float) -> np.ndarray:
    """Costs in whole units, rounded up; more than there are where one alone is too dear."""
    if spare == 0:
        return np.where(costs == 0, 0, UNITS + 1)
    return np.minimum(np.ceil(costs / spare * UNITS - 1e-9), UNITS + 1).astype(np.int64)
