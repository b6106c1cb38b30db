"""Shares of a count, exact: a sparsity is the decimal number that was written, not its nearest binary fraction.

In binary, 0.29 × 100 falls just short of 29; a person who writes 0.29 means 29 of 100.
"""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Rational, Real

from zellige.errors import PruneError


def exact_sparsity(sparsity: float | Fraction) -> Fraction:
    """The sparsity as written, in whatever precision: numpy's float32 of 0.29 is written so too.

    >>> exact_sparsity(0.29), exact_sparsity(Fraction(1, 3))
    (Fraction(29, 100), Fraction(1, 3))

    Raises:
        PruneError: it is no number from 0 up to, but not including, 1.
    """
    if not isinstance(sparsity, Real) or isinstance(sparsity, bool) or not 0 <= sparsity < 1:
        raise PruneError(f"Sparsity is the share of blocks to remove: at least 0 and less than 1, not {sparsity!r}.")
    if isinstance(sparsity, Rational):
        return Fraction(int(sparsity.numerator), int(sparsity.denominator))
    return Fraction(repr(float(sparsity)) if isinstance(sparsity, float) else str(sparsity))


def floor_share(share: float | Fraction, count: int) -> int:
    """⌊share × count⌋.

    >>> floor_share(0.29, 100), floor_share(0.5, 7)
    (29, 3)
    """
    return math.floor(exact_sparsity(share) * count)


def side_share(share: Fraction, count: int) -> int:
    """⌊(1 − √(1 − share)) × count⌋: what one side loses where two sides lose ``share`` of their product, both alike.

    >>> side_share(Fraction(3, 4), 10), side_share(Fraction(19, 100), 100)
    (5, 10)
    """
    square = math.ceil((1 - share) * count**2)  # the least k with k² ≥ (1 − share) × count² stay
    return count - (math.isqrt(square - 1) + 1) if square else count
