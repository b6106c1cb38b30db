"""Names for what zeros have in common, found in the weights themselves: the coarsest pattern that explains them.

A pattern explains the zeros if skipping by it leaves at most a little more work than skipping single zeros would. Tiles of any
multiple of 16 rows show as tiles of 16. Names are for reports: nothing is planned by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

TOLERATED_WASTE = 0.02
TILE_ROWS = 16
SMALLEST_BLOCK, LARGEST_BLOCK = 8, 128
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
    most = density["elements"] * (1 + TOLERATED_WASTE)
    for name, left in candidates.items():
        if left() <= most:
            if "blocks" not in name:
                return name
            return name.replace("8x8", coarsest(filled if name.endswith("tap") else filled.any(3, keepdims=True), most))
    lines = {
        "{}": [np.moveaxis(filled, 2, 3)],
        "{} along outputs": [np.moveaxis(filled, 1, 3)],
        "tile-wise with {} inside": [np.moveaxis(tile[:, tile.any((0, 2))], 1, 2) for tile in tiles(filled)],
    }
    return next((name.format(few) for name, parts in lines.items() if (few := few_of_many(parts))), "unstructured")


def coarsest(filled: np.ndarray, most: float) -> str:
    """The largest blocks by which no more than ``most`` is left, where by 8 × 8 that is so: rows are doubled, then columns.

    >>> coarsest(np.kron(np.eye(2), np.ones((128, 64)))[None, ..., None] != 0, 0.5)
    '128x64'
    """
    rows, columns = filled.shape[1:3]
    height = width = SMALLEST_BLOCK
    while 2 * height <= min(rows, LARGEST_BLOCK) and block_density(filled, 2 * height, width) <= most:
        height *= 2
    while 2 * width <= min(columns, LARGEST_BLOCK) and block_density(filled, height, 2 * width) <= most:
        width *= 2
    return f"{height}x{width}"


def block_density(filled: np.ndarray, height: int, width: int) -> float:
    """What is left when whole blocks of so many rows and columns are skipped; those at the edges may be smaller."""
    starts = [np.arange(0, size, block) for size, block in zip(filled.shape[1:3], (height, width), strict=True)]
    used = np.logical_or.reduceat(np.logical_or.reduceat(filled, starts[0], axis=1), starts[1], axis=2)
    sizes = [np.diff([*start, size]) for start, size in zip(starts, filled.shape[1:3], strict=True)]
    return float(np.einsum("grct,r,c->", used.astype(np.float64), *sizes) / filled.size)


def channel_density(filled: np.ndarray) -> float:
    """What is left when only whole rows and columns of each group are skipped; ``filled`` is groups × rows × columns × taps."""
    rows, columns = filled.any((2, 3)).sum(1), filled.any((1, 3)).sum(1)
    return float((rows * columns).sum() / filled[..., 0].size)


def tile_density(filled: np.ndarray) -> float:
    """What is left when whole rows are skipped, and whole columns of tiles of the rows that are left."""
    return sum(len(tile) * int(tile.any(0).sum()) for tile in tiles(filled)) / filled.size


def tiles(filled: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each group that aren't empty, some at a time: rows × columns × taps."""
    for group in filled:
        live = group[group.any((1, 2))]
        yield from (live[start:start + TILE_ROWS] for start in range(0, len(live), TILE_ROWS))


def few_of_many(parts: Sequence[np.ndarray]) -> str | None:
    """The n:m by which no part has more than n of every m neighbours along its last axis, and all together hardly fewer."""
    for n, m in FEW_OF_MANY:
        kept = room = 0
        for part in parts:
            starts = np.arange(0, part.shape[-1], m)
            counts = np.add.reduceat(part, starts, axis=-1, dtype=np.int32)
            most = np.minimum(n, part.shape[-1] - starts)
            if (counts > most).any():
                break
            kept += int(counts.sum())
            room += int(most.sum()) * counts[..., 0].size
        else:
            if kept >= (1 - TOLERATED_WASTE) * room:
                return f"{n}:{m}"
    return None
