"""Cutting a list of vectors into tiles, and tiles and bands into work items in the order that the caches like."""

from __future__ import annotations

import numpy as np

from zellige.cpu.layout import LINE

TILE_BYTES = 384 * 1024  # of source pixels that a run of tiles may keep in the second-level cache


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


def tile_items(widths: list[int], bands: int, source_channels: int, lanes: int) -> np.ndarray:
    """Work items (first vector, vectors, band): runs of tiles whose source pixels stay in the second-level cache, and
    in each run all tiles of one band after another, so that the band's weights stay in the first.

    Shape (tiles × bands, 3), int32.
    """
    first = np.cumsum([0, *widths[:-1]])
    bytes_of_tile = max(LINE, source_channels * lanes * 4 * max(widths))
    run = max(1, TILE_BYTES // bytes_of_tile)
    tile = np.arange(len(widths))
    tile, band = (axis.ravel() for axis in np.meshgrid(tile, np.arange(bands), indexing="ij"))
    order = np.lexsort((tile, band, tile // run))
    tile, band = tile[order], band[order]
    return np.stack([first[tile], np.array(widths)[tile], band], 1).astype(np.int32)
