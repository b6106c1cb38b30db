"""The transposed order over the same tiles, for dX = dY · W: which number of a weight in tiles stands where in Wᵀ in tiles.

What is stored is the weight once. Its transpose is cut by itself, since columns of W need the union of the rows of all tiles that
keep them; its values are not kept but fetched from the weight's by ``sources`` whenever they are needed, so that what an optimizer
changes is seen. The product itself is the one of the forward pass, as deterministic and without atomic additions.

Blocks are as sparse transposed. Of a tile-wise weight the rows that it lost shorten dX, the columns that a tile lacks do not,
unless all tiles lack them: ``Tiles.work`` of the transpose says what is left.
"""

from __future__ import annotations

import numpy as np

from zellige.cuda.tiling.tiles import PADDING, Tiles, cut_tiles, step_columns


def transpose(tiles: Tiles) -> Tiles:
    """Wᵀ in tiles of as many rows, whose values are places: 1 + where in ``tiles.values`` a number stands, 0 for none.

    >>> weight = np.zeros((2, 8), np.float32)
    >>> weight[1, [2, 5]] = 3, 4
    >>> there = transpose(cut_tiles(weight, tile=2, group=1, step=4))
    >>> there.shape, there.rows.tolist(), there.units.tolist()
    ((8, 2), [2, 5, 0, 1, 3, 4, 6, 7], [1, 1, 1, 1])
    >>> there.values[0].tolist()
    [[1, 0, 0, 0], [2, 0, 0, 0]]
    """
    return cut_tiles(_places(tiles).T, tiles.tile, 1, tiles.step)


def _places(tiles: Tiles) -> np.ndarray:
    """Rows × columns: 1 + the place of each kept number, whatever it is now."""
    places = np.zeros(tiles.shape, np.int32)
    numbers = np.arange(1, tiles.values.size + 1, dtype=np.int32).reshape(tiles.values.shape)
    for tile in range(len(tiles.starts) - 1):
        rows = tiles.rows[tile * tiles.tile:(tile + 1) * tiles.tile]
        for step in range(tiles.starts[tile], tiles.starts[tile + 1]):
            columns, fresh = _first_seen(tiles, step, int(tiles.starts[tile]))
            there = fresh & (columns < tiles.shape[1])
            places[np.ix_(rows[rows != PADDING], columns[there])] = numbers[step][rows != PADDING][:, there]
    return places


def _first_seen(tiles: Tiles, step: int, start: int) -> tuple[np.ndarray, np.ndarray]:
    """A step's columns, and which of them are not the tile's last unit repeated."""
    columns = step_columns(tiles, step)
    begins = columns[::tiles.unit]
    last = step_columns(tiles, step - 1)[-tiles.unit] if step > start else -1
    return columns, (begins != np.concatenate([[last], begins[:-1]])).repeat(tiles.unit)
