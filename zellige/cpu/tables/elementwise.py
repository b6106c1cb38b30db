"""Tables of the elementwise kernel: numpy's broadcasting as segments of vectors.

The last dimensions of the target, as many as go, become one list of vectors: every operand must either run along with the
target in all of them or stand still in all of them. The other dimensions become items.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from zellige.cpu.kernels.elementwise import FULL, GUARDED, SCALAR
from zellige.cpu.layout import Layout, Planes
from zellige.cpu.tables.work import Work, lane_bits, table

ITEM_VECTORS = 256  # an item has no more than these
MOVE_CYCLES = 2     # of a vector that is loaded or stored


@dataclass(frozen=True)
class Walk:
    """Sizes, and for every value how many elements lie from one index to the next (0: it stands still)."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def tail(self, dimensions: int) -> Walk:
        cut = len(self.sizes) - dimensions
        return Walk(self.sizes[cut:], tuple(steps[cut:] for steps in self.strides))

    def head(self, dimensions: int) -> Walk:
        cut = len(self.sizes) - dimensions
        return Walk(self.sizes[:cut], tuple(steps[:cut] for steps in self.strides))

    def offsets(self) -> list[np.ndarray]:
        """The offsets of every value, at all indices in row-major order."""
        grid = np.indices(self.sizes).reshape(len(self.sizes), math.prod(self.sizes))
        return [np.array(steps, np.int64) @ grid for steps in self.strides]

    def kind(self, value: int) -> str | None:
        """Whether a value runs along in all dimensions, stands still in all, or neither (None)."""
        steps = [step for step, size in zip(self.strides[value], self.sizes, strict=True) if size > 1]
        if not any(steps):
            return SCALAR
        last_is_unit = self.sizes[-1] == 1 or self.strides[value][-1] == 1
        return FULL if all(steps) and last_is_unit else None


def elementwise_work(target: Layout, operands: Sequence[Layout], additions: Sequence[Layout] = (), lanes: int = 16,
                     guarded: Collection[int] = ()) -> tuple[tuple[str, ...], Work]:
    """The kinds of the operands, which choose the kernel's variant, and its tables.

    ``operands`` broadcast to the target's shape; ``additions`` have that shape; ``guarded`` are the positions of operands
    behind whose ends no memory can be read.
    """
    walk = _walk(target, [*operands, *additions])
    additions_at = range(1 + len(operands), 1 + len(operands) + len(additions))
    dimensions = next(count for count in _choices(target, walk) if _fits(walk.tail(count), target))
    inner, outer = walk.tail(dimensions), walk.head(dimensions)
    kinds = [GUARDED if number in guarded and inner.kind(1 + number) == FULL else inner.kind(1 + number) or FULL
             for number in range(len(operands))]
    moving = [1 + number for number, kind in enumerate(kinds) if kind != SCALAR] + list(additions_at)
    vectors = _vectors(inner, target, moving, lanes)
    begins = np.arange(0, len(vectors), ITEM_VECTORS)
    ends = np.minimum(begins + ITEM_VECTORS, len(vectors))
    segments = [offsets[:, None] for offsets in outer.offsets()]
    items = table(begins, ends, *segments)
    return tuple(kinds), Work({"items": items, "vectors": vectors}, (items[:, 1] - items[:, 0]) * MOVE_CYCLES * (1.0 + len(moving)))


def _walk(target: Layout, others: Sequence[Layout]) -> Walk:
    """The dimensions of the target; of a dense one those of one index go."""
    rank = len(target.shape)
    strides = [tuple(target.strides)]
    for layout in others:
        missing = (0,) * (rank - len(layout.shape))
        steps = tuple(0 if size == 1 else step for size, step in zip(layout.shape, layout.strides, strict=True))
        strides.append(missing + steps)
    if isinstance(target, Planes):
        return Walk(target.shape, tuple(strides))
    kept = [dimension for dimension in range(rank) if target.shape[dimension] > 1]
    return Walk(tuple(target.shape[dimension] for dimension in kept),
                tuple(tuple(steps[dimension] for dimension in kept) for steps in strides))


def _choices(target: Layout, walk: Walk) -> range:
    """How many dimensions may become vectors, most first."""
    return range(2 if isinstance(target, Planes) else len(walk.sizes), -1, -1)


def _fits(inner: Walk, target: Layout) -> bool:
    if not inner.sizes:
        return True
    kinds = [inner.kind(value) for value in range(1, len(inner.strides))]
    if None in kinds:
        return False
    flat = all(inner.strides[1 + number] == inner.strides[0] for number, kind in enumerate(kinds) if kind == FULL)
    return flat or len(inner.sizes) == 1 or isinstance(target, Planes)


def _vectors(inner: Walk, target: Layout, moving: list[int], lanes: int) -> np.ndarray:
    """Target offset, inside, store, and the offset of every moving value, for each vector."""
    width = inner.sizes[-1] if inner.sizes else 1
    if isinstance(target, Planes) and inner.sizes:
        row = target.row
        height = inner.sizes[-2] if len(inner.sizes) == 2 else 1
        if height > 1 and all(inner.strides[value] == inner.strides[0] for value in moving):
            place = np.arange(0, height * row, lanes)
            lane = place[:, None] + np.arange(lanes)
            inside, store = (lane < height * row) & (lane % row < width), lane < height * row
            return table(place, lane_bits(inside), lane_bits(store), *[place] * len(moving))
        y, x = (axis.ravel() for axis in np.meshgrid(np.arange(height), np.arange(0, row, lanes), indexing="ij"))
        column = x[:, None] + np.arange(lanes)
        rows = [y * (inner.strides[value][0] if len(inner.sizes) == 2 else 0) + x for value in (0, *moving)]
        return table(rows[0], lane_bits(column < width), lane_bits(column < row), *rows[1:])
    count = math.prod(inner.sizes)
    place = np.arange(0, count, lanes)
    bits = lane_bits(place[:, None] + np.arange(lanes) < count)
    return table(place, bits, bits, *[place] * len(moving))
