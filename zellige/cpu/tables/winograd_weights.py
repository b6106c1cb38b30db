"""Weights of a Winograd layer: the kept columns of every band, in the order they are used, transformed or as they are.

A *column* is an input channel with all its nine taps; a band of output rows keeps it if any of those weights is
not zero. Blocks of 8×8, 8×4 or 8×1 and dense layers only differ in these lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.kernels.winograd_pieces import UNROLL
from zellige.cpu.kernels.winograd_points import TAPS, Transform


@dataclass(frozen=True, eq=False)
class Lists:
    """The list entries of all bands, one after another: ``starts`` (bands + 1), and each entry's band and input channel.

    A list is filled up to a multiple of the kernel's unrolled columns by its own last column, with weights of zero (not
    ``real``), so that no band ever touches a channel that it does not keep.
    """

    starts: np.ndarray
    band: np.ndarray
    channel: np.ndarray
    real: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.channel)


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


def column_lists(kept: np.ndarray) -> Lists:
    """The lists of bands × Cin kept channels."""
    band, channel = np.nonzero(kept)
    fill = -kept.sum(1) % UNROLL
    last = (np.arange(kept.shape[1]) * kept).max(1)
    bands = np.concatenate([band, np.repeat(np.arange(len(kept)), fill)])
    order = np.argsort(bands, kind="stable")
    channels = np.concatenate([channel, np.repeat(last, fill)])
    starts = np.concatenate([[0], np.cumsum(np.bincount(bands, minlength=len(kept)))])
    return Lists(starts.astype(np.int32), bands[order], channels[order].astype(np.int32), order < len(band))


def pack_halves(transform: Transform, weight: np.ndarray, lists: Lists, rows: int, groups: np.ndarray) -> np.ndarray:
    """The weights of the lists' columns transformed along x: [group][point][turn][tap along y][column of the turn][row], f32."""
    half = transform.window * TAPS * rows
    values = np.empty(len(lists) * half, np.float32)
    for first_band, end_band in groups:
        chosen = slice(lists.starts[first_band], lists.starts[end_band])
        taps = _columns(weight, lists, rows, chosen).astype(np.float64).reshape(-1, UNROLL, rows, TAPS, TAPS)
        points = np.tensordot(transform.filters, taps, ([1], [3]))
        values[chosen.start * half:chosen.stop * half] = points.transpose(0, 1, 4, 2, 3).ravel()
    return values


def pack_points(transform: Transform, weight: np.ndarray, lists: Lists, rows: int, groups: np.ndarray) -> np.ndarray:
    """The weights of the lists' columns at all points, [group][point][column][row], f32; transformed in double precision."""
    matrix = np.kron(transform.filters, transform.filters)  # point window · column + row, tap 3 · column + row
    pitch = transform.points * rows
    values = np.empty(len(lists) * pitch, np.float32)
    for first_band, end_band in groups:
        chosen = slice(lists.starts[first_band], lists.starts[end_band])
        taps = _columns(weight, lists, rows, chosen).astype(np.float64)
        values[chosen.start * pitch:chosen.stop * pitch] = (matrix @ taps.reshape(-1, TAPS * TAPS).T).ravel()
    return values


def _columns(weight: np.ndarray, lists: Lists, rows: int, chosen: slice) -> np.ndarray:
    """The weights of some list entries, [entry][row][tap 3 · x + y]; rows after the last output are zeros."""
    band, cin = lists.band[chosen], weight.shape[1]
    first, end = (int(band[0]), int(band[-1]) + 1) if len(band) else (0, 0)
    part = weight[first * rows:end * rows]
    padded = np.zeros(((end - first) * rows, cin, TAPS * TAPS), np.float32)
    padded[:len(part)] = part.transpose(0, 1, 3, 2).reshape(len(part), cin, TAPS * TAPS)
    filters = padded.reshape(end - first, rows, cin, TAPS * TAPS)
    return filters[band - first, :, lists.channel[chosen]] * lists.real[chosen, None, None]
