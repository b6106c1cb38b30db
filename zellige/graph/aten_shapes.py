"""ATen's views, slices and joins: what each becomes in the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from zellige.graph.aten_call import UnsupportedFormError, Untranslated, axis, constant_only
from zellige.graph.builder import GraphBuilder, Value, filled

MAXIMUM_PIECES = 64
"""A gather along a dimension becomes at most so many slices."""


def identity(b: GraphBuilder, x: Value, *rest: Any) -> Value:
    """What leaves the numbers as they are: copies and aliases."""
    return x


def dropout(b: GraphBuilder, x: Value, share: float, training: bool) -> Value:
    if training:
        raise UnsupportedFormError("training mode")
    return x


def view(b: GraphBuilder, x: Value, shape: Sequence[int]) -> Value:
    total, known = math.prod(b.shape(x)), math.prod(size for size in shape if size != -1)
    return b.reshape(x, [total // known if size == -1 else size for size in shape], main=True)


def flatten(b: GraphBuilder, x: Value, start: int, end: int) -> Value:
    shape = b.shape(x) or (1,)
    first, last = axis(start, len(shape)), axis(end, len(shape))
    return b.reshape(x, (*shape[:first], math.prod(shape[first:last + 1]), *shape[last + 1:]), main=True)


def squeeze(b: GraphBuilder, x: Value, dimensions: Any = None) -> Value:
    shape = b.shape(x)
    listed = range(len(shape)) if dimensions is None else [dimensions] if isinstance(dimensions, int) else dimensions
    gone = {axis(dimension, len(shape)) for dimension in listed}
    return b.reshape(x, [size for i, size in enumerate(shape) if size != 1 or i not in gone], main=True)


def unsqueeze(b: GraphBuilder, x: Value, dimension: int) -> Value:
    shape = list(b.shape(x))
    shape.insert(axis(dimension, len(shape) + 1), 1)
    return b.reshape(x, shape, main=True)


def permute(b: GraphBuilder, x: Value, order: Sequence[int]) -> Value:
    rank = len(b.shape(x))
    counted = tuple(axis(dimension, rank) for dimension in order)
    return x if counted == tuple(range(rank)) else b.emit("transpose", x, order=counted)


def swap(b: GraphBuilder, x: Value, first: int, second: int) -> Value:
    order = list(range(len(b.shape(x))))
    i, j = axis(first, len(order)), axis(second, len(order))
    order[i], order[j] = order[j], order[i]
    return permute(b, x, order)


def expand(b: GraphBuilder, x: Value, shape: Sequence[int], implicit: bool = False) -> Value:
    """Repetition without a copy in PyTorch; here a product with ones, unless nothing grows."""
    old = b.shape(x)
    old = (1,) * (len(shape) - len(old)) + old
    new = [size if wanted == -1 else wanted for size, wanted in zip(old, shape, strict=True)]
    if tuple(new) == old:
        return b.reshape(x, old)
    grown = [1 if size == wanted else wanted for size, wanted in zip(old, new, strict=True)]
    return b.emit("multiply", x, filled(grown, 1.0))


def repeat(b: GraphBuilder, x: Value, times: Sequence[int]) -> Value:
    shape = b.shape(x)
    x = b.reshape(x, (1,) * (len(times) - len(shape)) + shape)
    for dimension, count in enumerate(times):
        if count > 1:
            x = b.emit("concat", *[x] * count, dimension=dimension)
    return x


def piece(b: GraphBuilder, x: Value, dimension: int, start: int, stop: int, step: int = 1, main: bool = True) -> Value:
    """A slice; no node if it is all of ``x``."""
    if (start, stop, step) == (0, b.shape(x)[dimension], 1):
        return x
    return (b.emit if main else b.step)("slice", x, dimension=dimension, start=start, stop=stop, step=step)


def _bounds(size: int, start: int | None, stop: int | None) -> tuple[int, int]:
    """Python's rules for bounds that are negative, missing, or beyond the end."""
    first, last, _ = slice(start, stop).indices(size)
    return first, last


