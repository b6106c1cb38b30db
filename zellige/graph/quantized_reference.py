"""The int8 reference: a quantised graph run with numpy, slowly and plainly. It defines the semantics bit for bit.

Sums are those of the float64 reference, on whole numbers: no accumulator passes 2^31 (``passes/quantize.py`` sees to that), and
float64 holds every whole number to 2^53 exactly, so nothing is rounded, in whatever order it is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zellige.errors import GraphError
from zellige.graph.fixed_point import LEAST, saturate, to_steps
from zellige.graph.quantized import QuantizedGraph, QuantizedNode
from zellige.graph.reference import EVALUATE, evaluate_node
from zellige.graph.reference_windows import adaptive, average_pool2d

Array = np.ndarray


def _product(node: QuantizedNode, x: Array, *added: Array) -> list[Array]:
    return [EVALUATE[node.op](node.attributes, x, node.weight, node.bias), *added]


WINDOW_SUMS: Mapping[str, Callable[[Mapping, Array], Array]] = {
    "average_pool2d": lambda a, x: average_pool2d({**a, "divisor": 1}, x),
    "adaptive_average_pool2d": lambda a, x: adaptive(x, a["size"], np.sum),
    "mean": EVALUATE["sum"], "sum": EVALUATE["sum"],
}
"""What averages divide, or don't: the sums over their windows."""

TERMS: Mapping[str, Callable[..., list[Array]]] = {
    **dict.fromkeys(("conv2d", "linear", "scale_shift"), _product),
    **dict.fromkeys(("add", "subtract", "activation"), lambda node, *inputs: list(inputs)),
    "multiply": lambda node, x, y: [x * y],
    **{op: lambda node, x: [WINDOW_SUMS[node.op](node.attributes, x)] for op in WINDOW_SUMS},
}
"""The terms of operators that rescale, from whole numbers in float64."""


def _looked_up(node: QuantizedNode, x: Array) -> Array:
    assert node.table is not None
    place = x.astype(np.int64) - LEAST
    if node.table.ndim == 1:
        return np.asarray(node.table[place])
    channel = np.arange(len(node.table)).reshape(-1, *(1,) * (x.ndim - 2))
    return np.asarray(node.table[channel, place])


def evaluate_quantized(node: QuantizedNode, inputs: Sequence[Array]) -> Array:
    """The result of one node on int8 ``inputs``: int8."""
    if node.op == "table":
        return _looked_up(node, *inputs)
    wide = [array.astype(np.float64) for array in inputs]
    if node.rescale is None:
        return saturate(EVALUATE[node.op](node.attributes, *wide), node.low, node.high)
    return saturate(node.rescale(TERMS[node.op](node, *wide)), node.low, node.high)


def run_int8(graph: QuantizedGraph, inputs: Sequence[Array], keep: Sequence[str] | None = None) -> dict[str, Array]:
    """The int8 values of ``keep`` (of the outputs and of what the tail reads, if ``None``) on int8 ``inputs``, by name."""
    expected = [(shape, "int8") for shape in graph.inputs.values()]
    came = [(tuple(np.shape(array)), np.asarray(array).dtype.name) for array in inputs]
    if came != expected:
        raise GraphError(f"quantised graph {graph.name}: expected inputs {expected}, got {came}")
    if keep is None:
        keep = [name for output in graph.outputs
                for name in (graph.tail[output].inputs if output in graph.tail else (output,))]
    values = {**graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
    last_reader = {name: node.name for node in graph for name in node.inputs}
    for node in graph:
        values[node.name] = evaluate_quantized(node, [values[name] for name in node.inputs])
        for name in set(node.inputs) - set(keep):
            if last_reader[name] == node.name:
                del values[name]
    return {name: values[name] for name in keep}


def run_quantized(graph: QuantizedGraph, inputs: Sequence[Array]) -> list[Array]:
    """The outputs in real numbers (float64), on real ``inputs``, as ``run_reference`` gives those of a float graph."""
    steps = [to_steps(array, graph.scales[name]) for name, array in zip(graph.inputs, inputs, strict=True)]
    real = {name: value * graph.scales[name] for name, value in run_int8(graph, steps).items()}
    return [evaluate_node(graph.tail[name], real) if name in graph.tail else real[name] for name in graph.outputs]
