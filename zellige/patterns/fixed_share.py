"""Patterns whose sparsity is part of their definition: n of every m stay, so 1 − n ÷ m go, in every layer.

Layers have nothing to decide together, and a threshold over all of them is the same as one for each.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import torch

from zellige.errors import PruneError
from zellige.patterns.pattern import Pattern
from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape

WRITTEN = 1e-5  # how far off, relatively, a share may be when it is written with six digits, as messages have it


class FixedShare(Pattern):
    """A pattern that keeps ``n`` of every ``m`` weights."""

    n: int
    m: int

    @property
    def sparsity(self) -> Fraction:
        """The one sparsity that the pattern has."""
        return 1 - Fraction(self.n, self.m)

    @abstractmethod
    def mask_of(self, scores: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        """The mask of one weight."""

    def check(self, sparsity: float) -> Fraction:
        asked = super().check(sparsity)
        if not math.isclose(asked, self.sparsity, rel_tol=WRITTEN):
            only = f"{float(self.sparsity):g}"
            raise PruneError(f"{self} keeps {self.n} of every {self.m} weights: its sparsity is {only}, and can't be "
                             f"{float(asked):g}. Ask for {only}, or take another pattern.")
        return self.sparsity

    def choose(self, layers: Sequence[Scored], sparsity: Fraction) -> list[torch.Tensor]:
        return [self.mask_of(layer.scores(), layer.shape) for layer in layers]


def check_share(name: str, n: int, m: int) -> None:
    """Refuses shares other than 1 ≤ n < m.

    Raises:
        PruneError: these are none.
    """
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (n, m)) or not 1 <= n < m:
        raise PruneError(f"{name} keeps n of every m weights, whole numbers with 1 ≤ n < m, as in 2 of 4; not {n!r} of {m!r}.")


def index_bits(m: int) -> int:
    """Bits that tell one of ``m`` places: ⌈log₂ m⌉.

    >>> index_bits(4), index_bits(5)
    (2, 3)
    """
    return (m - 1).bit_length()
