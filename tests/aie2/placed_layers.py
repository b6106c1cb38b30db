"""Layers as AIE2 can place them, operator by operator; networks of such layers; and layers that it must refuse, with the reason.

Every graph that is drawn from the first two has a place: tests of them let no error pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from quantized_layers import CLAMPS, EPILOGUES, MAKERS, Draw
from small_networks import Build

from zellige.graph.ir import Fused, Graph

Maker = Callable[[Draw, Build, str], str]
LEAST_SIDE = 5
"""Of maps that windows of any maker fit on."""


def _pads(draw: Draw) -> tuple[int, ...]:
    return draw(st.tuples(*[st.integers(0, 2)] * 4))


def _conv2d(draw: Draw, b: Build, x: str) -> str:
    channels, two = b.shape(x)[1], st.tuples(*[st.integers(1, 3)] * 2)
    groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
    outputs = groups * draw(st.sampled_from([1, 2, 3, -(-20 // groups)]))
    kernel = draw(two)
    bias = [b.random(outputs)] if draw(st.booleans()) else []
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2)) if max(kernel) > 1 else (1, 1)
    weight = b.random(outputs, channels // groups, *kernel)
    return b("conv2d", x, weight, *bias, groups=groups, stride=draw(two), padding=_pads(draw), dilation=dilation)


def _flat(b: Build, x: str) -> str:
    _, channels, height, width = b.shape(x)
    return b("reshape", x, shape=(1, channels * height * width))


def _linear(draw: Draw, b: Build, x: str) -> str:
    return MAKERS["linear"](draw, b, _flat(b, x))


def _addition(op: str) -> Maker:
    def make(draw: Draw, b: Build, x: str) -> str:
        operands = (x, draw(st.sampled_from([x, b.random(*b.shape(x)), b.activation(x, "relu")])))
        return b(op, *(operands[::-1] if draw(st.booleans()) else operands))
    return make


def _reduction(op: str) -> Maker:
    return lambda draw, b, x: b(op, x, dimensions=(2, 3), keep=draw(st.booleans()))


def _concat(draw: Draw, b: Build, x: str) -> str:
    """Of parts that are phases' results, that are none, that come twice, and of constants."""
    scaled = b("scale_shift", x, b.random(b.shape(x)[1]), b.random(b.shape(x)[1]))
    wide = b("conv2d", x, b.random(9, b.shape(x)[1], 1, 1))
    others = draw(st.lists(st.sampled_from([x, scaled, wide, b.random(*b.shape(x))]), min_size=1, max_size=3))
    return b("concat", *draw(st.permutations([scaled, *others])), dimension=1)


def _slice(draw: Draw, b: Build, x: str) -> str:
    dimension = draw(st.integers(1, 3))
    start = draw(st.integers(0, b.shape(x)[dimension] - 1))
    step = draw(st.integers(1, 2)) if dimension == 1 else 1
    return b("slice", x, dimension=dimension, start=start, stop=b.shape(x)[dimension], step=step)


def _pad(draw: Draw, b: Build, x: str) -> str:
    return b("pad", x, padding=_pads(draw), mode=draw(st.sampled_from(["zeros", "constant"])), value=0.0)


def _prelu(draw: Draw, b: Build, x: str) -> str:
    return b("prelu", x, b.random(1))


PLACED: dict[str, Maker] = {
    "conv2d": _conv2d, "linear": _linear, "add": _addition("add"), "subtract": _addition("subtract"), "concat": _concat,
    "mean": _reduction("mean"), "sum": _reduction("sum"), "slice": _slice, "pad": _pad, "prelu": _prelu,
    "reshape": lambda draw, b, x: _flat(b, x),
    **{op: MAKERS[op] for op in ("scale_shift", "activation", "max_pool2d", "average_pool2d", "adaptive_average_pool2d",
                                 "adaptive_max_pool2d")},
}  # fmt: skip
"""Operators that have a place, with attributes with which they do."""


