"""From weights and windows to taps (``phase.py``): blocks of 8 × 8 that are all zero leave none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zellige.aie2.packet import GROUP
from zellige.aie2.phase import Array, Taps

NO_BLOCKS = np.zeros((0, GROUP, GROUP), np.int8)


def product_taps(weight: Array, groups: int, dilation: Sequence[int], lanes: Sequence[int], results: Sequence[int]) -> Taps:
    """Of a convolution: ``weight`` int8 [outputs, inputs / groups, rows, columns] of ``groups`` (PyTorch's word), whose input
    channels lie in ``lanes``, counted from the first group that is read, and result channels in ``results``."""
    outputs, inputs, *kernel = weight.shape
    width, height = _padded(max(lanes) + 1), _padded(max(results) + 1)
    if groups == 1 and (list(results), list(lanes)) == (list(range(height)), list(range(width))):
        whole = weight
    else:
        whole = np.zeros((height, width, *kernel), np.int8)
        each = outputs // groups
        for group in range(groups):
            of, read = slice(group * each, (group + 1) * each), lanes[group * inputs : (group + 1) * inputs]
            whole[np.ix_(results[of], read)] = weight[of]
    blocks = whole.reshape(height // GROUP, GROUP, width // GROUP, GROUP, *kernel)
    kept = np.nonzero(blocks.any(axis=(1, 3)))
    ends = np.concatenate([[0], np.cumsum(np.bincount(kept[0], minlength=height // GROUP))])
    return Taps(ends, kept[2] * dilation[0], kept[3] * dilation[1], kept[1], blocks.transpose(0, 2, 4, 5, 3, 1)[kept])


def diagonal_taps(weight: Array, dilation: Sequence[int], lanes: Sequence[int], groups: int) -> Taps:
    """Of a depthwise convolution, ``weight`` int8 [channels, rows, columns]: results have the lanes of the inputs."""
    whole = np.zeros((groups * GROUP, *weight.shape[1:]), np.int8)
    whole[list(lanes)] = weight
    by_group = whole.reshape(groups, GROUP, *weight.shape[1:]).transpose(0, 2, 3, 1)
    kept = np.nonzero(by_group.any(axis=3))
    blocks = by_group[kept][:, :, None] * np.eye(GROUP, dtype=np.int8)
    ends = np.concatenate([[0], np.cumsum(np.bincount(kept[0], minlength=groups))])
    return Taps(ends, kept[1] * dilation[0], kept[2] * dilation[1], kept[0], blocks)


def window_taps(groups: int, kernel: Sequence[int], dilation: Sequence[int] = (1, 1)) -> Taps:
    """Every pixel of a window, for each group: what pools and additions read."""
    rows, columns = (axis.reshape(-1) for axis in np.indices(tuple(kernel)))
    each = len(rows)
    return Taps(np.arange(groups + 1) * each, np.tile(rows * dilation[0], groups), np.tile(columns * dilation[1], groups),
                np.repeat(np.arange(groups), each), NO_BLOCKS)


def _padded(channels: int) -> int:
    return -(-channels // GROUP) * GROUP
