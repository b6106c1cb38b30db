"""How much is pruned when, and how fast weights move: arithmetic alone, of steps and shares.

A share is a part of the sparsity in the end: 0 at first, 1 when all is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

STAGES = (0.25, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96)
"""The sparsities of Guo et al. for VGG-16, SC 2020."""


def cubic_share(progress: float) -> Fraction:
    """1 − (1 − progress)³: much at first, little in the end (Zhu & Gupta, arXiv 1710.01878), on a grid of millionths.

    >>> [float(cubic_share(progress)) for progress in (0, 0.5, 1, 2)]
    [0.0, 0.875, 1.0, 1.0]
    """
    return Fraction(round((1 - (1 - min(max(progress, 0.0), 1.0)) ** 3) * 10**6), 10**6)


def removals(goal: int, rate: float) -> list[int]:
    """How many of ``goal`` blocks are gone after each cut, if each takes ``rate`` of those still to go, and at least one
    (D'Alberto et al., arXiv 2407.09453).

    >>> removals(8, 0.5)
    [4, 6, 7, 8]
    """
    gone = [0]
    while gone[-1] < goal:
        gone.append(gone[-1] + max(1, math.floor(rate * (goal - gone[-1]))))
    return gone[1:]


def cut_at(step: int, cuts: int, last: int) -> int:
    """Of so many cuts, spread evenly over the steps 0 … ``last``, how many are made once ``step`` has begun.

    >>> [cut_at(step, 3, 4) for step in range(6)]
    [1, 1, 2, 2, 3, 3]
    """
    return cuts if step >= last else 1 + step * (cuts - 1) // last


def stages_up_to(sparsity: float, stages: Sequence[float] = STAGES) -> list[float]:
    """The stages below a sparsity, and the sparsity itself.

    >>> stages_up_to(0.55)
    [0.25, 0.4, 0.5, 0.55]
    """
    return [*(stage for stage in stages if stage < sparsity), sparsity]


def regrown_share(step: int, last: int, first: float) -> float:
    """The share of kept blocks that RigL exchanges: a half cosine from ``first`` to nothing (Evci et al., arXiv 1911.11134).

    >>> [round(regrown_share(step, 10, 0.3), 3) for step in (0, 5, 10)]
    [0.3, 0.15, 0.0]
    """
    return first / 2 * (1 + math.cos(math.pi * min(step / last, 1.0)))


def _warm(progress: float, warmup: float, after: Callable[[float], float]) -> float:
    """A straight line up to 1, then a curve over the rest."""
    return progress / warmup if progress < warmup else after((progress - warmup) / (1 - warmup))


RATES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}
"""The learning rate's part of its peak, by the progress after warming up."""


def learning_rate(step: int, steps: int, peak: float, kind: str = "cosine", warmup: float = 0.0) -> float:
    """The learning rate of a step, the first of which is 0: never quite nothing, neither at first nor in the end.

    >>> [round(learning_rate(step, 4, 1.0, "linear"), 3) for step in range(4)]
    [0.875, 0.625, 0.375, 0.125]
    """
    return peak * _warm((step + 0.5) / steps, warmup, RATES[kind])
