"""Tables of the reduction kernel: the target as vectors, the reduced elements as one list of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zellige.cpu.kernels.reduce import KEPT, KEPT_VECTORS, REDUCED
from zellige.cpu.layout import Layout, Planes
from zellige.cpu.tables.cells import Strides, cells, offsets
from zellige.cpu.tables.work import Work, lane_bits, table

VECTOR_CYCLES = 2   # a load with its addition; the end of a sum is worth two more


def reduce_work(source: Layout, target: Layout, dimensions: Sequence[int], mean: bool = False,
                lanes: int = 16) -> tuple[str, Work]:
    """The dimension that lanes run over, which chooses the kernel's variant, and its tables.

    ``target`` has the shape of ``source`` without the ``dimensions``, or with 1 in their place.
    """
    reduced = sorted(dimension % len(source.shape) for dimension in dimensions)
    origins = _origin_strides(source, target, reduced)
    count = math.prod(source.shape[dimension] for dimension in reduced)
    if _last_is_kept(source, reduced):
        variant, items = KEPT, _kept_items(target, origins, lanes)
        steps = table(offsets([source.shape[d] for d in reduced], [source.strides[d] for d in reduced]), np.int64(0))
        vectors = KEPT_VECTORS
    else:
        variant, items = REDUCED, _reduced_items(target, origins, lanes)
        steps = _reduced_steps(source, reduced, lanes)
        vectors = lanes
    divisor = np.array([count if mean else 1], np.float32)
    return variant, Work({"items": items, "steps": steps, "step_count": len(steps), "divisor": divisor},
                         np.full(len(items), VECTOR_CYCLES * (len(steps) + 2.0) * vectors))


def _origin_strides(source: Layout, target: Layout, reduced: list[int]) -> Strides:
    """For each dimension of the target, the elements from one index to the next in the source."""
    if len(target.shape) == len(source.shape):
        return tuple(0 if dimension in reduced else step for dimension, step in enumerate(source.strides))
    return tuple(step for dimension, step in enumerate(source.strides) if dimension not in reduced)


def _last_is_kept(source: Layout, reduced: list[int]) -> bool:
    """Whether the source's last dimension of more than one index is a result's."""
    longer = [dimension for dimension, size in enumerate(source.shape) if size > 1]
    return not longer or longer[-1] not in reduced


def _kept_items(target: Layout, origins: Strides, lanes: int) -> np.ndarray:
    """``KEPT_VECTORS`` vectors to an item, one field of all after the other; the last item repeats its last vector."""
    walk = cells(target, origins, lanes, along=True)
    vectors = table(*walk.target, walk.source[:, 0])
    groups = -(-len(vectors) // KEPT_VECTORS)
    chosen = np.minimum(np.arange(groups * KEPT_VECTORS), len(vectors) - 1).reshape(groups, KEPT_VECTORS)
    return np.ascontiguousarray(vectors[chosen].transpose(0, 2, 1).reshape(groups, -1))


def _reduced_items(target: Layout, origins: Strides, lanes: int) -> np.ndarray:
    walk = cells(target, origins, lanes, along=False)
    return table(*walk.target, *walk.source.T)


def _reduced_steps(source: Layout, reduced: list[int], lanes: int) -> np.ndarray:
    """The reduced elements of one origin as (offset, inside): over whole maps if these are fewer vectors than row by row."""
    sizes, strides = ([each[dimension] for dimension in reduced] for each in (source.shape, source.strides))
    while len(sizes) > 1 and strides[-2] == strides[-1] * sizes[-1]:
        sizes[-2:], strides[-2:] = [sizes[-2] * sizes[-1]], [strides[-1]]
    choices = [_row_steps(sizes, strides, lanes)]
    if isinstance(source, Planes) and reduced[-2:] == [2, 3] and len(sizes) > 1:
        choices.append(_flat_steps(sizes, strides, lanes))
    return min(choices, key=len)


def _row_steps(sizes: list[int], strides: list[int], lanes: int) -> np.ndarray:
    if strides[-1] != 1:  # elements that don't follow one another: one to a vector
        sizes, strides = [*sizes, 1], [*strides, 1]
    first = np.arange(0, sizes[-1], lanes)
    inside = lane_bits(first[:, None] + np.arange(lanes) < sizes[-1])
    rows = offsets(sizes[:-1], strides[:-1])
    return table(rows[:, None] + first, inside)


def _flat_steps(sizes: list[int], strides: list[int], lanes: int) -> np.ndarray:
    height, width, row = sizes[-2], sizes[-1], strides[-2]
    first = np.arange(0, (height - 1) * row + width, lanes)
    cell = first[:, None] + np.arange(lanes)
    inside = lane_bits((cell < height * row) & (cell % row < width))
    images = offsets(sizes[:-2], strides[:-2])
    return table(images[:, None] + first, inside)