@st.composite
def placed_layers(draw: Draw, op: str) -> Graph:
    """A graph that ends in a node of ``op``, epilogue included, on one image."""
    b = Build(1, draw(st.integers(1, 20)), draw(st.integers(5, 7)), draw(st.integers(5, 7)), seed=draw(st.integers(0, 2**16)))
    name = PLACED[op](draw, b, b.x)
    if op in EPILOGUES:
        steps = [Fused("activation", draw(st.sampled_from(CLAMPS)))] if draw(st.booleans()) else []
        if EPILOGUES[op] and draw(st.booleans()):
            steps.insert(draw(st.integers(0, len(steps))), Fused("add", operand=b.random(*b.shape(name))))
        b.graph.nodes[name] = replace(b.graph.nodes[name], epilogue=tuple(steps))
    return b.done(name)


@st.composite
def placed_networks(draw: Draw, length: int) -> Graph:
    """So many layers, each on a map that was made before: the last large one, or any."""
    b = Build(1, draw(st.integers(1, 12)), draw(st.integers(5, 8)), draw(st.integers(5, 8)), seed=draw(st.integers(0, 2**16)))
    maps, made = [b.x], []
    for _ in range(length):
        made.append(PLACED[draw(st.sampled_from(sorted(PLACED)))](draw, b, draw(st.sampled_from([maps[-1], *maps]))))
        shape = b.shape(made[-1])
        if len(shape) == 4 and min(shape[2:]) >= LEAST_SIDE:
            maps.append(made[-1])
    return b.done(*dict.fromkeys(made))


def _twice(op: str) -> Maker:
    return lambda draw, b, x: b(op, x, b.activation(x, "relu"))


@dataclass(frozen=True)
class Refused:
    """Layers of an operator that have no place, and what the message must say of them."""

    make: Maker
    message: str


REFUSED: dict[str, Refused] = {
    **{op: Refused(make, rf"\({op}, from module net\.part\) can't run on AIE2: .*conv2d, linear") for op, make in [
        *((op, _twice(op)) for op in ("multiply", "maximum", "minimum")),
        *((op, MAKERS[op]) for op in ("transpose", "channel_shuffle", "interpolate"))]},
    "conv2d, reflecting": Refused(
        lambda draw, b, x: b("conv2d", x, b.random(2, b.shape(x)[1], 3, 3), padding=(1, 1, 1, 1), padding_mode="reflect"),
        "expected padding with zeros, got 'reflect'"),
    "linear on a map": Refused(MAKERS["linear"], r"expected a linear layer on \[1, C\]"),
    "add of a channel vector": Refused(
        lambda draw, b, x: b("add", x, b.random(b.shape(x)[1], 1, 1)), r"expected a value of \[1, C\] or \[1, C, H, W\]"),
    "mean over channels": Refused(
        lambda draw, b, x: b("mean", x, dimensions=(1,), keep=True), r"expected a reduction over dimensions \(2, 3\)"),
    "concat of rows": Refused(
        lambda draw, b, x: b("concat", b("scale_shift", x, b.random(b.shape(x)[1]), b.random(b.shape(x)[1])), x, dimension=2),
        "expected a concatenation of channels"),
    "slice of every second row": Refused(
        lambda draw, b, x: b("slice", x, dimension=2, start=0, stop=5, step=2), "expected a slice of channels, or of rows"),
    "pad with ones": Refused(
        lambda draw, b, x: b("pad", x, padding=(1, 1, 1, 1), mode="constant", value=1.0), "expected padding with zeros"),
    "reshape to lines": Refused(
        lambda draw, b, x: b("reshape", x, shape=(*b.shape(x)[:2], b.shape(x)[2] * b.shape(x)[3])),
        "expected a reshape that flattens"),
    "prelu by channels": Refused(
        lambda draw, b, x: b("prelu", x, b.random(b.shape(x)[1])), "expected one table for all channels"),
}  # fmt: skip
"""Whatever is drawn of these has no place."""
