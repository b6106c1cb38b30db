"""Which source elements ``interpolate`` reads: index tables for one dimension, with the rounding of PyTorch.

PyTorch computes nearest indices in float32 even for float64 tensors, and takes exact shortcuts for factors 1 and 2; the
tables here do the same. A scale of 0.0 means the ratio of the sizes.
"""

from __future__ import annotations

import numpy as np


def nearest_indices(size: int, result: int, scale: float) -> np.ndarray:
    """For each of ``result`` elements, the index below ``size`` that it copies (int64).

    >>> nearest_indices(3, 6, 0.0).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    positions = np.arange(result)
    if result == size:
        return positions
    if result == 2 * size:
        return positions // 2
    return np.minimum(np.floor(positions.astype(np.float32) * _step(size, result, scale)).astype(np.int64), size - 1)


def nearest_exact_indices(size: int, result: int, scale: float) -> np.ndarray:
    """As ``nearest_indices``, from the middle of each element: what other libraries mean by nearest.

    >>> nearest_exact_indices(5, 3, 0.0).tolist()
    [0, 2, 4]
    """
    middles = np.arange(result, dtype=np.float32) + np.float32(0.5)
    return np.minimum(np.floor(middles * _step(size, result, scale)).astype(np.int64), size - 1)


NEAREST = {"nearest": nearest_indices, "nearest_exact": nearest_exact_indices}
"""Modes that copy one element."""


def _step(size: int, result: int, scale: float) -> np.float32:
    return np.float32(1.0 / scale) if scale > 0.0 else np.float32(size) / np.float32(result)


def bilinear_taps(size: int, result: int, scale: float,
                  align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``result`` elements: the lower index, the upper index (int64), and the upper one's share (float64).

    >>> lower, upper, share = bilinear_taps(2, 3, 0.0, align_corners=True)
    >>> lower.tolist(), upper.tolist(), share.tolist()
    ([0, 0, 1], [1, 1, 1], [0.0, 0.5, 0.0])
    """
    positions = np.arange(result, dtype=np.float64)
    if align_corners:
        source = positions * ((size - 1) / (result - 1) if result > 1 else 0.0)
    else:
        step = 1.0 / scale if scale > 0.0 else size / result
        source = np.maximum((positions + 0.5) * step - 0.5, 0.0)
    lower = np.minimum(source.astype(np.int64), size - 1)
    upper = np.minimum(lower + 1, size - 1)
    return lower, upper, np.clip(source - lower, 0.0, 1.0)
