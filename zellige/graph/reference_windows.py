"""What slides a window over a map, in float64: padding, convolution, pooling, resampling.

Each loops over the taps of the window, or over the elements of the result, and takes whole arrays at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zellige.graph.resampling import NEAREST, bilinear_taps

Array = np.ndarray
Attributes = Mapping[str, Any]

_REPEATED: Mapping[str, Callable[[Array, int], Array]] = {
    **dict.fromkeys(("zeros", "constant", "replicate"), lambda place, size: np.clip(place, 0, size - 1)),
    "reflect": lambda place, size: size - 1 - np.abs(size - 1 - np.abs(place)),
    "circular": lambda place, size: place % size,
}
"""Which element of an axis of ``size`` stands at a ``place`` before or behind it, by the mode of padding."""


def pad_map(x: Array, padding: Sequence[int], mode: str = "zeros", value: float = 0.0) -> Array:
    """``x`` (N × C × H × W) grown by (top, bottom, left, right); negative numbers crop, last of all."""
    for axis, before, after in ((2, *padding[:2]), (3, *padding[2:])):
        size = x.shape[axis]
        place = np.arange(-before, size + after)
        beyond = (place < 0) | (place >= size)
        x = np.take(x, _REPEATED[mode](place, size), axis)
        if mode in ("zeros", "constant"):
            x = np.where(beyond[:, None] if axis == 2 else beyond, value if mode == "constant" else 0.0, x)
    return x


def taps(x: Array, kernel: Sequence[int], stride: Sequence[int],
         dilation: Sequence[int]) -> Iterator[tuple[int, int, Array]]:
    """For every tap (i, j) of a window on a padded map: the elements under it, one for each place of the window."""
    height, width = ((x.shape[2 + d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(2))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            yield i, j, x[:, :, top:top + (height - 1) * stride[0] + 1:stride[0],
                          left:left + (width - 1) * stride[1] + 1:stride[1]]


def conv2d(a: Attributes, x: Array, weight: Array, bias: Array | None = None) -> Array:
    groups = a["groups"]
    outputs, inputs, *kernel = weight.shape
    grouped = weight.reshape(groups, outputs // groups, inputs, *kernel)
    result: Array = np.zeros(())
    for i, j, under in taps(pad_map(x, a["padding"], a["padding_mode"]), kernel, a["stride"], a["dilation"]):
        batch, _, height, width = under.shape
        columns = under.reshape(batch, groups, inputs, height * width)
        result = result + (grouped[..., i, j] @ columns).reshape(batch, outputs, height, width)
    return result if bias is None else result + bias[:, None, None]


def max_pool2d(a: Attributes, x: Array) -> Array:
    padded = pad_map(x, a["padding"], "constant", -np.inf)
    return np.maximum.reduce([under for _, _, under in taps(padded, a["kernel"], a["stride"], a["dilation"])])


def average_pool2d(a: Attributes, x: Array) -> Array:
    def window_sum(padded: Array) -> Array:
        return np.add.reduce([under for _, _, under in taps(padded, a["kernel"], a["stride"], (1, 1))])

    counted, beyond = a["count_padding"], [p - c for p, c in zip(a["padding"], a["count_padding"], strict=True)]
    ones = pad_map(pad_map(np.ones((1, 1, *x.shape[2:])), counted, "constant", 1.0), beyond)
    with np.errstate(divide="ignore", invalid="ignore"):
        return window_sum(pad_map(x, a["padding"])) / (a["divisor"] or window_sum(ones))


def adaptive(x: Array, size: Sequence[int], reduce: Callable[..., Array]) -> Array:
    """Window ``i`` of ``n`` over a dimension of ``s`` runs from ⌊i s / n⌋ to ⌈(i + 1) s / n⌉."""
    result = np.empty((*x.shape[:2], *size))
    edges = [[(i * s // n, -(-(i + 1) * s // n)) for i in range(n)] for s, n in zip(x.shape[2:], size, strict=True)]
    for i, (top, bottom) in enumerate(edges[0]):
        for j, (left, right) in enumerate(edges[1]):
            result[:, :, i, j] = reduce(x[:, :, top:bottom, left:right], axis=(2, 3))
    return result


def adaptive_average_pool2d(a: Attributes, x: Array) -> Array:
    return adaptive(x, a["size"], np.mean)


def adaptive_max_pool2d(a: Attributes, x: Array) -> Array:
    return adaptive(x, a["size"], np.max)


def interpolate(a: Attributes, x: Array) -> Array:
    """All modes work on one dimension after the other."""
    for dimension, result, scale in zip((2, 3), a["size"], a["scale"], strict=True):
        size = x.shape[dimension]
        if a["mode"] in NEAREST:
            x = np.take(x, NEAREST[a["mode"]](size, result, scale), axis=dimension)
        else:
            lower, upper, share = bilinear_taps(size, result, scale, a["align_corners"])
            share = share[:, None] if dimension == 2 else share
            x = (1.0 - share) * np.take(x, lower, axis=dimension) + share * np.take(x, upper, axis=dimension)
    return x
