"""Tables of the softmax kernel: its dimension as steps, the other dimensions as items, or the other way round in lanes."""

from __future__ import annotations

import numpy as np

from zellige.cpu.kernels.softmax import ACROSS, ALONG
from zellige.cpu.layout import Layout, Planes
from zellige.cpu.tables.cells import cells, offsets
from zellige.cpu.tables.work import Work, lane_bits, table

VECTOR_CYCLES, ITEM_CYCLES = 20, 60  # of all passes together


def softmax_work(source: Layout, target: Layout, dimension: int, lanes: int = 16) -> tuple[str, Work]:
    """The way that lanes run, which chooses the kernel's variant, and its tables. Both layouts have one shape."""
    shape, dimension = source.shape, dimension % len(source.shape)
    every_lane = np.int64((1 << lanes) - 1)
    if all(size == 1 for size in shape[dimension + 1:]) and source.strides[dimension] == target.strides[dimension] == 1:
        variant, steps = ALONG, _along(target, dimension, lanes)
        targets, sources = (offsets(*_without(layout, dimension)) for layout in (target, source))
        items = table(targets, every_lane, every_lane, sources)
    else:
        variant = ACROSS
        one = (*shape[:dimension], 1, *shape[dimension + 1:])
        walk = cells(target, source.strides, lanes, along=True, shape=one)
        items = table(*walk.target, walk.source[:, 0])
        index = np.arange(shape[dimension])
        steps = table(index * target.strides[dimension], every_lane, every_lane, index * source.strides[dimension])
    return variant, Work({"items": items, "steps": steps, "step_count": len(steps)},
                         np.full(len(items), ITEM_CYCLES + VECTOR_CYCLES * float(len(steps))))


def _along(target: Layout, dimension: int, lanes: int) -> np.ndarray:
    """The vectors of one row, and of the margin behind it."""
    size = target.shape[dimension]
    stored = target.row if isinstance(target, Planes) and dimension == 3 else size
    first = np.arange(0, stored, lanes)
    lane = first[:, None] + np.arange(lanes)
    return table(first, lane_bits(lane < size), lane_bits(lane < stored), first)


def _without(layout: Layout, dimension: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides of the other dimensions."""
    return tuple(tuple(each[:dimension]) + tuple(each[dimension + 1:]) for each in (layout.shape, layout.strides))  # type: ignore[return-value]
