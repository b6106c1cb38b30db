"""Shape rules: the shape of an operator's result from its operands' shapes and its attributes.

A rule raises ``GraphError`` with what it expected and what came; ``operators.py`` adds which node it was.
Feature maps are N × C × H × W; a padding is (top, bottom, left, right).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zellige.errors import GraphError

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise GraphError(message)


def _rank(shape: Shape, rank: int, what: str) -> None:
    _expect(len(shape) == rank, f"{what} must have {rank} dimensions, got {list(shape)}")


def _vector(shape: Shape, length: int, what: str) -> None:
    _expect(shape == (length,), f"{what} must have shape [{length}], got {list(shape)}")


def window_count(size: int, before: int, after: int, kernel: int, stride: int, dilation: int) -> int:
    """How many windows fit in one padded dimension.

    >>> window_count(size=7, before=1, after=1, kernel=3, stride=2, dilation=1)
    4
    """
    extent = dilation * (kernel - 1) + 1
    padded = size + before + after
    _expect(extent <= padded, f"a window of {extent} does not fit in {padded} ({size} padded by {before} and {after})")
    return (padded - extent) // stride + 1


def _windows(x: Shape, kernel: Sequence[int], a: Attributes) -> Shape:
    """Height and width of what slides over ``x``."""
    padding, dilation = a["padding"], a.get("dilation", (1, 1))
    return tuple(window_count(x[2 + i], padding[2 * i], padding[2 * i + 1], kernel[i], a["stride"][i], dilation[i])
                 for i in range(2))


def _check_mode(x: Shape, padding: Shape, mode: str) -> None:
    """Reflection needs one element more than it copies, wrapping around as many."""
    if mode not in ("reflect", "circular"):
        return
    for i, pads in enumerate((padding[:2], padding[2:])):
        most = x[2 + i] - (mode == "reflect")
        _expect(max(pads) <= most, f"{mode} padding of {max(pads)} needs a larger map than {x[2]}×{x[3]}")


def conv2d(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, weight = shapes[:2]
    _rank(x, 4, "the input")
    _rank(weight, 4, "the weight")
    groups, outputs = a["groups"], weight[0]
    _expect(x[1] == weight[1] * groups,
            f"the weight {list(weight)} with groups={groups} takes {weight[1] * groups} channels, the input has {x[1]}")
    _expect(outputs % groups == 0, f"{outputs} output channels do not divide into {groups} groups")
    if len(shapes) == 3:
        _vector(shapes[2], outputs, "the bias")
    _check_mode(x, a["padding"], a["padding_mode"])
    return (x[0], outputs, *_windows(x, weight[2:], a))


def linear(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, weight = shapes[:2]
    _rank(weight, 2, "the weight")
    _expect(len(x) >= 1 and x[-1] == weight[1],
            f"the weight {list(weight)} takes {weight[1]} inputs, the last dimension of {list(x)} differs")
    if len(shapes) == 3:
        _vector(shapes[2], weight[0], "the bias")
    return (*x[:-1], weight[0])


def per_channel(shapes: Sequence[Shape], a: Attributes) -> Shape:
    """Batch norm, scale and shift: vectors along dimension 1."""
    x = shapes[0]
    _expect(len(x) >= 2, f"the input must have a channel dimension, got {list(x)}")
    for vector in shapes[1:]:
        _vector(vector, x[1], "a per-channel operand")
    return x


def prelu(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, slope = shapes
    channels = x[1] if len(x) >= 2 else 1
    _expect(slope in ((1,), (channels,), ()), f"the slope must have shape [1] or [{channels}], got {list(slope)}")
    return x


def same(shapes: Sequence[Shape], a: Attributes) -> Shape:
    return shapes[0]


def broadcast(shapes: Sequence[Shape], a: Attributes) -> Shape:
    """Numpy's broadcasting.

    >>> broadcast([(1, 8, 7, 7), (8, 1, 1)], {})
    (1, 8, 7, 7)
    """
    rank = max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        wide = set(sizes) - {1}
        _expect(len(wide) <= 1, f"the shapes {' and '.join(str(list(shape)) for shape in shapes)} do not broadcast")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def pool2d(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x = shapes[0]
    _rank(x, 4, "the input")
    counted = a.get("count_padding", (0, 0, 0, 0))
    _expect(all(c <= p for c, p in zip(counted, a["padding"], strict=True)),
            f"count_padding {counted} exceeds the padding {a['padding']}")
    return (*x[:2], *_windows(x, a["kernel"], a))


def adaptive_pool2d(shapes: Sequence[Shape], a: Attributes) -> Shape:
    _rank(shapes[0], 4, "the input")
    return (*shapes[0][:2], *a["size"])


def _dimension(x: Shape, dimension: int) -> int:
    _expect(dimension < len(x), f"dimension {dimension} is not one of {list(x)}")
    return dimension


def along(shapes: Sequence[Shape], a: Attributes) -> Shape:
    """Softmax: the shape stays, the dimension must exist."""
    _dimension(shapes[0], a["dimension"])
    return shapes[0]


def reduction(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, dimensions = shapes[0], a["dimensions"]
    _expect(list(dimensions) == sorted(set(dimensions)), f"dimensions {dimensions} must be ascending, each once")
    for dimension in dimensions:
        _dimension(x, dimension)
    if a["keep"]:
        return tuple(1 if i in dimensions else size for i, size in enumerate(x))
    return tuple(size for i, size in enumerate(x) if i not in dimensions)


def concat(shapes: Sequence[Shape], a: Attributes) -> Shape:
    first = shapes[0]
    at = _dimension(first, a["dimension"])
    for shape in shapes[1:]:
        _expect(len(shape) == len(first) and shape[:at] + shape[at + 1:] == first[:at] + first[at + 1:],
                f"{list(shape)} does not join {list(first)} along dimension {at}")
    return (*first[:at], sum(shape[at] for shape in shapes), *first[at + 1:])


def slicing(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, at, start, stop = shapes[0], _dimension(shapes[0], a["dimension"]), a["start"], a["stop"]
    _expect(start < stop <= x[at], f"the slice {start}:{stop} is empty or leaves dimension {at} of {list(x)}")
    return (*x[:at], math.ceil((stop - start) / a["step"]), *x[at + 1:])


def pad(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, padding = shapes[0], a["padding"]
    _rank(x, 4, "the input")
    _check_mode(x, padding, a["mode"])
    height, width = x[2] + padding[0] + padding[1], x[3] + padding[2] + padding[3]
    cropped = [-min(0, padding[i]) - min(0, padding[i + 1]) for i in (0, 2)]
    _expect(height > 0 and width > 0 and cropped[0] < x[2] and cropped[1] < x[3],
            f"the padding {padding} leaves nothing of {list(x)}")
    return (*x[:2], height, width)


def reshape(shapes: Sequence[Shape], a: Attributes) -> Shape:
    _expect(math.prod(shapes[0]) == math.prod(a["shape"]),
            f"{list(shapes[0])} has {math.prod(shapes[0])} elements, {list(a['shape'])} has {math.prod(a['shape'])}")
    return a["shape"]


def transpose(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, order = shapes[0], a["order"]
    _expect(sorted(order) == list(range(len(x))), f"the order {order} is no permutation of {len(x)} dimensions")
    return tuple(x[i] for i in order)


def channel_shuffle(shapes: Sequence[Shape], a: Attributes) -> Shape:
    x, groups = shapes[0], a["groups"]
    _expect(len(x) >= 2 and x[1] % groups == 0, f"the channels of {list(x)} do not divide into {groups} groups")
    return x


def interpolate(shapes: Sequence[Shape], a: Attributes) -> Shape:
    _rank(shapes[0], 4, "the input")
    _expect(not a["align_corners"] or a["mode"] == "bilinear", f"align_corners has no meaning with mode {a['mode']}")
    return (*shapes[0][:2], *a["size"])
