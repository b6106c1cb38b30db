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
from itertools import pairwise

import numpy as np

FIELDS = ("tile", "first", "steps", "part", "parts", "home", "idle", "idle_end")
"""What a piece says: its tile, its first step and number of steps, which part of how many it is, where their sums meet, and
whose rows it writes besides."""

PARTS = (1, 2, 3, 4, 6, 8)
CARRIED = 2  # tiles without steps whose rows a piece writes, at most: more would make it long
FEWEST_STEPS = 4  # a part of fewer steps is mostly its own beginning and end
START_STEPS = 5.0  # what a program takes beside its steps, in steps: filling the pipeline, writing the result
JOIN_STEPS = 3.0  # what a part takes more than a whole: its sums go through memory
PLAYED = 4096  # more items than this fill any chip so often that its end counts for nothing


def counts_of_parts(starts: tuple[int, ...]) -> tuple[int, ...]:
    """In how many parts tiles may be cut: no more than the longest tile has, of ``FEWEST_STEPS`` or more.

    ``starts``: the first step of every tile, then their number.

    >>> counts_of_parts((0, 3, 5)), counts_of_parts((0, 20))
    ((1,), (1, 2, 3, 4, 6))
    """
    most = max(1, int(np.diff(starts).max()) // FEWEST_STEPS)
    return tuple(parts for fewer, parts in pairwise((0, *PARTS)) if fewer < most)


@lru_cache(maxsize=4096)
def best_count(starts: tuple[int, ...], blocks: int, places: int) -> int:
    """In how many parts tiles should be cut, so that all is done soonest.

    ``blocks``: of tokens, each of which does all pieces. ``places``: programs that the chip runs at the same time.
    """
    lengths = np.diff(starts)
    tried = counts_of_parts(starts) if len(lengths) * blocks <= PLAYED else (1,)
    return min(tried, key=lambda parts: span(lengths[lengths > 0], parts, blocks, places))


def plan_pieces(starts: tuple[int, ...], parts: int) -> np.ndarray:
    """Pieces × ``FIELDS``, longest first; int32. Tiles are cut in so many parts, or fewer where these would be too short.

    A tile in ``parts`` > 1 has as many places for sums of its own from ``home`` on, one for each part; a whole tile needs none.
    Tiles without steps have rows to write, and nothing to multiply: the pieces write them beside their own, each those of the
    tiles from ``idle`` to before ``idle_end``, ``CARRIED`` at most; those left are pieces too.

    >>> plan_pieces((0, 2, 10, 10), 2).tolist()
    [[1, 2, 4, 0, 2, 0, 2, 2], [1, 6, 4, 1, 2, 0, 2, 2], [0, 0, 2, 0, 1, 0, 2, 3]]
    """
    lengths = np.diff(starts)
    busy = int(np.count_nonzero(lengths))  # tiles without steps come last (``tiles.py``)
    pieces, home = [], 0
    for tile, (first, length) in enumerate(zip(starts, lengths[:busy], strict=False)):
        cut = _cut(int(length), parts)
        ends = np.cumsum([first, *cut])
        pieces += [(tile, int(ends[part]), steps, part, len(cut), home if len(cut) > 1 else 0) for part, steps in enumerate(cut)]
        home += len(cut) if len(cut) > 1 else 0
    pieces.sort(key=lambda piece: -piece[2])
    carried = min(len(lengths) - busy, CARRIED * len(pieces))
    idle = [busy + carried * number // len(pieces) for number in range(len(pieces) + 1)] if pieces else [busy]
    alone = range(busy + carried, len(lengths))
    pieces += [(tile, int(starts[tile]), 0, 0, 1, 0) for tile in alone]
    idle += [idle[-1]] * len(alone)
    return np.column_stack([np.array(pieces), idle[:-1], idle[1:]]).astype(np.int32)


def span(lengths: Iterable[int], parts: int, blocks: int, places: int) -> float:
    """How long all takes, in steps, when every free place takes the longest item that is left."""
    costs: list[float] = []
    for length in lengths:
        cut = _cut(int(length), parts)
        costs += [steps + START_STEPS + JOIN_STEPS * (len(cut) > 1) for steps in cut] * blocks
    if len(costs) <= places:
        return max(costs, default=0.0)
    costs.sort(reverse=True)
    busy = costs[:places]
    heapq.heapify(busy)
    for cost in costs[places:]:
        heapq.heapreplace(busy, busy[0] + cost)
    return max(busy)


def _cut(length: int, parts: int) -> list[int]:
    """A tile's steps in so many equal parts, fewer where they would be too short."""
    parts = max(1, min(parts, length // FEWEST_STEPS))
    return [length * (part + 1) // parts - length * part // parts for part in range(parts)]
