"""The cells of a value as vectors, and where each of their lanes reads another value with strides of its own.

The last dimensions of the value, as many as go, become runs of cells that follow one another in memory, margins between rows
included; vectors begin anew with every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zellige.cpu.layout import Layout, Planes
from zellige.cpu.tables.work import lane_bits

Strides = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Cells:
    """For every vector: the offset of lane 0 (``place``), which lanes are elements (``inside``), which are written at all
    (``store``); for every lane: the ``source`` offset that it reads."""

    place: np.ndarray
    inside: np.ndarray
    store: np.ndarray
    source: np.ndarray

    @property
    def target(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns of a table: place, inside, store."""
        return self.place, lane_bits(self.inside), lane_bits(self.store)


def cells(layout: Layout, source: Strides, lanes: int, along: bool, shape: tuple[int, ...] | None = None) -> Cells:
    """The vectors of a value of a layout; ``shape`` says so if only the first elements of some dimensions are meant.

    ``source`` has the elements from one index to the next in the other value. With ``along`` lanes next to each other
    read elements next to each other, so that ``source[:, 0]`` stands for all, even if the first is in a margin; without,
    lanes in a margin read an element of the run.
    """
    sizes, strides, source = _dimensions(layout, shape or layout.shape, source)
    most = 2 if isinstance(layout, Planes) else len(sizes)
    inner = next(count for count in range(most, -1, -1) if _is_run(sizes, strides, count, layout)
                 and (not along or _runs_along(sizes, strides, source, count)))
    cut = len(sizes) - inner
    place, inside, store, steps = _run(sizes[cut:], strides[cut:], source[cut:], layout, lanes, along)
    targets, sources = offsets(sizes[:cut], strides[:cut]), offsets(sizes[:cut], source[:cut])
    count = len(targets)
    return Cells((targets[:, None] + place).ravel(), np.tile(inside, (count, 1)), np.tile(store, (count, 1)),
                 (sources[:, None, None] + steps).reshape(-1, lanes))


def offsets(sizes: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """The offsets of all indices in row-major order.

    >>> offsets((2, 3), (10, 1)).tolist()
    [0, 1, 2, 10, 11, 12]
    """
    grid = np.indices(tuple(sizes)).reshape(len(sizes), math.prod(sizes))
    return np.array(strides, np.int64) @ grid


def _dimensions(layout: Layout, shape: tuple[int, ...], source: Strides) -> tuple[tuple[int, ...], Strides, Strides]:
    """Sizes and strides; of a dense value dimensions of one index go."""
    kept = [dimension for dimension, size in enumerate(shape) if size > 1 or isinstance(layout, Planes)]
    return tuple(tuple(each[dimension] for dimension in kept) for each in (shape, layout.strides, source))  # type: ignore[return-value]


def _is_run(sizes: tuple[int, ...], strides: Strides, count: int, layout: Layout) -> bool:
    """Whether the cells of the last ``count`` dimensions follow one another."""
    if isinstance(layout, Planes):
        return count > 0
    step = 1
    inner = list(zip(sizes, strides, strict=True))[len(sizes) - count:]
    for size, stride in reversed(inner):
        if stride != step:
            return False
        step *= size
    return True


def _runs_along(sizes: tuple[int, ...], strides: Strides, source: Strides, count: int) -> bool:
    inner = list(zip(sizes, strides, source, strict=True))[len(sizes) - count:]
    return all(size == 1 or ours == theirs for size, ours, theirs in inner)


def _run(sizes: tuple[int, ...], strides: Strides, source: Strides, layout: Layout,
         lanes: int, along: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The vectors of one run, relative to its first cell: place, inside, store, and the source offset of every lane."""
    length = sizes[0] * strides[0] if sizes else 1
    if isinstance(layout, Planes) and len(sizes) == 1:
        length = layout.row
    place = np.arange(0, length, lanes)
    cell = place[:, None] + np.arange(lanes)
    store = cell < length
    inside, rest, steps = store.copy(), np.minimum(cell, length - 1), np.zeros_like(cell)
    for size, stride, step in zip(sizes, strides, source, strict=True):
        index, rest = np.divmod(rest, stride)
        inside &= index < size
        steps += (index if along else np.minimum(index, size - 1)) * step
    return place, inside, store, steps
