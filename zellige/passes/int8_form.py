"""The form of a graph that has a word in int8 for each of its nodes: epilogues are split where integers can't follow.

Products take an addition, then an activation of straight pieces, which is a saturation. Any other function of an int8 value is
looked up in a table, so it needs that value, and stands apart. An operator without an int8 form is refused here, before
anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from zellige.errors import QuantizationError
from zellige.graph.ir import Attribute, Fused, Graph, Node
from zellige.graph.verify import verify_graph

PRODUCTS = ("conv2d", "linear", "scale_shift")
AVERAGES = ("average_pool2d", "adaptive_average_pool2d", "mean", "sum")
MOVES = ("max_pool2d", "adaptive_max_pool2d", "maximum", "minimum", "concat", "slice", "pad", "reshape", "transpose",
         "channel_shuffle", "interpolate")
"""Operators whose inputs and result have one scale: every step of the result is a step of an input."""
TAILS = ("softmax", "log_softmax")
"""Operators that may end a network, in real numbers."""
SUPPORTED = (*PRODUCTS, "add", "subtract", "multiply", *AVERAGES, "activation", "prelu", *MOVES, *TAILS)

BOUNDS: Mapping[str, Callable[[Mapping[str, Any]], tuple[float, float]]] = {
    "relu": lambda a: (0.0, math.inf), "relu6": lambda a: (0.0, 6.0),
    "clamp": lambda a: (a["low"], a["high"]), "hard_tanh": lambda a: (a["low"], a["high"]),
}
"""Activation functions that only clamp, and to what."""


def value_inputs(node: Node) -> tuple[str, ...]:
    """What a node reads that is a value in int8: everything but weights, biases and other parameters."""
    own = node.inputs[:1] if node.op in (*PRODUCTS, "prelu", "batch_norm") else node.inputs
    return (*own, *(step.operand for step in node.epilogue if step.operand is not None))


def int8_form(graph: Graph) -> Graph:
    """The graph with epilogues as int8 has them. Raises ``QuantizationError`` for the first node that has no int8 form."""
    taken = {*graph.inputs, *graph.constants, *graph.nodes}
    result = graph.with_nodes([part for node in graph for part in _split(node, taken)])
    verify_graph(result)
    readers = result.consumers()
    for node in result:
        if (fault := _fault(result, node, readers[node.name])) is not None:
            raise QuantizationError(f"node {node.name!r} ({node.op}, from module {node.origin or 'unknown'}) can't be "
                                    f"quantised to int8: {fault}")
    return result


def _split(node: Node, taken: set[str]) -> Iterator[Node]:
    """A node in parts, the last of which has its name."""
    part = replace(node, epilogue=())
    for at, step in enumerate(node.epilogue):
        if _takes(part, step):
            part = replace(part, epilogue=(*part.epilogue, step))
            continue
        name = f"{node.name}.{at}"
        while name in taken:
            name += "_"
        taken.add(name)
        yield replace(part, name=name)
        inputs = (name,) if step.operand is None else (name, step.operand)
        part = Node(node.name, step.op, inputs, node.type, dict(step.attributes), origin=node.origin)
    yield part


def _takes(part: Node, step: Fused) -> bool:
    if step.op == "add":
        return part.op in ("conv2d", "linear") and not part.epilogue
    clamped = any(earlier.op == "activation" for earlier in part.epilogue)
    return part.op not in ("activation", "prelu", *TAILS) and is_clamp(step.attributes) and not clamped


def is_clamp(attributes: Mapping[str, Attribute]) -> bool:
    return attributes["function"] in BOUNDS


def _fault(graph: Graph, node: Node, readers: list[str]) -> str | None:
    """Why a node has no int8 form; ``None`` if it has one."""
    if node.op not in SUPPORTED:
        advice = "fold it first (passes.pipeline.optimize)" if node.op == "batch_norm" else f"int8 has {', '.join(SUPPORTED)}"
        return f"there is no int8 form of this operator; {advice}"
    parameters = [name for name in node.inputs if name not in value_inputs(node)]
    if unknown := [name for name in parameters if name not in graph.constants]:
        return f"its parameter {unknown[0]!r} must be a constant, but the network computes it"
    if node.op in TAILS and (readers or node.name not in graph.outputs):
        return "it stays in floating point, so it must be an output that nothing reads"
    if node.op in TAILS and node.inputs[0] in graph.constants:
        return "it reads a constant; fold it first (passes.pipeline.optimize)"
    if node.op == "interpolate" and node.attributes["mode"] == "bilinear":
        return "of the modes, int8 has nearest and nearest_exact"
    if node.op == "pad" and node.attributes["mode"] == "constant" and not math.isfinite(float(str(node.attributes["value"]))):
        return f"it pads with {node.attributes['value']}; fold it into the pool behind it (passes.pipeline.optimize)"
    return None
