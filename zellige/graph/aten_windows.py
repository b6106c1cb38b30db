"""ATen's convolutions, pools, paddings and resizes: what each becomes in the graph.

A function takes the builder and the operator's arguments in the order of its schema, defaults filled in. PyTorch also
takes maps without a batch dimension; ``as_batch`` gives them one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from zellige.graph.aten_call import UnsupportedFormError, Untranslated, constant_only
from zellige.graph.builder import GraphBuilder, Value, filled


def pair(value: Any) -> tuple[int, int]:
    """A size that PyTorch writes as n, [n] or [n, m]."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def as_batch(b: GraphBuilder, x: Value, work: Callable[[Value], Value]) -> Value:
    """``work`` on a map with a batch dimension of 1, which the result loses again, if ``x`` has none."""
    shape = b.shape(x)
    if len(shape) == 4:
        return work(x)
    result = work(b.reshape(x, (1, *shape)))
    return b.reshape(result, b.shape(result)[1:])


def conv2d(b: GraphBuilder, x: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
           groups: int) -> Value:
    weight = constant_only(weight, "a weight that is computed from the input")
    if bias is not None:
        bias = constant_only(bias, "a bias that is computed from the input")
    dilation = pair(dilation)
    pads = _conv_padding(padding, weight.shape[2:], dilation)
    return as_batch(b, x, lambda x: b.emit("conv2d", x, weight, bias, stride=pair(stride), padding=pads,
                                           dilation=dilation, groups=groups))


