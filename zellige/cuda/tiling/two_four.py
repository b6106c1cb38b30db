"""2:4 weights in the order that the sparse tensor cores read them.

Of each 4 consecutive weights of a row at most 2 are non-zero. The tensor cores take the two (padded with zeros where there
are fewer) and 2 bits for the position of each, lower position first. A *tile* is 128 rows; its columns are walked in *steps* of 64,
and a step is one *image*: 9216 bytes that a block copies as they are, every thread finding its operands at an address of its own:

    values     [half 2][row block 8][lane 32][8]  16-bit numbers: the fragment of A that one instruction takes, 16 bytes a lane
    metadata   [row block 8][lane 32]             32-bit words: positions for both halves of the step

A half is 32 columns, a row block 16 rows: the shape of A in ``mma.sp.m16n8k32`` and what one warp gives to ``wgmma.mma_async.sp``;
both have the same fragments. With lane = 4·g + t (PTX ISA, "Matrix fragments … with sparse matrix A"):

    the 8 values are compressed columns 2t, 2t+1 of row g, of row g+8, then 2t+8, 2t+9 of row g, of row g+8;
    the word's low 16 bits are row g, the high 16 row g+8: columns 32·(t // 2) + 16·(t % 2) + 0…15, 4 bits for every 4 of them.

One word serves both halves: the instruction's sparsity selector 0 reads lanes t = 0, 1, and 1 reads t = 2, 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zellige.errors import InputError

ROWS, STEP = 128, 64
"""Rows of a tile, columns of a step."""

VALUE_BYTES, METADATA_BYTES = ROWS * STEP // 2 * 2, ROWS * STEP // 4 // 2
IMAGE_BYTES = VALUE_BYTES + METADATA_BYTES

_TWO_OF_FOUR = np.array([sorted(sorted(range(4), key=lambda place: not bits >> place & 1)[:2]) for bits in range(16)], np.uint8)
"""The two positions to keep, by which of the four are non-zero (one bit each); zeros fill up from the lowest."""


def violations(weight: NDArray) -> NDArray[np.int64]:
    """Where more than 2 of 4 consecutive columns are non-zero: (row, group of 4), one a line; columns a multiple of 4.

    >>> violations(np.array([[1, 2, 0, 0, 1, 1, 0, 1]])).tolist()
    [[0, 1]]
    """
    return np.argwhere((_groups(weight) != 0).sum(-1) > 2)


def compress(weight: NDArray) -> tuple[NDArray, NDArray[np.uint8]]:
    """The two values of each 4, and their positions in it, ascending: two arrays of rows × columns / 2.

    Raises ``InputError`` where a group of four holds more than two non-zeros.

    >>> values, positions = compress(np.array([[0, 5, 0, 7, 0, 0, 9, 0]]))
    >>> values.tolist(), positions.tolist()
    ([[5, 7, 0, 9]], [[1, 3, 0, 2]])
    """
    bad = violations(weight)
    if len(bad):
        row, group = bad[0]
        raise InputError(f"expected at most 2 non-zeros in each 4 consecutive columns, found more in {len(bad)} places: "
                         f"row {row}, columns {4 * group} to {4 * group + 3} is the first; prune to 2:4")  # fmt: skip
    groups = _groups(weight)
    positions = _TWO_OF_FOUR[((groups != 0) << np.arange(4, dtype=np.uint8)).sum(-1, dtype=np.uint8)]
    values = np.take_along_axis(groups, positions.astype(np.int64), axis=-1)
    shape = len(weight), weight.shape[1] // 2
    return values.reshape(shape), positions.reshape(shape)


def expand(values: NDArray, positions: NDArray[np.uint8]) -> NDArray:
    """The weight that ``compress`` made them of."""
    rows, groups = len(values), values.shape[1] // 2
    weight, pairs = np.zeros((rows, groups, 4), values.dtype), (rows, groups, 2)
    np.put_along_axis(weight, positions.reshape(pairs).astype(np.int64), values.reshape(pairs), axis=-1)
    return weight.reshape(rows, 4 * groups)


def images(values: NDArray[np.uint16], positions: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One tile's steps × 9216 bytes, from 128 × columns / 2 values (16-bit numbers as they are stored) and positions."""
    rows, half = values.shape
    if rows != ROWS or half % (STEP // 2) or positions.shape != values.shape or values.dtype != np.uint16:
        raise InputError(f"expected {ROWS} rows of 16-bit values and as many positions, columns a multiple of {STEP // 2}; "
                         f"got values {values.dtype}{list(values.shape)}, positions {list(positions.shape)}")  # fmt: skip
    steps = half // (STEP // 2)
    fragments = values.reshape(8, 2, 8, steps, 2, 2, 4, 2).transpose(3, 4, 0, 2, 6, 5, 1, 7)
    nibbles = (positions[:, 0::2] | positions[:, 1::2] << 2).astype(np.uint32).reshape(8, 2, 8, steps, 4, 4)
    shifts = np.arange(2, dtype=np.uint32)[:, None, None, None, None] * 16 + np.arange(4, dtype=np.uint32) * 4
    words = (nibbles << shifts).sum(axis=(1, 5), dtype=np.uint32).transpose(2, 0, 1, 3)
    packed = np.empty((steps, IMAGE_BYTES), np.uint8)
    packed[:, :VALUE_BYTES] = np.ascontiguousarray(fragments).view(np.uint8).reshape(steps, VALUE_BYTES)
    packed[:, VALUE_BYTES:] = np.ascontiguousarray(words).view(np.uint8).reshape(steps, METADATA_BYTES)
    return packed


def from_images(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """The values and positions that ``images`` made them of."""
    steps = len(packed)
    half = STEP // 2 * steps
    fragments = np.ascontiguousarray(packed[:, :VALUE_BYTES]).view(np.uint16).reshape(steps, 2, 8, 8, 4, 2, 2, 2)
    values = fragments.transpose(2, 6, 3, 0, 1, 5, 4, 7).reshape(ROWS, half)
    words = np.ascontiguousarray(packed[:, VALUE_BYTES:]).view(np.uint32).reshape(steps, 8, 8, 4)
    shifts = np.arange(2, dtype=np.uint32)[:, None] * 16 + np.arange(4, dtype=np.uint32) * 4
    nibbles = (words[..., None, None] >> shifts & 15).transpose(1, 4, 2, 0, 3, 5).reshape(ROWS, half // 2)
    return values, np.stack([nibbles & 3, nibbles >> 2], axis=-1).reshape(ROWS, half).astype(np.uint8)


def _groups(weight: NDArray) -> NDArray:
    if weight.ndim != 2 or weight.shape[1] % 4:
        raise InputError(f"expected a matrix whose columns are a multiple of 4, got shape {list(weight.shape)}; pad it with zeros")
    return weight.reshape(len(weight), weight.shape[1] // 4, 4)
