"""Quantisation after training: a float graph and some inputs → the same network in int8.

Weights have symmetric scales for each output channel, activations symmetric scales from calibration, nothing has a zero point, so
a weight that was pruned to zero stays zero (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018, for the arithmetic; Nagel et al., "A White Paper on Neural Network Quantization", 2021,
for the choices). What the result means stands in ``graph/quantized.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zellige.errors import QuantizationError
from zellige.graph.fixed_point import INT32, INT64, LEAST, MOST, Rescale, half_up, rescaling, to_steps
from zellige.graph.ir import Graph, Node
from zellige.graph.quantized import QuantizedGraph, QuantizedNode
from zellige.graph.quantized_reference import WINDOW_SUMS
from zellige.graph.reference import evaluate, run_reference
from zellige.passes.int8_form import AVERAGES, BOUNDS, MOVES, PRODUCTS, int8_form, is_clamp, value_inputs
from zellige.passes.scales import Execute, Scheme, observe, scale_groups

Array = np.ndarray

LARGEST = -LEAST
"""The largest magnitude of an int8."""

MOST_FINE = 20
"""Accumulators have steps at most 2 to this finer than the result's: tiny weights lose what no result shows, and biases fit."""


def quantize(graph: Graph, batches: Iterable[Sequence[Array]], scheme: Scheme | None = None,
             execute: Execute = run_reference) -> QuantizedGraph:
    """The network in int8, with activations calibrated on ``batches`` of inputs, which are iterated over once.

    ``graph`` is an optimised one (``passes.pipeline.optimize``). ``execute(graph, inputs)`` gives the outputs of a float graph; it
    is called for each batch, with a graph that outputs whatever calibration must see.

    Raises ``QuantizationError`` for an operator without an int8 form, for values that are not finite, without any batch,
    and for a layer whose accumulators could pass 32 bits.
    """
    scheme = scheme or Scheme()
    plain = int8_form(graph)
    groups = scale_groups(plain)
    of_group = {group: scheme.scale(seen) for group, seen in observe(plain, groups, batches, execute).items()}
    scales = {name: of_group[group] for name, group in groups.items()}
    constants = {name: to_steps(plain.constants[name], scales[name]) for name in groups if name in plain.constants}
    nodes = {node.name: _named(node, plain, scales, scheme) for node in plain if node.name in groups}
    tail = {node.name: node for node in plain if node.name not in groups}
    return QuantizedGraph(plain.name, {name: kind.shape for name, kind in plain.inputs.items()}, nodes, plain.outputs, scales,
                          constants, tail, plain.input_tree, plain.output_tree)


@dataclass(frozen=True)
class _Site:
    """A node on its way to int8: the scale of each input and of the result."""

    node: Node
    graph: Graph
    inputs: tuple[float, ...]
    scale: float
    scheme: Scheme

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.node.attributes

    def constant(self, position: int) -> Array:
        return self.graph.constants[self.node.inputs[position]]

    def rescaled(self, ratios: Sequence[Array | float], bounds: Sequence[Array | int]) -> Rescale:
        """The rescaling of terms within ``bounds``; an error if accumulators, or sums on the way, could overflow."""
        if max(float(np.max(bound)) for bound in bounds) > INT32:
            raise QuantizationError("its accumulators could pass 32 bits; split its input channels")
        return rescaling(ratios, bounds, INT32 if self.scheme.powers_of_two else INT64)


def _named(node: Node, graph: Graph, scales: Mapping[str, float], scheme: Scheme) -> QuantizedNode:
    """A node in int8; errors name it."""
    inputs = value_inputs(node)
    site = _Site(node, graph, tuple(scales[name] for name in inputs), scales[node.name], scheme)
    kind = "table" if _needs_table(node) else node.op
    low, high = _saturation(node, site.scale)
    plain = QuantizedNode(node.name, kind, inputs, node.type.shape, dict(node.attributes), low=low, high=high, origin=node.origin)
    try:
        return FORMS[kind](site, plain)
    except QuantizationError as error:
        raise QuantizationError(f"node {node.name!r} ({node.op}, from module {node.origin or 'unknown'}): {error}") from None


def _needs_table(node: Node) -> bool:
    return node.op == "prelu" or (node.op == "activation" and not is_clamp(node.attributes))


def _saturation(node: Node, scale: float) -> tuple[int, int]:
    """What the clamp of a node, if it has one, leaves of int8. Rounding keeps order, so it may come first."""
    clamps = [step.attributes for step in node.epilogue if step.op == "activation"]
    if node.op == "activation" and is_clamp(node.attributes):
        clamps.append(node.attributes)
    low, high = LEAST, MOST
    for attributes in clamps:
        least, most = (int(to_steps(np.asarray(limit), scale)) for limit in BOUNDS[str(attributes["function"])](attributes))
        low, high = (min(max(bound, least), most) for bound in (low, high))
    return low, high