def slicing(b: GraphBuilder, x: Value, dimension: int, start: int | None, stop: int | None, step: int) -> Value:
    at = axis(dimension, len(b.shape(x)))
    return piece(b, x, at, *_bounds(b.shape(x)[at], start, stop), step)


def select(b: GraphBuilder, x: Value, dimension: int, index: int) -> Value:
    shape = b.shape(x)
    at = axis(dimension, len(shape))
    first = axis(index, shape[at])
    return b.reshape(piece(b, x, at, first, first + 1), shape[:at] + shape[at + 1:])


def split_sizes(b: GraphBuilder, x: Value, sizes: Sequence[int], dimension: int) -> tuple[Value | Untranslated, ...]:
    """Pieces without elements need no node: the walk knows them."""
    at, start = axis(dimension, len(b.shape(x))), 0
    parts: list[Value | Untranslated] = []
    for size in sizes:
        parts.append(piece(b, x, at, start, start + size) if size else Untranslated("a piece without elements"))
        start += size
    return tuple(parts)


def split(b: GraphBuilder, x: Value, size: int, dimension: int) -> tuple[Value | Untranslated, ...]:
    whole = b.shape(x)[axis(dimension, len(b.shape(x)))]
    return split_sizes(b, x, [min(size, whole - start) for start in range(0, whole, size)], dimension)