def _conv_padding(padding: Any, kernel: Sequence[int], dilation: tuple[int, int]) -> tuple[int, ...]:
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple(size for total in totals for size in (total // 2, total - total // 2))
    top, left = pair(padding)
    return (top, top, left, left)


def conv1d(b: GraphBuilder, x: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
           groups: int) -> Value:
    """A convolution over maps of height 1 (efficient channel attention has one)."""
    weight = constant_only(weight, "a weight that is computed from the input")
    flat = weight.computed(weight.array[:, :, None, :])
    if not isinstance(padding, str):
        padding = (0, pair(padding)[0])
    shape = b.shape(x)
    wide = conv2d(b, b.reshape(x, (*shape[:-1], 1, shape[-1])), flat, bias, (1, pair(stride)[0]), padding,
                  (1, pair(dilation)[0]), groups)
    result = b.shape(wide)
    return b.reshape(wide, (*result[:-2], result[-1]))


def convolution(b: GraphBuilder, x: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
                transposed: bool, output_padding: Any, groups: int) -> Value:
    if transposed:
        raise UnsupportedFormError("transposed")
    by_rank = {4: conv2d, 3: conv1d}
    if len(b.shape(weight)) not in by_rank:
        raise UnsupportedFormError(f"{len(b.shape(weight)) - 2} spatial dimensions")
    return by_rank[len(b.shape(weight))](b, x, weight, bias, stride, padding, dilation, groups)


def _pool_padding(shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
                  dilation: Sequence[int], ceil_mode: bool) -> tuple[int, ...]:
    """ceil_mode as padding: a last window that starts inside the map or its top padding counts, what it lacks is added.

    >>> _pool_padding((6, 6), (3, 3), (2, 2), (0, 0), (1, 1), True)
    (0, 1, 0, 1)
    """
    pads: list[int] = []
    for size, k, s, p, d in zip(shape[-2:], kernel, stride, padding, dilation, strict=True):
        after = p
        if ceil_mode:
            extent = d * (k - 1) + 1
            count = -(-(size + 2 * p - extent) // s) + 1
            if (count - 1) * s >= size + p:
                count -= 1
            after = max(p, (count - 1) * s + extent - size - p)
        pads += [p, after]
    return tuple(pads)


def max_pool2d(b: GraphBuilder, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any,
               ceil_mode: bool) -> Value:
    kernel, padding, dilation = pair(kernel), pair(padding), pair(dilation)
    stride = pair(stride or kernel)
    pads = _pool_padding(b.shape(x), kernel, stride, padding, dilation, ceil_mode)
    return as_batch(b, x, lambda x: b.emit("max_pool2d", x, kernel=kernel, stride=stride, padding=pads,
                                           dilation=dilation))


def avg_pool2d(b: GraphBuilder, x: Value, kernel: Any, stride: Any, padding: Any, ceil_mode: bool,
               count_include_pad: bool, divisor: int | None) -> Value:
    kernel, padding = pair(kernel), pair(padding)
    stride = pair(stride or kernel)
    pads = _pool_padding(b.shape(x), kernel, stride, padding, (1, 1), ceil_mode)
    counted = (padding[0], padding[0], padding[1], padding[1]) if count_include_pad else (0, 0, 0, 0)
    return as_batch(b, x, lambda x: b.emit("average_pool2d", x, kernel=kernel, stride=stride, padding=pads,
                                           count_padding=counted, divisor=divisor or 0))


def avg_pool3d(b: GraphBuilder, x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool,
               count_include_pad: bool, divisor: int | None) -> Value:
    """Windows over depth alone, as local response normalisation has them: a pool over a map of depth × (height · width)."""
    kernel, stride, padding = ([*sizes] * (3 // len(sizes)) for sizes in (kernel, stride or kernel, padding))
    if (*kernel[1:], *stride[1:], *padding[1:]) != (1, 1, 1, 1, 0, 0):
        raise UnsupportedFormError("windows of more than one dimension")
    *lead, height, width = b.shape(x)
    flat = b.reshape(x, (*lead, height * width))
    pooled = avg_pool2d(b, flat, (kernel[0], 1), (stride[0], 1), (padding[0], 0), ceil_mode, count_include_pad, divisor)
    return b.reshape(pooled, (*b.shape(pooled)[:-1], height, width))


def adaptive_pool2d(op: str) -> Callable[..., Value]:
    return lambda b, x, size: as_batch(b, x, lambda x: b.emit(op, x, size=pair(size)))


def pad(b: GraphBuilder, x: Value, padding: Sequence[int], mode: str, value: float | None) -> Value:
    """PyTorch lists (before, after) from the last dimension on; beyond height and width, constants are joined on.

    Wrapping around, PyTorch crops before it grows; all other modes crop what has grown, as the graph's ``pad`` does.
    """
    shape = b.shape(x)
    before_after = [(padding[i], padding[i + 1]) for i in range(0, len(padding), 2)]
    inner, outer = before_after[:2], before_after[2:]
    if any(sizes != (0, 0) for sizes in outer) and mode != "constant":
        raise UnsupportedFormError(f"{mode} padding of more than two dimensions")
    fill = float(value or 0.0)
    for i, sizes in enumerate(outer):
        x = _join_constant(b, x, len(shape) - 3 - i, sizes, fill)
    if all(sizes == (0, 0) for sizes in inner):
        return x
    left, right = inner[0]
    top, bottom = inner[1] if len(inner) > 1 else (0, 0)
    mode = ("zeros" if fill == 0.0 else "constant") if mode == "constant" else mode
    shape = b.shape(x)
    flat = b.reshape(x, shape if len(shape) == 4 else (1, math.prod(shape[:-2]), *((1, 1, *shape)[-2:])))
    pads = (top, bottom, left, right)
    if mode == "circular" and min(pads) < 0 < max(pads):
        flat = b.step("pad", flat, padding=tuple(min(size, 0) for size in pads), mode="zeros", value=0.0)
        pads = (max(top, 0), max(bottom, 0), max(left, 0), max(right, 0))
    result = b.emit("pad", flat, padding=pads, mode=mode, value=fill)
    height, width = b.shape(result)[2:]
    return b.reshape(result, (*shape[:-2], height, width)[-len(shape):])


def _join_constant(b: GraphBuilder, x: Value, dimension: int, sizes: tuple[int, int], fill: float) -> Value:
    shape = b.shape(x)
    start, stop = max(0, -sizes[0]), shape[dimension] + min(0, sizes[1])
    if (start, stop) != (0, shape[dimension]):
        x = b.step("slice", x, dimension=dimension, start=start, stop=stop, step=1)
    before, after = (
        [filled((*shape[:dimension], size, *shape[dimension + 1:]), fill)] if size > 0 else [] for size in sizes)
    return b.emit("concat", *before, x, *after, dimension=dimension) if before or after else x


def resize(mode: str, align_corners: bool | None = None) -> Callable[..., Value]:
    """The ``vec`` forms, which take sizes or factors; ``align_corners`` is ``None`` where it is an argument."""

    def build(b: GraphBuilder, x: Value, size: Sequence[int] | None, *rest: Any) -> Value:
        align, factors = (align_corners, rest[0]) if align_corners is not None else rest
        if size is None:
            size = [math.floor(extent * factor) for extent, factor in zip(b.shape(x)[2:], factors, strict=True)]
        scale = (0.0, 0.0) if factors is None else tuple(map(float, factors))
        return b.emit("interpolate", x, mode=mode, size=pair(size), scale=scale, align_corners=align)

    return build


def resize_by_scales(mode: str, align_corners: bool | None = None) -> Callable[..., Value]:
    """The plain forms, which take the size and one scale each for height and width."""

    def build(b: GraphBuilder, x: Value, size: Sequence[int], *rest: Any) -> Value:
        align, scales = (align_corners, rest) if align_corners is not None else (rest[0], rest[1:])
        scale = tuple(float(factor or 0.0) for factor in scales)
        return b.emit("interpolate", x, mode=mode, size=pair(size), scale=scale, align_corners=align)

    return build


def _without_indices(pool: Callable[..., Value]) -> Callable[..., tuple[Value, Untranslated]]:
    return lambda *arguments: (pool(*arguments), Untranslated("the indices of the maxima"))


_adaptive_max_pool2d = adaptive_pool2d("adaptive_max_pool2d")

WINDOWS: dict[str, Callable[..., Any]] = {
    "conv2d.default": conv2d,
    "conv2d.padding": conv2d,
    "conv1d.default": conv1d,
    "conv1d.padding": conv1d,
    "convolution.default": convolution,
    "max_pool2d.default": max_pool2d,
    "max_pool2d_with_indices.default": _without_indices(max_pool2d),
    "avg_pool2d.default": avg_pool2d,
    "avg_pool3d.default": avg_pool3d,
    "adaptive_avg_pool2d.default": adaptive_pool2d("adaptive_average_pool2d"),
    "_adaptive_avg_pool2d.default": adaptive_pool2d("adaptive_average_pool2d"),
    "adaptive_max_pool2d.default": _without_indices(_adaptive_max_pool2d),
    "pad.default": pad,
    "constant_pad_nd.default": lambda b, x, padding, value: pad(b, x, padding, "constant", value),
    "reflection_pad2d.default": lambda b, x, padding: pad(b, x, padding, "reflect", None),
    "replication_pad2d.default": lambda b, x, padding: pad(b, x, padding, "replicate", None),
    "upsample_nearest2d.vec": resize("nearest", align_corners=False),
    "upsample_nearest2d.default": resize_by_scales("nearest", align_corners=False),
    "_upsample_nearest_exact2d.vec": resize("nearest_exact", align_corners=False),
    "_upsample_nearest_exact2d.default": resize_by_scales("nearest_exact", align_corners=False),
    "upsample_bilinear2d.vec": resize("bilinear"),
    "upsample_bilinear2d.default": resize_by_scales("bilinear"),
}
