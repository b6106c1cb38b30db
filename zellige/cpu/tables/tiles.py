"""Cutting a map into tiles, and tiles and bands into work items in the order that the caches like."""

from __future__ import annotations

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.kernels.band import Tile

MAXIMUM_VECTORS = 8    # of a tile; more would only help kernels of one row
MAXIMUM_SINGLES = 2    # of a tile


def widest_tile(rows: int, isa: Isa) -> int:
    """Vectors of a tile: bands of fewer rows leave registers for more."""
    most, vectors = isa.band
    return vectors if rows == most else min(MAXIMUM_VECTORS, most * vectors // rows)


def singles_beside(vectors: int, rows: int, isa: Isa) -> int:
    """How many single pixels a tile has registers for: a sum each, and one for the pixel; lanes run over the band's rows."""
    left = isa.registers - rows * vectors - vectors - 2
    return min(max(left, 0), MAXIMUM_SINGLES) if rows <= isa.lanes else 0


def cut_pixels(pixels: int, rows: int, isa: Isa) -> list[Tile]:
    """Tiles over a run of pixels: the rest beyond whole vectors goes to single pixels beside them, if that takes less.

    >>> from zellige.cpu.isa import AVX512
    >>> cut_pixels(49, 8, AVX512), cut_pixels(59, 8, AVX512)
    ([Tile(vectors=3, singles=1)], [Tile(vectors=2, singles=0), Tile(vectors=2, singles=0)])
    """
    vectors, rest = divmod(pixels, isa.lanes)
    widths = tile_widths(vectors, widest_tile(rows, isa))
    room = [singles_beside(width, rows, isa) for width in widths]
    if not rest or rest >= rows or rest > sum(room):
        return [Tile(width) for width in tile_widths(vectors + bool(rest), widest_tile(rows, isa))]
    singles = [0] * len(widths)
    for tile in reversed(range(len(widths))):  # the last ones are beside them in memory, so that one thread has the line
        singles[tile] = min(room[tile], rest - sum(singles))
    return [Tile(*shape) for shape in zip(widths, singles, strict=True)]


def tile_widths(vectors: int, widest: int) -> list[int]:
    """Tiles of ``widest`` vectors, and at the end narrower ones, but none of one vector if it can be helped: a
    single vector can't hide the latency of its sums.

    >>> tile_widths(13, 3), tile_widths(4, 3), tile_widths(1, 3)
    ([3, 3, 3, 2, 2], [2, 2], [1])
    """
    full, rest = divmod(vectors, widest)
    if rest == 0:
        return [widest] * full
    if rest == 1 and full and widest > 2:
        return [widest] * (full - 1) + [widest - 1, 2]
    return [widest] * full + [rest]


def first_entries(tiles: list[Tile]) -> np.ndarray:
    """Where each tile begins in the table of vectors, singles being entries too."""
    return np.cumsum([0, *(tile.entries for tile in tiles)])[:-1]


def tile_items(tiles: list[Tile], bands: int) -> np.ndarray:
    """Work items (first entry, vectors, singles, band): all bands of one tile after another.

    A tile's source pixels then stay in the second-level cache, while weights stream past in one sequence, which the
    processor fetches ahead. The other order, all tiles of a band, measured up to 1.4× slower where maps are
    small: every column then reads from another place. Shape (tiles × bands, 4), int32.
    """
    shapes = np.array(tiles, np.int32).reshape(-1, 2)
    each = np.column_stack([first_entries(tiles), shapes])
    return np.column_stack([np.repeat(each, bands, axis=0), np.tile(np.arange(bands), len(tiles))]).astype(np.int32)