def _product(site: _Site, plain: QuantizedNode) -> QuantizedNode:
    """A convolution, linear layer or scale and shift, and what is added to it."""
    weight = site.constant(1).astype(np.float64)
    bias = site.constant(2).astype(np.float64) if len(site.node.inputs) == 3 else np.zeros(len(weight))
    x, *added = site.inputs
    scale = _weight_scale(site, weight)
    whole = np.clip(half_up(weight / _beside(scale, weight.ndim - 1)), -MOST, MOST).astype(np.int8)
    products = np.abs(whole.astype(np.float64)).reshape(len(whole), -1).sum(axis=1) * LARGEST
    # a bias that saturates the result whatever the inputs is cut to where it does
    enough = products + np.ceil(LARGEST * (2 * site.scale + sum(added)) / (scale * x))
    shift = np.clip(half_up(bias / (scale * x)), -enough, enough)
    channels = _beside(scale, 0 if plain.op == "linear" else len(plain.shape) - 2)
    found = site.rescaled([channels * x / site.scale, *(one / site.scale for one in added)],
                          [_beside(products + np.abs(shift), channels.ndim - 1), *(LARGEST for _ in added)])
    return replace(plain, weight=whole, bias=shift.astype(np.int32), weight_scale=scale, rescale=found)


def _beside(vector: Array, dimensions: int) -> Array:
    """A number per row or channel, with so many dimensions behind it."""
    return vector.reshape(-1, *(1,) * dimensions)


def _weight_scale(site: _Site, weight: Array) -> Array:
    """A step for each row of the weight: its largest weight is ``MOST`` of them, unless accumulators would be finer than sense."""
    x, *added = site.inputs
    finest = max([site.scale, *added]) / 2.0**MOST_FINE
    wanted = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1) / MOST, finest / x)
    rows = site.scheme.rows or len(weight)
    first = np.arange(0, len(weight), rows)
    shared = np.maximum.reduceat(wanted, first)
    return site.scheme.at_least(np.repeat(shared, np.diff([*first, len(weight)])))


def _terms(site: _Site, plain: QuantizedNode) -> QuantizedNode:
    signs = (1.0, -1.0) if plain.op == "subtract" else (1.0, 1.0)
    ratios = [sign * scale / site.scale for sign, scale in zip(signs, site.inputs, strict=False)]
    return replace(plain, rescale=site.rescaled(ratios, [LARGEST] * len(ratios)))


def _multiply(site: _Site, plain: QuantizedNode) -> QuantizedNode:
    return replace(plain, rescale=site.rescaled([site.inputs[0] * site.inputs[1] / site.scale], [LARGEST**2]))


def _average(site: _Site, plain: QuantizedNode) -> QuantizedNode:
    """A sum over a window, and a multiplier for how many it has, which may differ from place to place."""
    over = site.attributes.get("dimensions", (2, 3))
    ones = np.ones([size if i in over else 1 for i, size in enumerate(site.graph.type_of(site.node.inputs[0]).shape)])
    count = WINDOW_SUMS[plain.op](site.attributes, ones)
    with np.errstate(invalid="ignore"):
        share = np.where(count == 0, 0.0, evaluate(plain.op, site.attributes, [ones]) / count)
    share = _as_little_as_possible(share)
    return replace(plain, rescale=site.rescaled([site.inputs[0] * share / site.scale], [LARGEST * int(count.max())]))


def _as_little_as_possible(numbers: Array) -> Array:
    """The same numbers without the dimensions along which they are equal."""
    for dimension in range(numbers.ndim):
        first = numbers.take([0], dimension)
        numbers = first if np.array_equal(np.broadcast_to(first, numbers.shape), numbers) else numbers
    while numbers.ndim and numbers.shape[0] == 1:
        numbers = numbers[0]
    return numbers


def _table(site: _Site, plain: QuantizedNode) -> QuantizedNode:
    """The result of a function, for each of the 256 values of its input."""
    steps = np.arange(LEAST, MOST + 1) * site.inputs[0]
    if site.node.op == "prelu":
        slope = site.constant(1).reshape(-1, 1)
        real = np.where(steps > 0, steps, slope * steps)
        real = real[0] if len(real) == 1 else real
    else:
        real = evaluate("activation", site.attributes, [steps])
    if np.isnan(real).any():
        raise QuantizationError(f"{site.attributes.get('function', site.node.op)} is not defined on all of {steps[0]:.4g} … "
                                f"{steps[-1]:.4g}, the range of its input in int8")
    return replace(plain, table=to_steps(real, site.scale))


def _move(site: _Site, plain: QuantizedNode) -> QuantizedNode:
    if plain.op != "pad":
        return plain
    return replace(plain, attributes={**plain.attributes, "value": float(to_steps(site.attributes["value"], site.scale))})


FORMS: Mapping[str, Callable[[_Site, QuantizedNode], QuantizedNode]] = {
    **dict.fromkeys(PRODUCTS, _product), **dict.fromkeys(("add", "subtract", "activation"), _terms), "multiply": _multiply,
    **dict.fromkeys(AVERAGES, _average), "table": _table, **dict.fromkeys(MOVES, _move),
}
