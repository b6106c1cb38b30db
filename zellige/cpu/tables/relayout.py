"""Tables for copies between any two layouts: transposes, reshapes, slices, parts of concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zellige.cpu.layout import Layout, Planes
from zellige.cpu.tables.lanes import Lanes, copy_items, join, row_lanes
from zellige.cpu.tables.work import Work

INNER_ELEMENTS = 1 << 16  # a table is shared by items rather than longer than this


@dataclass(frozen=True)
class Relayout:
    """A copy of ``sizes`` elements in row-major order of the target: strides on both sides, and the element to begin with.

    Where the target is planes, ``stored`` elements of each row are written, zeros after the last pixel, and the last two sizes
    are its height and width. Otherwise it is 0.
    """

    sizes: tuple[int, ...]
    source: tuple[int, ...]
    target: tuple[int, ...]
    stored: int = 0
    source_start: int = 0
    target_start: int = 0

    def work(self, lanes: int) -> Work:
        walk = self if self.stored else self._merged()
        inner = 2 if self.stored else walk._inner_dimensions()
        cut = len(walk.sizes) - inner
        offsets = _offsets(walk.sizes[cut:], walk.source[cut:])
        if self.stored:
            vectors = row_lanes(offsets, walk.target[-2], self.stored, lanes)
        else:
            flat = offsets.reshape(1, -1)
            vectors = row_lanes(flat, flat.size, flat.size, lanes)
        starts = [_offsets(walk.sizes[:cut], strides[:cut]).ravel() + start for strides, start in
                  ((walk.source, self.source_start), (walk.target, self.target_start))]
        count = len(vectors.target)
        return copy_items(vectors.tables(lanes), np.zeros_like(starts[0]), np.full_like(starts[0], count), *starts)

    def _merged(self) -> Relayout:
        """Without dimensions of one index, and neighbours made one where both sides run through them without a gap."""
        merged: list[list[int]] = []
        for size, source, target in zip(self.sizes, self.source, self.target, strict=True):
            if size == 1:
                continue
            outer = merged[-1] if merged else [0, 0, 0]
            if 0 < outer[0] * size <= INNER_ELEMENTS and outer[1:] == [source * size, target * size]:
                merged[-1] = [outer[0] * size, source, target]
            else:
                merged.append([size, source, target])
        if not merged or merged[-1][2] != 1:
            merged.append([1, 1, 1])
        sizes, sources, targets = zip(*merged, strict=True)
        return replace(self, sizes=sizes, source=sources, target=targets)

    def _inner_dimensions(self) -> int:
        """How many of the last dimensions are contiguous in the target, and few enough for one table."""
        count, elements = 1, self.sizes[-1]
        while count < len(self.sizes):
            size, stride = self.sizes[-1 - count], self.target[-1 - count]
            if stride != elements or elements * size > INNER_ELEMENTS:
                break
            count, elements = count + 1, elements * size
        return count


def _offsets(sizes: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    grid = np.indices(sizes).reshape(len(sizes), math.prod(sizes))
    return (np.array(strides, np.int64) @ grid).reshape(sizes)


def _stored(layout: Layout) -> int:
    return layout.row if isinstance(layout, Planes) else 0


def transpose_work(source: Layout, target: Layout, order: Sequence[int], lanes: int) -> Work:
    strides = tuple(source.strides[dimension] for dimension in order)
    return Relayout(target.shape, strides, tuple(target.strides), _stored(target)).work(lanes)


def slice_work(source: Layout, target: Layout, dimension: int, start: int, step: int, lanes: int) -> Work:
    strides = tuple(stride * step if axis == dimension else stride for axis, stride in enumerate(source.strides))
    return Relayout(target.shape, strides, tuple(target.strides), _stored(target), start * source.strides[dimension]).work(lanes)


def concat_work(source: Layout, target: Layout, dimension: int, position: int, lanes: int) -> Work:
    """One part of a concatenation: ``source`` from index ``position`` of the target's dimension on.

    In planes, a part that does not end a row must be copied before the one to its right: it clears the row's end.
    """
    start = position * target.strides[dimension]
    stored = 0
    if isinstance(target, Planes):
        stored = target.row - position if dimension == 3 else target.row
    return Relayout(tuple(source.shape), tuple(source.strides), tuple(target.strides), stored, 0, start).work(lanes)


def shuffle_work(source: Layout, target: Layout, groups: int, lanes: int) -> Work:
    """Channel shuffle: target channel i · groups + g is source channel g · (channels / groups) + i."""
    images, channels, height, width = target.shape
    each = channels // groups
    sizes = (images, each, groups, height, width)
    strides = [(layout.strides[0], layout.strides[1], layout.strides[1], *layout.strides[2:]) for layout in (source, target)]
    from_, to = ((image, plane * a, plane * b, *rest) for (image, plane, _, *rest), (a, b) in
                 zip(strides, ((1, each), (groups, 1)), strict=True))
    return Relayout(sizes, from_, to, _stored(target)).work(lanes)


def copy_work(source: Layout, target: Layout, lanes: int) -> Work:
    """The same value in another layout: the network's input or output, a map made dense."""
    return Relayout(tuple(target.shape), tuple(source.strides), tuple(target.strides), _stored(target)).work(lanes)


