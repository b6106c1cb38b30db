"""Fixed-point arithmetic: how real numbers become int8, and how int32 accumulators do.

Halves are rounded up, towards positive infinity: ⌊x + 1/2⌋. That is one addition and an arithmetic shift on any machine, and the
mode ``positive_inf`` of the shift-round-saturate unit of AMD's AI Engines, which their int8 convolutions set. Saturation is to
−128 … 127 (their mode ``saturate``), or to what an activation function leaves of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zellige.errors import QuantizationError

Array = np.ndarray

LEAST, MOST = -128, 127
"""The range of int8."""

MULTIPLIER_BITS = 30
"""Multipliers are below 2 to this: an int32 accumulator times one, twice, and a rounding half are an int64."""

MOST_SHIFT = 62


def half_up(x: Array | float) -> Array:
    """⌊x + 1/2⌋, exact: the sum itself could round.

    >>> half_up(np.array([-1.5, -0.5, 0.49999999999999994, 0.5, 2.5])).tolist()
    [-1.0, 0.0, 0.0, 1.0, 3.0]
    """
    below = np.floor(x)
    return np.asarray(below + (x - below >= 0.5))


def saturate(x: Array, low: int = LEAST, high: int = MOST) -> Array:
    """Whole numbers as int8, clamped to ``low`` … ``high``."""
    return np.clip(x, low, high).astype(np.int8)


def to_steps(x: Array, scale: float) -> Array:
    """Real numbers in steps of ``scale``: int8. Raises ``QuantizationError`` for NaN; infinities saturate.

    >>> to_steps(np.array([0.0, 0.25, -0.3, 99.0]), 0.5).tolist()
    [0, 1, -1, 127]
    """
    steps = np.clip(np.asarray(x, dtype=np.float64) / scale, 2 * LEAST, 2 * MOST)
    if np.isnan(steps).any():
        raise QuantizationError("NaN has no form in int8: expected numbers")
    return saturate(half_up(steps))


@dataclass(frozen=True, eq=False)
class Rescale:
    """How integer terms become a result: ⌊(Σ term · multiplier + half) / 2^shift⌋, where half is 2^(shift − 1), or 0 for shift 0.

    There is one of ``multipliers`` for every term; they and ``shift`` (int64) have the same shape, which broadcasts to that of the
    result: one number for each channel, mostly. A multiplier of 1 for the only term is a shift alone.
    """

    multipliers: tuple[Array, ...]
    shift: Array

    def __call__(self, terms: Sequence[Array]) -> Array:
        """The result of whole numbers ``terms``, before it is saturated (int64)."""
        pairs = zip(terms, self.multipliers, strict=True)
        total = sum((term.astype(np.int64) * multiplier for term, multiplier in pairs), self.half)
        return total >> self.shift

    @property
    def half(self) -> Array:
        return np.left_shift(np.int64(1), self.shift) >> 1

    def bound(self, bounds: Sequence[Array | int]) -> float:
        """The largest magnitude that the sum can take on the way, if those of the terms are within ``bounds``."""
        total = sum((np.abs(multiplier) * np.asarray(bound, dtype=np.float64)
                     for bound, multiplier in zip(bounds, self.multipliers, strict=True)), self.half.astype(np.float64))
        return float(np.max(total))


def rescaling(ratios: Sequence[Array | float], bits: int = MULTIPLIER_BITS) -> Rescale:
    """The rescaling that comes closest to Σ term · ratio, with multipliers below 2^``bits`` and one shift for all terms.

    Exact for powers of two as far as they lie apart by no more than that: then, and whenever there is one, common factors of two
    of the multipliers are taken out of them and of the shift. Raises ``QuantizationError`` for ratios that multipliers can't say.

    >>> one = rescaling([2.0**-7]); int(one.multipliers[0]), int(one.shift)
    (1, 7)
    >>> two = rescaling([2.0**-7, 0.5]); [int(m) for m in two.multipliers], int(two.shift)
    ([1, 64], 7)
    """
    stacked = np.stack(np.broadcast_arrays(*(np.asarray(ratio, dtype=np.float64) for ratio in ratios)))
    exponent = np.frexp(np.abs(stacked).max(axis=0))[1].astype(np.int64)
    shift = np.minimum(bits - exponent, MOST_SHIFT)
    if np.any(shift < 0):
        raise QuantizationError(f"a result in steps {float(np.abs(stacked).max()):.3g} times finer than its terms has no "
                                "int8 form: calibrate on data like those that the network will see")
    multipliers = np.rint(np.ldexp(stacked, shift)).astype(np.int64)
    union = np.bitwise_or.reduce(np.abs(multipliers), axis=0)
    common = np.where(union == 0, shift, np.frexp((union & -union).astype(np.float64))[1] - 1)
    common = np.minimum(common, shift)
    return Rescale(tuple(map(np.asarray, multipliers >> common)), np.asarray(shift - common))
