"""Weights of a Winograd layer: the kept columns of every band, transformed to 36 points, in the order they are used.

A *column* is an input channel with all its nine taps; a band of output rows keeps it if any of those weights is
not zero. Blocks of 8×8, 8×4 or 8×1 and dense layers only differ in these lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.kernels.winograd import UNROLL
from zellige.cpu.kernels.winograd_transforms import FILTER_TRANSFORM, POINTS

TAPS = 9
POINTS_OF_FILTER = np.kron(FILTER_TRANSFORM, FILTER_TRANSFORM)
"""36 × 9: point 6 · column + row of a filter seen as 9 numbers, tap 3 · column + row."""


@dataclass(frozen=True, eq=False)
class WinogradWeights:
    """``starts`` (bands + 1) says where the lists begin in ``columns`` (input channels); ``groups`` are pairs of first and end
    band; ``values`` are [group][point][column][row], f32. Lists are filled up to a multiple of the kernel's unrolled columns.
    """

    rows: int
    starts: np.ndarray
    columns: np.ndarray
    groups: np.ndarray
    values: np.ndarray

    @property
    def bands(self) -> int:
        return len(self.starts) - 1

    @property
    def group_columns(self) -> np.ndarray:
        """Columns in the lists of each group."""
        return self.starts[self.groups[:, 1]] - self.starts[self.groups[:, 0]]


def kept_channels(weight: np.ndarray, rows: int) -> np.ndarray:
    """Which input channels each band of ``rows`` outputs reads, of Cout × Cin × 3 × 3 weights: bands × Cin, bool.

    >>> weight = np.zeros((4, 3, 3, 3), np.float32)
    >>> weight[0, 1, 2, 2] = weight[3, 0, 0, 0] = 1
    >>> kept_channels(weight, 2).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    used = (weight != 0).any((2, 3))
    return np.logical_or.reduceat(used, np.arange(0, len(used), rows), axis=0)


def pack_winograd(weight: np.ndarray, kept: np.ndarray, rows: int, group_bands: int) -> WinogradWeights:
    """Transform the kept columns of Cout × Cin × 3 × 3 weights, in double precision; ``kept`` is bands × Cin."""
    cout, cin = weight.shape[:2]
    bands = len(kept)
    band, column, real = _column_lists(kept)
    starts = np.concatenate([[0], np.cumsum(np.bincount(band, minlength=bands))])
    first = np.arange(0, bands, group_bands)
    groups = np.stack([first, np.minimum(first + group_bands, bands)], 1)
    filters = np.zeros((bands * rows, cin, TAPS), np.float32)
    # Column-major taps, as points are numbered.
    filters[:cout] = weight.transpose(0, 1, 3, 2).reshape(cout, cin, TAPS)
    filters = filters.reshape(bands, rows, cin, TAPS)
    values = np.empty(len(column) * POINTS * rows, np.float32)
    for first_band, end_band in groups:
        chosen = slice(starts[first_band], starts[end_band])
        taps = filters[band[chosen], :, column[chosen]].astype(np.float64) * real[chosen, None, None]
        points = POINTS_OF_FILTER @ taps.reshape(-1, TAPS).T
        values[chosen.start * POINTS * rows:chosen.stop * POINTS * rows] = points.ravel()
    return WinogradWeights(rows, starts.astype(np.int32), column.astype(np.int32), groups.astype(np.int32), values)


def _column_lists(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Band and channel of every list entry, and whether it is real: a list is filled up by its own last column with weights of
    zero, so that no band ever touches a channel that it does not keep.
    """
    band, column = np.nonzero(kept)
    counts = kept.sum(1)
    fill = -counts % UNROLL
    last = np.maximum.accumulate(np.arange(kept.shape[1]) * kept, axis=1)[:, -1]
    all_bands = np.concatenate([band, np.repeat(np.arange(len(kept)), fill)])
    order = np.argsort(all_bands, kind="stable")
    all_columns = np.concatenate([column, np.repeat(last, fill)])
    real = np.arange(len(all_bands)) < len(band)
    return all_bands[order], all_columns[order], real[order]
