"""Tables of vectors: which lanes of memory a kernel over planes reads and writes, one row of the table a vector.

The four 32-bit columns are the ``source`` and ``target`` offsets of lane 0 (elements, relative to pixel (0, 0) of a
plane), the ``inside`` mask (lanes that are pixels; a kernel makes the others zero) and the ``store`` mask (lanes that it writes).
"""

from __future__ import annotations

import numpy as np

from zellige.cpu.kernels.band import Tile
from zellige.cpu.layout import Planes
from zellige.cpu.tables.work import lane_bits, table

SOURCE, TARGET, INSIDE, STORE = range(4)


def is_run(source: Planes, target: Planes) -> bool:
    """Whether all pixels of a plane are one run without gaps, in the source as in the target."""
    return source.row == target.row == target.width and (
        target.images == 1 or source.image == target.image == target.span)


def flat_vectors(source: Planes, target: Planes, lanes: int) -> np.ndarray:
    """Vectors over all rows of every image, margins between rows included: both sides have rows of one length.

    Each image of the target begins a new vector. Shape (vectors, 4), int32.
    """
    if source.row != target.row:
        raise ValueError(f"flat vectors need rows of equal length: {source.row} and {target.row}")
    begin = np.arange(0, target.span, lanes)
    place = begin[:, None] + np.arange(lanes)
    store = place < target.span
    inside = store & (place % target.row < target.width)
    return _table(begin, begin, inside, store, source, target)


def run_entries(tiles: list[Tile], pixels: int, lanes: int) -> np.ndarray:
    """The vectors and singles of tiles over one run of pixels: vectors come first in the run, singles last.

    Shape (entries, 4), int32.
    """
    vectors = sum(tile.vectors for tile in tiles)
    is_vector = np.concatenate([np.arange(tile.entries) < tile.vectors for tile in tiles])
    place = np.where(is_vector, (is_vector.cumsum() - 1) * lanes, vectors * lanes + (~is_vector).cumsum() - 1)
    lane = np.arange(lanes)
    store = (place[:, None] + lane < pixels) & (is_vector[:, None] | (lane == 0))
    bits = lane_bits(store)
    return table(place, place, bits, bits)


def row_vectors(source: Planes, target: Planes, lanes: int, stride: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Vectors that begin anew with every row of the target; the source moves by ``stride`` pixels for each target pixel."""
    y, x = (axis.ravel() for axis in np.meshgrid(np.arange(target.height), np.arange(0, target.row, lanes), indexing="ij"))
    column = x[:, None] + np.arange(lanes)
    # A row is written to its end: the margin after its pixels becomes zero with them.
    inside, store = column < target.width, column < target.row
    return _table(y * stride[0] * source.row + x * stride[1], y * target.row + x, inside, store, source, target)


def _table(source_offset: np.ndarray, target_offset: np.ndarray, inside: np.ndarray, store: np.ndarray,
           source: Planes, target: Planes) -> np.ndarray:
    bits = 1 << np.arange(inside.shape[1], dtype=np.int64)
    image = np.arange(target.images)[:, None]
    columns = (source_offset + image * source.image, target_offset + image * target.image,
               np.broadcast_to((inside * bits).sum(1), (target.images, len(inside))),
               np.broadcast_to((store * bits).sum(1), (target.images, len(store))))
    return np.stack([column.ravel() for column in columns], 1).astype(np.int32)
