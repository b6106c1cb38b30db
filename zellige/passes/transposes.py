"""Transposes sink: what can be computed before a transpose is, until two transposes meet and cancel.

ConvNeXt, MetaFormer, MambaOut and their like turn maps to channels-last and back around layers that work on the last
dimension. Here maps are planes; a linear layer over channels is a convolution of one tap, with all that its kernels can
do. Each rule moves one operator in front of the transpose that makes its operand, and the transpose behind it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from zellige.graph.ir import Graph, Node
from zellige.passes.rewrite import Rewriting, Rules, rewrite

CHANNELS_LAST = (0, 2, 3, 1)
PLANES = ".planes"
"""What the name of an operator that moved ends with, as long as the transpose behind it bears the name itself."""
Order = tuple[int, ...]


def sink_transposes(graph: Graph) -> Graph:
    """Elementwise operators, reductions, slices, joins and linear layers work on what a transpose read."""
    return _with_own_names(rewrite(graph, RULES))


def _with_own_names(graph: Graph) -> Graph:
    """An operator takes its name back when the transpose that had it is gone: reports name layers by it."""
    taken = {*graph.nodes, *graph.inputs, *graph.constants}
    names = {name: own for name in graph.nodes if name.endswith(PLANES) and (own := name.removesuffix(PLANES)) not in taken}
    if not names:
        return graph

    def named(name: str) -> str:
        return names.get(name, name)

    nodes = [replace(node, name=named(node.name), inputs=tuple(map(named, node.inputs))) for node in graph]
    return graph.with_nodes(nodes, outputs=tuple(map(named, graph.outputs)))


def _turned(state: Rewriting, name: str) -> tuple[str, Order] | None:
    """What a transpose that makes a value reads, and its order."""
    node = state.producer(name, "transpose")
    if node is None:
        return None
    order: Any = node.attributes["order"]
    return node.inputs[0], order


def _behind(state: Rewriting, node: Node, op: str, inputs: tuple[str, ...], attributes: dict[str, Any], order: Order) -> Node:
    """The node's value, computed by ``op`` on values as they were before a transpose of this order."""
    return state.make(node, "transpose", (state.insert(node.name + PLANES, node, op, inputs, attributes),), {"order": order})


def _activation(state: Rewriting, node: Node) -> Node | None:
    found = _turned(state, node.inputs[0])
    return _behind(state, node, node.op, found[:1], dict(node.attributes), found[1]) if found else None


def _arithmetic(state: Rewriting, node: Node) -> Node | None:
    """Both operands come from one order, or one of them is a constant, which is turned back."""
    orders = {found[1] for name in node.inputs if (found := _turned(state, name))}
    if len(orders) != 1:
        return None
    order = orders.pop()
    operands = [_as_before(state, node, name, order) for name in node.inputs]
    if None in operands:
        return None
    return _behind(state, node, node.op, tuple(map(str, operands)), {}, order)


def _as_before(state: Rewriting, node: Node, name: str, order: Order) -> str | None:
    """An operand as it was before the transpose, if it has as many dimensions or can be given them."""
    if (found := _turned(state, name)) is not None:
        return found[0]
    array = state.constant(name)
    if array is None or array.ndim > len(order):
        return None
    if array.ndim == 0:
        return name
    full = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
    return state.add_constant(name + PLANES, np.ascontiguousarray(full.transpose(np.argsort(order))))


def _reduction(state: Rewriting, node: Node) -> Node | None:
    found = _turned(state, node.inputs[0])
    if found is None or not node.attributes["keep"]:
        return None
    dimensions: Any = node.attributes["dimensions"]
    source, order = found
    before = tuple(sorted(order[i] for i in dimensions))
    return _behind(state, node, node.op, (source,), {"dimensions": before, "keep": True}, order)


def _slice(state: Rewriting, node: Node) -> Node | None:
    found = _turned(state, node.inputs[0])
    if found is None:
        return None
    source, order = found
    dimension: Any = node.attributes["dimension"]
    return _behind(state, node, "slice", (source,), {**node.attributes, "dimension": order[dimension]}, order)


def _concat(state: Rewriting, node: Node) -> Node | None:
    found = [_turned(state, name) for name in node.inputs]
    orders = {one[1] if one else None for one in found}
    order = orders.pop()
    if orders or order is None:
        return None
    dimension: Any = node.attributes["dimension"]
    return _behind(state, node, "concat", tuple(one[0] for one in found if one), {"dimension": order[dimension]}, order)


def _linear(state: Rewriting, node: Node) -> Node | None:
    """Over the channels of a map: a convolution of one tap."""
    found = _turned(state, node.inputs[0])
    weight = state.constant(node.inputs[1])
    if found is None or found[1] != CHANNELS_LAST or weight is None:
        return None
    filters = state.add_constant(f"{node.inputs[1]}.filters", weight[:, :, None, None])
    return _behind(state, node, "conv2d", (found[0], filters, *node.inputs[2:]), {}, CHANNELS_LAST)


BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
RULES: Rules = {
    "activation": (_activation,), **dict.fromkeys(BINARY, (_arithmetic,)), **dict.fromkeys(("mean", "sum"), (_reduction,)),
    "slice": (_slice,), "concat": (_concat,), "linear": (_linear,)}