def reshape_work(source: Layout, target: Layout, lanes: int) -> Work:
    """The same elements in row-major order under another shape."""
    sizes = common_sizes(source.shape, target.shape)
    if sizes is None or (isinstance(target, Planes) and sizes[-2:] != tuple(target.shape[-2:])):
        return _element_work(source, target, lanes)
    return Relayout(sizes, _split_strides(source, sizes), _split_strides(target, sizes), _stored(target)).work(lanes)


def common_sizes(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...] | None:
    """Sizes from which both shapes come by joining neighbours, or None.

    >>> common_sizes((2, 12), (2, 3, 4)), common_sizes((6, 4), (8, 3))
    ((2, 3, 4), None)
    """
    sizes: list[int] = []
    a, b = [size for size in left if size > 1], [size for size in right if size > 1]
    while a and b:
        x, y = a.pop(), b.pop()
        common = min(x, y)
        if x % common or y % common:
            return None
        sizes.append(common)
        a += [x // common] if x > common else []
        b += [y // common] if y > common else []
    return tuple(reversed(sizes)) or (1,)


def _split_strides(layout: Layout, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a layout under sizes that split its dimensions."""
    strides: list[int] = []
    remaining = list(sizes)
    for size, stride in zip(reversed(layout.shape), reversed(layout.strides), strict=True):
        while size > 1:
            part = remaining.pop()
            strides.append(stride)
            size, stride = size // part, stride * part
    strides += [1] * len(remaining)
    return tuple(reversed(strides))


def _element_work(source: Layout, target: Layout, lanes: int) -> Work:
    """Shapes that share no sizes: a table as long as the value."""
    offsets = _offsets(tuple(source.shape), tuple(source.strides)).reshape(target.shape)
    if not isinstance(target, Planes):
        return Relayout((offsets.size,), (1,), (1,)).work(lanes) if offsets.ndim == 0 else _one_item(
            row_lanes(offsets.reshape(1, -1), offsets.size, offsets.size, lanes), lanes)
    images, channels = target.shape[:2]
    parts = []
    for image in range(images):
        for channel in range(channels):
            part = row_lanes(offsets[image, channel], target.row, target.row, lanes)
            parts.append(replace(part, target=part.target + image * target.image + channel * target.plane))
    return _one_item(join(parts), lanes)


def _one_item(vectors: Lanes, lanes: int) -> Work:
    zero = np.zeros(1, np.int64)
    return copy_items(vectors.tables(lanes), zero, zero + len(vectors.target), zero, zero)
