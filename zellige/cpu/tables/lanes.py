"""Which element of the source every lane of a copy takes, and the copy kernel's tables from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zellige.cpu.kernels.copy import LISTED
from zellige.cpu.tables.work import Work, lane_bits, table

VECTOR_CYCLES = 8   # of a vector that is read in one piece
LANE_CYCLES = 3     # of a lane that is read by itself


@dataclass(frozen=True, eq=False)
class Lanes:
    """Vectors of the target, one row each; what a lane takes from the source, one column each.

    ``offsets`` are source elements, −1 outside; lanes of ``pixels`` are elements of the target, those of ``store`` are written.
    """

    offsets: np.ndarray
    target: np.ndarray
    pixels: np.ndarray
    store: np.ndarray

    def tables(self, lanes: int) -> dict[str, np.ndarray | int]:
        """The vectors, and the lists of those whose lanes lie neither side by side nor two apart."""
        inside = self.offsets >= 0
        lane = np.arange(lanes)
        first = inside.argmax(1)
        begin = np.take_along_axis(self.offsets, first[:, None], 1)[:, 0]
        source: np.ndarray = np.zeros(len(first), np.int64)
        step: np.ndarray = np.full(len(first), LISTED)
        for stride in (2, 1):
            base = begin - stride * first
            fits = ((self.offsets == base[:, None] + stride * lane) | ~inside).all(1)
            source, step = np.where(fits, base, source), np.where(fits, stride, step)
        listed = step == LISTED
        source[listed] = np.arange(listed.sum())
        indices = np.where(inside, self.offsets, begin[:, None])[listed].astype(np.int32)
        source[~inside.any(1)] = 0
        vectors = table(source, self.target, lane_bits(inside), lane_bits(self.store), lane_bits(self.pixels & ~inside), step)
        return {"vectors": vectors, "indices": indices if len(indices) else np.zeros((1, lanes), np.int32)}


def row_lanes(offsets: np.ndarray, row: int, stored: int, lanes: int) -> Lanes:
    """Vectors that begin anew with every row of ``offsets`` (rows × pixels), which lie ``row`` apart; ``stored`` are written."""
    height, width = offsets.shape
    groups = -(-stored // lanes)
    padded = np.full((height, groups * lanes), -1, np.int64)
    padded[:, :width] = offsets
    column = np.arange(groups * lanes)
    target = np.arange(height)[:, None] * row + np.arange(groups) * lanes
    pixels, store = (np.broadcast_to(column < end, padded.shape).reshape(-1, lanes) for end in (width, stored))
    return Lanes(padded.reshape(-1, lanes), target.ravel(), pixels, store)


def join(parts: Sequence[Lanes]) -> Lanes:
    return Lanes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("offsets", "target", "pixels", "store")))


def copy_items(tables: dict[str, np.ndarray | int], first: np.ndarray, last: np.ndarray, source: np.ndarray,
               target: np.ndarray) -> Work:
    """The work of items that each copy a range of vectors, from ``source`` on and to ``target`` on."""
    items = table(first, last, source, target)
    vectors, indices = tables["vectors"], tables["indices"]
    assert isinstance(vectors, np.ndarray) and isinstance(indices, np.ndarray)
    cycles = np.where(vectors[:, -1] == LISTED, LANE_CYCLES * indices.shape[1], VECTOR_CYCLES)
    total = np.concatenate([[0], np.cumsum(cycles)])
    return Work(tables | {"items": items}, total[items[:, 1]] - total[items[:, 0]])
