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

INT32 = 2.0**31 - 1
INT64 = 2.0**63 - 2.0**40
"""What sums may come to in 32 and 64 bits; the latter rounded down, as bounds are computed in floating point."""

MULTIPLIER_BITS = 30
"""Multipliers are at most 2 to this: two int32 terms times one each, and a rounding half, are an int64."""

MOST_SHIFT = 62
PRECISION = 1 / 8
"""How far multipliers may take a result that does not saturate, in steps, before it is rounded."""


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

    def bounds(self, terms: Sequence[Array]) -> Array:
        """The largest magnitudes that sums can take on the way, where those of the terms are within ``terms``."""
        pairs = zip(terms, self.multipliers, strict=True)
        return np.asarray(sum((term * np.abs(multiplier) for term, multiplier in pairs), self.half.astype(np.float64)))


def rescaling(ratios: Sequence[Array | float], bounds: Sequence[Array | int], limit: float = INT64) -> Rescale:
    """The rescaling that comes closest to Σ term · ratio with one shift for all terms, whose magnitudes are within ``bounds``, and
    sums within ``limit``.

    It is exact for powers of two where the limit allows; common factors of two are taken out of multipliers and shift.
    Raises ``QuantizationError`` if no rescaling is close enough.

    >>> one = rescaling([2.0**-7], [2**20]); int(one.multipliers[0]), int(one.shift)
    (1, 7)
    >>> two = rescaling([2.0**-7, 0.5], [2**20, 128], INT32); [int(m) for m in two.multipliers], int(two.shift)
    ([1, 64], 7)
    """
    stacked = np.stack(np.broadcast_arrays(*(np.asarray(ratio, dtype=np.float64) for ratio in ratios)))
    most = [np.broadcast_to(np.asarray(bound, dtype=np.float64), stacked[0].shape) for bound in bounds]
    finest = MULTIPLIER_BITS - np.frexp(np.abs(stacked).max(axis=0))[1].astype(np.int64)
    shift = np.clip(finest, 0, MOST_SHIFT)
    found = _with_shift(stacked, shift)
    while np.any(over := (found.bounds(most) > limit) & (shift > 0)):
        shift = shift - over
        found = _with_shift(stacked, shift)
    if np.any(finest < 0) or np.any(found.bounds(most) > limit) or np.any(_error(found, stacked, most) > PRECISION):
        steps = ", ".join(f"{float(np.abs(ratio).max()):.3g}" for ratio in stacked)
        raise QuantizationError(f"sums of {32 if limit == INT32 else 64} bits can't hold its terms, a step of which is {steps} "
                                "steps of the result: calibrate on data like those that the network will see, or use free scales")
    return found


def _error(found: Rescale, ratios: Array, bounds: Sequence[Array]) -> Array:
    """How far off results can be by the multipliers alone, if terms beyond twice what the result can hold don't count."""
    with np.errstate(divide="ignore"):
        counting = np.minimum(bounds, -2 * LEAST / np.abs(ratios))
    return np.asarray((np.abs(np.stack(found.multipliers) / np.exp2(found.shift) - ratios) * counting).sum(axis=0))


def _with_shift(ratios: Array, shift: Array) -> Rescale:
    """Multipliers for a shift, and both without their common factors of two."""
    multipliers = np.rint(np.ldexp(ratios, shift)).astype(np.int64)
    union = np.bitwise_or.reduce(np.abs(multipliers), axis=0)
    common = np.where(union == 0, shift, np.frexp((union & -union).astype(np.float64))[1] - 1)
    common = np.minimum(common, shift)
    return Rescale(tuple(map(np.asarray, multipliers >> common)), np.asarray(shift - common))
