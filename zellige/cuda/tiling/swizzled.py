"""Plain 16-bit weights in the order that Hopper's tensor cores read them from shared memory on their own.

A *tile* is 128 rows, its columns are walked in *steps* of 64, and a step is one *image*: 16384 bytes, copied as they are.
128 bytes are a row; its 16-byte chunk c lies at place c ^ (row & 7), so that the same chunk of 8 rows falls in different banks.
To ``wgmma.mma_async`` this is a K-major matrix with 128-byte swizzling (PTX ISA, "Strides" and "Swizzling modes").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zellige.cuda.tiling.two_four import ROWS, STEP
from zellige.errors import InputError

IMAGE_BYTES = ROWS * STEP * 2

_PLACES = np.arange(ROWS)[:, None] & 7 ^ np.arange(8)
"""Row × place → the chunk that lies there, and by the same table chunk → its place."""


def images(tile: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """One tile's steps × 16384 bytes, from 128 × columns 16-bit numbers as they are stored.

    >>> images(np.arange(8192, dtype=np.uint16).reshape(128, 64)).view(np.uint16)[0, 64:72].tolist()  # row 1 begins with chunk 1
    [72, 73, 74, 75, 76, 77, 78, 79]
    """
    rows, columns = tile.shape
    if rows != ROWS or columns % STEP or tile.dtype != np.uint16:
        raise InputError(f"expected {ROWS} rows of 16-bit values, columns a multiple of {STEP}; got {tile.dtype}{list(tile.shape)}")
    chunks = tile.reshape(ROWS, columns // STEP, 8, 8).transpose(1, 0, 2, 3)
    return np.ascontiguousarray(_swapped(chunks)).view(np.uint8).reshape(-1, IMAGE_BYTES)


def from_images(packed: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The tile that ``images`` made them of."""
    chunks = np.ascontiguousarray(packed).view(np.uint16).reshape(len(packed), ROWS, 8, 8)
    return np.ascontiguousarray(_swapped(chunks).transpose(1, 0, 2, 3)).reshape(ROWS, STEP * len(packed))


def _swapped(chunks: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.take_along_axis(chunks, np.broadcast_to(_PLACES[None, :, :, None], chunks.shape), axis=2)
