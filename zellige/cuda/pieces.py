"""The order of work: which program takes which part of which tile.

A tile's sums for one block of tokens are one item of work. Items are started longest first, so that the last ones to run
are short. Where the items of a layer would still leave multiprocessors idle at the end, tiles are cut along their columns
into parts that run side by side (split-K). How many parts is decided by playing the schedule through, for each number, with
what a program takes beside its steps.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

PARTS = (1, 2, 3, 4, 6, 8)
FEWEST_STEPS = 4  # a part of fewer steps is mostly its own beginning and end
START_STEPS = 5.0  # what a program takes beside its steps, in steps: filling the pipeline, writing the result
JOIN_STEPS = 3.0  # what a part takes more than a whole: its sums go through memory
PLAYED = 4096  # more items than this fill any chip so often that its end counts for nothing


@lru_cache(maxsize=4096)
def plan_pieces(starts: tuple[int, ...], blocks: int, places: int) -> np.ndarray:
    """Pieces × (tile, first step, steps, part, parts, slot), longest first; int32.

    ``starts``: the first step of every tile, then their number. ``blocks``: of tokens, each of which does all pieces.
    ``places``: programs that the chip runs at the same time. Parts of one tile have the same ``slot``; whole tiles have 0.

    >>> plan_pieces((0, 2, 10), 1, 3).tolist()
    [[1, 2, 4, 0, 2, 0], [1, 6, 4, 1, 2, 0], [0, 0, 2, 0, 1, 0]]
    """
    lengths = np.diff(starts)
    tried = PARTS if len(lengths) * blocks <= PLAYED else (1,)
    parts = min(tried, key=lambda count: span(lengths, count, blocks, places))
    pieces, slot = [], 0
    for tile, (first, length) in enumerate(zip(starts, lengths, strict=False)):
        cut = _cut(int(length), parts)
        ends = np.cumsum([first, *cut])
        pieces += [(tile, int(ends[part]), steps, part, len(cut), slot if len(cut) > 1 else 0) for part, steps in enumerate(cut)]
        slot += len(cut) > 1
    return np.array(sorted(pieces, key=lambda piece: -piece[2]), np.int32).reshape(-1, 6)


def span(lengths: Iterable[int], parts: int, blocks: int, places: int) -> float:
    """How long all takes, in steps, when every free place takes the longest item that is left."""
    costs = []
    for length in lengths:
        cut = _cut(int(length), parts)
        costs += [steps + START_STEPS + JOIN_STEPS * (len(cut) > 1) for steps in cut] * blocks
    costs.sort(reverse=True)
    if len(costs) <= places:
        return costs[0]
    busy = costs[:places]
    heapq.heapify(busy)
    for cost in costs[places:]:
        heapq.heapreplace(busy, busy[0] + cost)
    return max(busy)


def _cut(length: int, parts: int) -> list[int]:
    """A tile's steps in so many equal parts, fewer where they would be too short."""
    parts = max(1, min(parts, length // FEWEST_STEPS))
    return [length * (part + 1) // parts - length * part // parts for part in range(parts)]