def chunk(b: GraphBuilder, x: Value, count: int, dimension: int) -> tuple[Value | Untranslated, ...]:
    """As few pieces as have the size that ``count`` of them would need."""
    return split(b, x, -(-b.shape(x)[axis(dimension, len(b.shape(x)))] // count), dimension)


def unbind(b: GraphBuilder, x: Value, dimension: int) -> tuple[Value, ...]:
    at = axis(dimension, len(b.shape(x)))
    return tuple(select(b, x, at, index) for index in range(b.shape(x)[at]))


def concat(b: GraphBuilder, parts: Sequence[Value], dimension: int) -> Value:
    """Parts without elements add nothing."""
    full = [part for part in parts if 0 not in b.shape(part)]
    return full[0] if len(full) == 1 else b.emit("concat", *full, dimension=axis(dimension, len(b.shape(full[0]))))


def stack(b: GraphBuilder, parts: Sequence[Value], dimension: int) -> Value:
    shape = list(b.shape(parts[0]))
    at = axis(dimension, len(shape) + 1)
    shape.insert(at, 1)
    return concat(b, [b.reshape(part, shape) for part in parts], at)


def slice_scatter(b: GraphBuilder, x: Value, source: Value, dimension: int, start: int | None, stop: int | None,
                  step: int) -> Value:
    """``x`` with a slice replaced: what writing into a slice becomes when nothing is changed in place."""
    at = axis(dimension, len(b.shape(x)))
    size = b.shape(x)[at]
    first, last = _bounds(size, start, stop)
    if step != 1:
        raise UnsupportedFormError("writing into a slice with a step")
    before = [piece(b, x, at, 0, first, main=False)] if first > 0 else []
    after = [piece(b, x, at, last, size, main=False)] if last < size else []
    return concat(b, [*before, source, *after], at)


def select_scatter(b: GraphBuilder, x: Value, source: Value, dimension: int, index: int) -> Value:
    shape = b.shape(x)
    at = axis(dimension, len(shape))
    first = axis(index, shape[at])
    return slice_scatter(b, x, b.reshape(source, (*shape[:at], 1, *shape[at + 1:])), at, first, first + 1, 1)


def gather(b: GraphBuilder, x: Value, dimension: int, indices: Sequence[int]) -> Value:
    """Chosen places along a dimension: runs of neighbours are cut out and joined."""
    size = b.shape(x)[dimension]
    runs: list[list[int]] = []
    for index in (axis(index, size) for index in indices):
        if runs and index == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([index, index + 1])
    if not runs or len(runs) > MAXIMUM_PIECES:
        raise UnsupportedFormError(f"a gather of {len(runs)} separate pieces")
    parts = [piece(b, x, dimension, first, last, main=False) for first, last in runs]
    return concat(b, parts, dimension)


def index(b: GraphBuilder, x: Value, indices: Sequence[Value | None]) -> Value:
    """Indexing with one constant vector of integers."""
    used = [(at, chosen) for at, chosen in enumerate(indices) if chosen is not None]
    if len(used) != 1:
        raise UnsupportedFormError("several index tensors")
    at, chosen = used[0]
    array = constant_only(chosen, "indices that are computed from the input").array
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UnsupportedFormError(f"an index of {array.ndim} dimensions and type {array.dtype}")
    return gather(b, x, at, array.tolist())


def flip(b: GraphBuilder, x: Value, dimensions: Sequence[int]) -> Value:
    for dimension in dimensions:
        at = axis(dimension, len(b.shape(x)))
        x = gather(b, x, at, range(b.shape(x)[at] - 1, -1, -1))
    return x


def roll(b: GraphBuilder, x: Value, shifts: Sequence[int], dimensions: Sequence[int]) -> Value:
    if not dimensions:
        raise UnsupportedFormError("rolling over all elements")
    for shift, dimension in zip(shifts, dimensions, strict=True):
        at = axis(dimension, len(b.shape(x)))
        size = b.shape(x)[at]
        x = gather(b, x, at, [(place - shift) % size for place in range(size)])
    return x


def pixel_shuffle(b: GraphBuilder, x: Value, factor: int) -> Value:
    *lead, channels, height, width = b.shape(x)
    inner = channels // factor**2
    split = b.reshape(x, (*lead, inner, factor, factor, height, width))
    n = len(lead)
    turned = b.step("transpose", split, order=(*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return b.reshape(turned, (*lead, inner, height * factor, width * factor), main=True)


def pixel_unshuffle(b: GraphBuilder, x: Value, factor: int) -> Value:
    *lead, channels, height, width = b.shape(x)
    split = b.reshape(x, (*lead, channels, height // factor, factor, width // factor, factor))
    n = len(lead)
    turned = b.step("transpose", split, order=(*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return b.reshape(turned, (*lead, channels * factor**2, height // factor, width // factor), main=True)


SHAPES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("clone.default", "alias.default", "detach.default", "contiguous.default", "_to_copy.default",
                     "to.dtype", "to.dtype_layout", "to.device", "lift_fresh_copy.default"), identity),
    "dropout.default": dropout,
    "feature_dropout.default": dropout,
    "view.default": view,
    "_unsafe_view.default": view,
    "reshape.default": view,
    "reshape_as.default": lambda b, x, like: b.reshape(x, b.shape(like), main=True),
    "flatten.using_ints": flatten,
    "squeeze.default": squeeze,
    "squeeze.dim": squeeze,
    "squeeze.dims": squeeze,
    "unsqueeze.default": unsqueeze,
    "permute.default": permute,
    "transpose.int": swap,
    "t.default": lambda b, x: x if len(b.shape(x)) < 2 else swap(b, x, 0, 1),
    "expand.default": expand,
    "repeat.default": repeat,
    "copy.default": lambda b, x, source, blocking: expand(b, source, b.shape(x)),
    "slice.Tensor": slicing,
    "select.int": select,
    "split.Tensor": split,
    "split_with_sizes.default": split_sizes,
    "chunk.default": chunk,
    "unbind.int": unbind,
    "cat.default": concat,
    "stack.default": stack,
    "slice_scatter.default": slice_scatter,
    "select_scatter.default": select_scatter,
    "index.Tensor": index,
    "index_select.default": lambda b, x, dimension, chosen: index(
        b, x, [None] * axis(dimension, len(b.shape(x))) + [chosen]),
    "flip.default": flip,
    "roll.default": roll,
    "pixel_shuffle.default": pixel_shuffle,
    "pixel_unshuffle.default": pixel_unshuffle,
    "channel_shuffle.default": lambda b, x, groups: b.emit("channel_shuffle", x, groups=groups),
}
