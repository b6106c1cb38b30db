"""Batches in parts: whether a network treats its images one by one, and the same network for fewer of them.

A value is *in step* with the batch if it has one slice for every image along dimension 0, and each slice depends on that image
alone. Inputs are taken to be so; every operator has a rule that says when its result is, given that its operands are. A batch of
a network whose outputs are all in step may be run in parts, one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from zellige.errors import GraphError
from zellige.graph.ir import Graph, Node, TensorType
from zellige.graph.operators import make_node
from zellige.graph.verify import verify_graph


def batch_of(graph: Graph) -> int:
    """How many images the graph's inputs have that it treats one by one; 1 if there is only one, or it mixes them."""
    sizes = {kind.shape[0] if kind.shape else 1 for kind in graph.inputs.values()}
    images = sizes.pop() if len(sizes) == 1 else 1
    return 1 if images == 1 or any(mixes(graph, node, images) for node in graph) else images


def mixes(graph: Graph, node: Node, images: int) -> bool:
    """Whether a node's result is out of step with a batch of so many images, with which all values before it are in step."""
    rule = RULES.get(node.op)
    shape = node.type.shape
    if rule is None or not rule(graph, node) or not shape or shape[0] != images:
        return True
    return any(step.operand in graph.constants for step in node.epilogue)  # of the node's own shape: a slice for each image


def with_batch(graph: Graph, images: int) -> Graph:
    """The same network for another number of images; weights are shared, never copied.

    Raises ``GraphError`` if the network mixes the images of its batch, or has just one.
    """
    if batch_of(graph) == 1:
        raise GraphError(f"graph {graph.name}: expected a network that treats the images of its batch one by one; it mixes "
                         "them, or has one")
    inputs = {name: TensorType((images, *kind.shape[1:]), kind.dtype) for name, kind in graph.inputs.items()}
    result = replace(graph, inputs=inputs, nodes={})
    for node in graph:
        attributes: dict[str, Any] = dict(node.attributes)
        if node.op == "reshape":
            attributes["shape"] = (images, *attributes["shape"][1:])
        types = [result.type_of(name) for name in node.inputs]
        result.nodes[node.name] = replace(make_node(node.name, node.op, node.inputs, types, attributes, node.origin),
                                          epilogue=node.epilogue)
    verify_graph(result)
    return result


# The rules: given operands in step (or constant), whether the result is


def _map(graph: Graph, node: Node) -> bool:
    """Of one value, whose images are along dimension 0, and parameters that are constants."""
    first, *parameters = node.inputs
    return first not in graph.constants and all(name in graph.constants for name in parameters)


def _rows(graph: Graph, node: Node) -> bool:
    """A linear layer mixes the last dimension, which must not be that of the images."""
    return _map(graph, node) and len(node.type.shape) > 1


def _broadcast(graph: Graph, node: Node) -> bool:
    """Values have all dimensions of the result, so that their images meet; a constant is the same for each image."""
    rank = len(node.type.shape)
    shapes = {name: graph.type_of(name).shape for name in node.inputs}
    values = [name for name in node.inputs if name not in graph.constants]
    alike = all(len(shape) < rank or shape[0] == 1 for name, shape in shapes.items() if name in graph.constants)
    return bool(values) and alike and all(len(shapes[name]) == rank for name in values)


def _reduction(graph: Graph, node: Node) -> bool:
    dimensions: Any = node.attributes["dimensions"]
    return _map(graph, node) and 0 not in dimensions


def _along(graph: Graph, node: Node) -> bool:
    """Operators that work along another dimension than that of the images."""
    return not any(name in graph.constants for name in node.inputs) and node.attributes["dimension"] != 0


def _reshape(graph: Graph, node: Node) -> bool:
    """Elements are in row-major order, so images stay apart where dimension 0 stays as it is."""
    shape: Any = node.attributes["shape"]
    return _map(graph, node) and bool(shape) and shape[0] == graph.type_of(node.inputs[0]).shape[0]


def _transpose(graph: Graph, node: Node) -> bool:
    order: Any = node.attributes["order"]
    return _map(graph, node) and order[0] == 0


Rule = Callable[[Graph, Node], bool]
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv2d", "batch_norm", "scale_shift", "activation", "prelu", "max_pool2d", "average_pool2d",
                     "adaptive_average_pool2d", "adaptive_max_pool2d", "pad", "channel_shuffle", "interpolate"), _map),
    "linear": _rows, "reshape": _reshape, "transpose": _transpose,
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum", "where"), _broadcast),
    **dict.fromkeys(("mean", "sum"), _reduction),
    **dict.fromkeys(("softmax", "log_softmax", "concat", "slice"), _along),
}
"""Operator → when its result is in step. An operator without a rule mixes images."""
