"""Generated layers of every operator that int8 has, as graphs of one or two nodes, and numbers to calibrate them with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from small_networks import Build

from zellige.graph.ir import Fused, Graph
from zellige.graph.quantized import QuantizedGraph
from zellige.passes.quantize import quantize
from zellige.passes.scales import Scheme

Draw = Callable[[st.SearchStrategy], object]

CLAMPS = [{"function": "relu"}, {"function": "relu6"}, {"function": "clamp", "low": -0.75, "high": 1.5},
          {"function": "hard_tanh", "low": -1.0, "high": 1.0}]
TABLES = [{"function": "silu"}, {"function": "sigmoid"}, {"function": "hard_swish"}, {"function": "tanh"},
          {"function": "leaky_relu", "slope": 0.1}, {"function": "gelu", "approximate": "none"}, {"function": "square"}]

SCHEMES = st.builds(Scheme, st.sampled_from(["minmax", "percentile", "mse"]), st.just(99.0), st.booleans(),
                    st.sampled_from([1, 2, 8, None]))


def _pads(draw: Draw, most: int = 2) -> tuple[int, ...]:
    return draw(st.tuples(*[st.integers(0, most)] * 4))


def _two(draw: Draw, most: int) -> tuple[int, int]:
    return draw(st.tuples(*[st.integers(1, most)] * 2))


def _conv2d(draw: Draw, b: Build, x: str) -> str:
    channels = b.shape(x)[1]
    groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
    kernel, outputs = _two(draw, 3), groups * draw(st.integers(1, 3))
    weight = b.random(outputs, channels // groups, *kernel)
    bias = [b.random(outputs)] if draw(st.booleans()) else []
    dilation = _two(draw, 2) if max(kernel) > 1 else (1, 1)
    return b("conv2d", x, weight, *bias, groups=groups, stride=_two(draw, 3), padding=_pads(draw), dilation=dilation,
             padding_mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])))


def _linear(draw: Draw, b: Build, x: str) -> str:
    outputs = draw(st.integers(1, 5))
    return b("linear", x, b.random(outputs, b.shape(x)[-1]), *([b.random(outputs)] if draw(st.booleans()) else []))


def _scale_shift(draw: Draw, b: Build, x: str) -> str:
    return b("scale_shift", x, b.random(b.shape(x)[1]), b.random(b.shape(x)[1]))


def _other(draw: Draw, b: Build, x: str) -> str:
    """Something to combine ``x`` with: itself, a channel vector of the network's, or constants."""
    c = b.shape(x)[1]
    pooled = b("mean", x, dimensions=(2, 3), keep=True)
    return draw(st.sampled_from([x, pooled, b.random(*b.shape(x)), b.random(c, 1, 1), b.random()]))


def _combination(op: str) -> Callable[[Draw, Build, str], str]:
    def make(draw: Draw, b: Build, x: str) -> str:
        operands = (x, _other(draw, b, x))
        return b(op, *(operands[::-1] if draw(st.booleans()) else operands))
    return make


def _max_pool(draw: Draw, b: Build, x: str) -> str:
    return b("max_pool2d", x, kernel=(2, 3), stride=_two(draw, 3), padding=_pads(draw, 1), dilation=_two(draw, 2))


def _average_pool(draw: Draw, b: Build, x: str) -> str:
    """With two rows of padding, windows may lie beyond the map altogether: then the padding must count."""
    padding = _pads(draw)
    counted = padding if max(padding) == 2 else tuple(draw(st.integers(0, p)) for p in padding)
    return b("average_pool2d", x, kernel=_two(draw, 3) if not any(padding) else (3, 2), stride=_two(draw, 3), padding=padding,
             count_padding=counted, divisor=draw(st.sampled_from([0, 0, 5])))


def _adaptive(op: str) -> Callable[[Draw, Build, str], str]:
    return lambda draw, b, x: b(op, x, size=_two(draw, 7))


def _reduction(op: str) -> Callable[[Draw, Build, str], str]:
    def make(draw: Draw, b: Build, x: str) -> str:
        dimensions = tuple(sorted(draw(st.sets(st.integers(0, 3), min_size=1))))
        return b(op, x, dimensions=dimensions, keep=draw(st.booleans()))
    return make


def _concat(draw: Draw, b: Build, x: str) -> str:
    larger = b("multiply", x, b.constant(draw(st.sampled_from([0.1, 3.0]))))
    parts = draw(st.permutations([x, larger, b.random(*b.shape(x))]))
    return b("concat", *parts, dimension=draw(st.integers(0, 3)))


