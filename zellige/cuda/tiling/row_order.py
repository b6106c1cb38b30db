"""Which rows should share a tile: an order of a weight's rows in which tiles keep fewer columns.

A tile keeps the union of what its rows keep. Where blocks are smaller than the tile, rows that keep like columns belong
together; in memory they may lie wherever they do, since a tile names its rows. That is what TETRIS (Ji et al., NeurIPS 2018)
does with the rows of a layer, here after pruning, when only zeros count.

Greedy: a tile begins with the row that keeps the most of those left, and takes again and again the one that adds the fewest
groups of columns to it. Rows that keep the same groups go together, as those of a band of blocks do. The order that the rows had
is kept where none better is found.
"""

from __future__ import annotations

import numpy as np


def row_order(used: np.ndarray, tile: int) -> np.ndarray:
    """An order of rows, for ``used``: rows × groups of columns, True where a row keeps anything of a group.

    >>> used = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    >>> row_order(used, tile=2).tolist()
    [0, 2, 1, 3]
    """
    patterns, members = _alike(used)
    left = [list(rows) for rows in members]
    sizes, by_group = patterns.sum(1), np.ascontiguousarray(patterns.T)
    order: list[int] = []
    while len(order) < len(used):
        order += _next_tile(by_group, sizes, left, tile)
    clustered, plain = np.array(order, np.intp), np.arange(len(used))
    return clustered if kept_groups(used[clustered], tile) < kept_groups(used, tile) else plain


def kept_groups(used: np.ndarray, tile: int) -> int:
    """How many groups the tiles keep, together.

    >>> kept_groups(np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool), tile=2)
    4
    """
    return int(np.logical_or.reduceat(used, np.arange(0, len(used), tile)).sum()) if len(used) else 0


def _alike(used: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The different rows of ``used``, and who has each: those that keep most first, then by their first row."""
    packed = np.packbits(used, axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    ranked = np.lexsort((first, -used[first].sum(1)))
    return used[first[ranked]], [np.flatnonzero(which == pattern) for pattern in ranked]


def _next_tile(by_group: np.ndarray, sizes: np.ndarray, left: list[list[int]], tile: int) -> list[int]:
    """Takes the rows of a tile out of what is left: the first ones whole, and of the last one as many as fit."""
    taken: list[int] = []
    gone = np.array([not rows for rows in left])
    union = np.zeros(len(by_group), bool)
    shared = np.zeros(len(left), np.int32)
    best = int(gone.argmin())
    while len(taken) < tile and not gone.all():
        room = tile - len(taken)
        taken += left[best][:room]
        left[best] = left[best][room:]
        gone[best] = not left[best]
        fresh = by_group[:, best] & ~union
        union |= fresh
        shared += by_group[fresh].sum(0, dtype=np.int32)
        best = int(np.where(gone, len(by_group) + 1, sizes - shared).argmin())  # of equals the one that keeps most
    return taken
