"""What a value was seen to be: a histogram of magnitudes in bounded memory, and the scales that follow from it.

Bins are equally wide, and their range is a power of two. A number beyond it doubles the range as often as needed, and bins are
merged in pairs: exactly, so that a histogram is the same in whatever order and portions its numbers came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from zellige.errors import QuantizationError
from zellige.graph.fixed_point import MOST

BINS = 8192
TINY = 2.0**-126
"""Smaller magnitudes count as zero, as in float32."""
CANDIDATES = 128
"""How many ranges the search for the least squared error tries; it tries ``OCTAVES`` powers of two."""
OCTAVES = 6


def power_of_two(x: float) -> float:
    """The least power of two that is at least ``x`` > 0.

    >>> power_of_two(0.26), power_of_two(0.25)
    (0.5, 0.25)
    """
    mantissa, exponent = math.frexp(x)
    return math.ldexp(1.0, exponent - (mantissa == 0.5))


class Histogram:
    """Magnitudes of the numbers that were added: how many fell in each bin of a range from 0, and the largest."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.range = 0.0
        self.largest = 0.0
        self.zeros = 0

    def add(self, values: np.ndarray) -> None:
        """Count more numbers. Raises ``QuantizationError`` for NaN and infinities."""
        magnitudes = np.abs(np.asarray(values, dtype=np.float64)).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not math.isfinite(largest):
            raise QuantizationError("expected finite numbers in calibration, got NaN or infinity: look at the network's weights "
                                    "and at the calibration data")
        magnitudes = magnitudes[magnitudes >= TINY]
        self.zeros += np.size(values) - magnitudes.size
        if magnitudes.size:
            self.largest = max(self.largest, largest)
            self._widen(power_of_two(np.nextafter(largest, np.inf)))
            self.counts += np.bincount((magnitudes * (BINS / self.range)).astype(np.int64), minlength=BINS)

    def _widen(self, wanted: float) -> None:
        if self.range == 0.0:
            self.range = wanted
        while self.range < wanted:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.range *= 2

    @property
    def total(self) -> int:
        """How many numbers were added."""
        return int(self.counts.sum()) + self.zeros

    def percentile(self, share: float) -> float:
        """A magnitude that ``share`` percent of the numbers don't exceed: the upper edge of a bin, or the largest number."""
        wanted = share / 100 * self.total - self.zeros
        place = int(np.searchsorted(np.cumsum(self.counts), wanted)) + 1
        return min(place * self.range / BINS, self.largest)

    def squared_error(self, scale: float) -> float:
        """The sum of squared differences to the numbers in int8 steps of ``scale``, each at the middle of its bin."""
        occupied = np.flatnonzero(self.counts)
        middle = (occupied + 0.5) * (self.range / BINS)
        return float(self.counts[occupied] @ (middle - np.minimum(np.floor(middle / scale + 0.5), MOST) * scale) ** 2)


def _candidates(histogram: Histogram, power: bool) -> Iterator[float]:
    """Scales to try, the largest first: the search keeps it unless another is better."""
    if power:
        largest = power_of_two(histogram.largest / MOST)
        yield from (largest / 2**octave for octave in range(OCTAVES))
    else:
        yield from (histogram.largest / MOST * part / CANDIDATES for part in range(CANDIDATES, CANDIDATES // 2**OCTAVES, -1))


def _least_error(histogram: Histogram, percentile: float, power: bool) -> float:
    return min(_candidates(histogram, power), key=histogram.squared_error)


def _up_to(limit: float, power: bool) -> float:
    return power_of_two(limit / MOST) if power else limit / MOST


CALIBRATIONS: Mapping[str, Callable[[Histogram, float, bool], float]] = {
    "minmax": lambda histogram, percentile, power: _up_to(histogram.largest, power),
    "percentile": lambda histogram, percentile, power: _up_to(histogram.percentile(percentile), power),
    "mse": _least_error,
}
"""Ways from what was seen to a scale: nothing saturates; a share of the numbers doesn't; the squared error is least."""
