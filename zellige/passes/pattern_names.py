"""Names for what zeros have in common, found in the weights themselves: the coarsest pattern that explains them.

A pattern explains the zeros if skipping by it leaves at most a little more work than skipping single zeros would. Tiles of any
multiple of 16 rows show as tiles of 16. Names are for reports: nothing is planned by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

TOLERATED_WASTE = 0.02
TILE_ROWS = 16
FEW_OF_MANY = ((1, 2), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8), (1, 16), (2, 16), (4, 16))


def pattern_name(filters: np.ndarray, groups: int, density: dict[str, float]) -> str:
    """The name for the zeros of a weight of Cout × Cin/groups × kh × kw, whose ``density`` by single elements, blocks and columns
    of bands is known (``LayerSparsity``).

    >>> weight = np.ones((64, 64, 1, 1))
    >>> weight[:, 1::2] = 0
    >>> pattern_name(weight, 1, {"elements": 0.5, "blocks": 1.0, "blocks_per_tap": 1.0, "columns": 0.5, "columns_per_tap": 0.5})
    'channels'
    """
    if density["elements"] >= 1 - TOLERATED_WASTE:
        return "dense"
    filled = (filters != 0).reshape(groups, -1, filters.shape[1], filters.shape[2] * filters.shape[3])
    candidates: dict[str, Callable[[], float]] = {
        "channels": lambda: channel_density(filled),
        "8x8 blocks": lambda: density["blocks"],
        "8x8 blocks per tap": lambda: density["blocks_per_tap"],
        "tile-wise": lambda: tile_density(filled.any(3, keepdims=True)),
        "8x1": lambda: density["columns"],
        "tile-wise per tap": lambda: tile_density(filled),
        "8x1 per tap": lambda: density["columns_per_tap"],
    }
    for name, left in candidates.items():
        if left() <= density["elements"] * (1 + TOLERATED_WASTE):
            return name
    return next(few_of_many(filled), "unstructured")


def channel_density(filled: np.ndarray) -> float:
    """What is left when only whole rows and columns of each group are skipped; ``filled`` is groups × rows × columns × taps."""
    rows, columns = filled.any((2, 3)).sum(1), filled.any((1, 3)).sum(1)
    return float((rows * columns).sum() / filled[..., 0].size)


def tile_density(filled: np.ndarray) -> float:
    """What is left when whole rows are skipped, and whole columns of tiles of the rows that are left."""
    left = 0
    for group in filled:
        live = group[group.any((1, 2))]
        starts = np.arange(0, len(live), TILE_ROWS)
        if len(live):
            columns = np.logical_or.reduceat(live, starts, axis=0).sum((1, 2))
            left += int(columns @ np.minimum(TILE_ROWS, len(live) - starts))
    return left / filled.size


def few_of_many(filled: np.ndarray) -> Iterator[str]:
    """The n:m by which the weight has no more than n of every m neighbours, and hardly fewer."""
    for along, axis in (("", 2), (" along outputs", 1)):
        lines = np.moveaxis(filled, axis, 3)
        length = lines.shape[3]
        for n, m in FEW_OF_MANY:
            starts = np.arange(0, length, m)
            counts = np.add.reduceat(lines, starts, axis=3, dtype=np.int32)
            most = np.minimum(n, length - starts)
            if (counts <= most).all() and counts.sum() >= (1 - TOLERATED_WASTE) * most.sum() * counts[..., 0].size:
                yield f"{n}:{m}{along}"