def _slice(draw: Draw, b: Build, x: str) -> str:
    dimension = draw(st.integers(1, 3))
    start = draw(st.integers(0, b.shape(x)[dimension] - 1))
    return b("slice", x, dimension=dimension, start=start, stop=b.shape(x)[dimension], step=draw(st.integers(1, 2)))


def _pad(draw: Draw, b: Build, x: str) -> str:
    mode = draw(st.sampled_from(["zeros", "constant", "reflect", "replicate", "circular"]))
    return b("pad", x, padding=_pads(draw), mode=mode, value=draw(st.sampled_from([0.0, 1.5, -40.0])))


def _reshape(draw: Draw, b: Build, x: str) -> str:
    n, c, h, w = b.shape(x)
    return b("reshape", x, shape=draw(st.sampled_from([(n, c * h * w), (n, c, h * w), (n * c, w, h)])))


def _transpose(draw: Draw, b: Build, x: str) -> str:
    return b("transpose", x, order=tuple(draw(st.permutations(range(4)))))


def _shuffle(draw: Draw, b: Build, x: str) -> str:
    return b("channel_shuffle", x, groups=draw(st.sampled_from([n for n in range(1, 7) if b.shape(x)[1] % n == 0])))


def _nearest(draw: Draw, b: Build, x: str) -> str:
    factor = draw(st.integers(1, 2))
    return b("interpolate", x, mode="nearest", size=tuple(size * factor for size in b.shape(x)[2:]))


def _activation(draw: Draw, b: Build, x: str) -> str:
    return b("activation", x, **draw(st.sampled_from([*CLAMPS, *TABLES])))


def _prelu(draw: Draw, b: Build, x: str) -> str:
    return b("prelu", x, b.random(draw(st.sampled_from([1, b.shape(x)[1]]))))


MAKERS: dict[str, Callable[[Draw, Build, str], str]] = {
    "conv2d": _conv2d, "linear": _linear, "scale_shift": _scale_shift,
    **{op: _combination(op) for op in ("add", "subtract", "multiply", "maximum", "minimum")},
    "max_pool2d": _max_pool, "average_pool2d": _average_pool,
    **{op: _adaptive(op) for op in ("adaptive_average_pool2d", "adaptive_max_pool2d")}, "mean": _reduction("mean"),
    "sum": _reduction("sum"), "concat": _concat, "slice": _slice, "pad": _pad, "reshape": _reshape, "transpose": _transpose,
    "channel_shuffle": _shuffle, "interpolate": _nearest, "activation": _activation, "prelu": _prelu,
}
EPILOGUES = {"conv2d": True, "linear": True, "add": False, "multiply": False, "scale_shift": False, "max_pool2d": False,
             "average_pool2d": False}
"""Operators that take an activation, and whether they take an addition before or after it."""


@st.composite
def layers(draw: Draw, op: str) -> Graph:
    """A graph that ends in a node of ``op``, epilogue included, on an input of any magnitude."""
    b = Build(*(draw(st.integers(1, 2)), draw(st.integers(1, 6)), draw(st.integers(5, 7)), draw(st.integers(5, 7))),
              seed=draw(st.integers(0, 2**16)))
    name = MAKERS[op](draw, b, b.x)
    if op in EPILOGUES:
        steps = []
        if draw(st.booleans()):
            steps.append(Fused("activation", draw(st.sampled_from([*CLAMPS, *TABLES[:3]]))))
        if EPILOGUES[op] and draw(st.booleans()):
            steps.insert(draw(st.integers(0, len(steps))), Fused("add", operand=b.random(*b.shape(name))))
        b.graph.nodes[name] = replace(b.graph.nodes[name], epilogue=tuple(steps))
    return b.done(name)


def numbers_for(graph: Graph, seed: int, magnitude: float = 1.0) -> list[np.ndarray]:
    """Inputs of a graph."""
    random = np.random.default_rng(seed)
    return [magnitude * random.standard_normal(kind.shape) for kind in graph.inputs.values()]


def quantized(graph: Graph, scheme: Scheme, magnitude: float = 1.0) -> QuantizedGraph:
    """A graph quantised on two batches."""
    return quantize(graph, [numbers_for(graph, seed, magnitude) for seed in (1, 2)], scheme)
