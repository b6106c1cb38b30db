"""Activation functions under their own names.

Exported models spell swish as a product, relu6 as a clamp, hard swish as four operations. Named, such a function is one
step that fuses into what comes before it, and kernels need fewer kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zellige.graph.ir import Attribute, Graph, Node
from zellige.passes.rewrite import Rewriting, Rules, rewrite


def name_activations(graph: Graph) -> Graph:
    """Products, clamps and powers that are a known function become that ``activation``."""
    return rewrite(graph, RULES)


# x · gate(x), by the gate's function.
PRODUCTS = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}
POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
RANGES = {(0.0, 6.0): "relu6", (0.0, math.inf): "relu"}


def _activation(state: Rewriting, node: Node, value: str, function: str, **parameters: Attribute) -> Node:
    return state.make(node, "activation", (value,), {"function": function, **parameters})


def _made_by(state: Rewriting, name: str, **attributes: Attribute) -> Node | None:
    """The activation that made a value that only the node under visit reads, if it has these attributes."""
    node = state.producer(name, "activation")
    found = node is not None and state.only_reader(name) and attributes.items() <= node.attributes.items()
    return node if found else None


def _plainer(state: Rewriting, node: Node) -> Node | None:
    """Clamps and powers that have a name."""
    a: Mapping[str, Any] = node.attributes
    if a["function"] == "power" and a["exponent"] in POWERS:
        return _activation(state, node, node.inputs[0], POWERS[a["exponent"]])
    if a["function"] == "hard_tanh":
        return _activation(state, node, node.inputs[0], "clamp", low=a["low"], high=a["high"])
    if a["function"] == "clamp" and (a["low"], a["high"]) in RANGES:
        return _activation(state, node, node.inputs[0], RANGES[a["low"], a["high"]])
    return None


def _gated(state: Rewriting, node: Node) -> Node | None:
    """x · sigmoid(x), x · hard_sigmoid(x), x · tanh(softplus(x))."""
    for value, gate_name in (node.inputs, node.inputs[::-1]):
        gate = _made_by(state, gate_name)
        if gate is None:
            continue
        function = PRODUCTS.get(str(gate.attributes["function"]))
        if function is not None and gate.inputs[0] == value:
            return _activation(state, node, value, function)
        inner = _made_by(state, gate.inputs[0], function="softplus", beta=1.0)
        if gate.attributes["function"] == "tanh" and inner is not None and inner.inputs[0] == value:
            return _activation(state, node, value, "mish")
    return None


def _sixth(state: Rewriting, node: Node) -> str | None:
    """The other operand of a division by 6, or of a multiplication by 1/6 as exactly as its type can say it."""
    for value, factor in (node.inputs, node.inputs[::-1]):
        array = state.constant(factor)
        if array is None or array.size != 1:
            continue
        wanted = np.asarray(6.0 if node.op == "divide" else 1 / 6, array.dtype)
        return value if array.reshape(()) == wanted and (node.op == "multiply" or factor == node.inputs[1]) else None
    return None


def _shifted_relu6(state: Rewriting, name: str) -> str | None:
    """The x of relu6(x + 3)."""
    gate = _made_by(state, name, function="relu6")
    shifted = state.producer(gate.inputs[0], "add") if gate else None
    if shifted is None or not state.only_reader(shifted.name):
        return None
    for value, three in (shifted.inputs, shifted.inputs[::-1]):
        if state.scalar(three) == 3.0 and state.done.type_of(value) == shifted.type:
            return value
    return None


def _hard(state: Rewriting, node: Node) -> Node | None:
    """relu6(x + 3) / 6 and x · relu6(x + 3) / 6."""
    value = _sixth(state, node)
    if value is None or state.done.type_of(value) != node.type:
        return None
    if (gated := _shifted_relu6(state, value)) is not None:
        return _activation(state, node, gated, "hard_sigmoid")
    product = state.producer(value, "multiply")
    if product is not None and state.only_reader(value):
        for x, gate in (product.inputs, product.inputs[::-1]):
            if _shifted_relu6(state, gate) == x:
                return _activation(state, node, x, "hard_swish")
    return None


def _positive_part(state: Rewriting, node: Node) -> Node | None:
    """max(x, 0)."""
    for value, zero in (node.inputs, node.inputs[::-1]):
        if state.scalar(zero) == 0.0 and state.done.type_of(value) == node.type:
            return _activation(state, node, value, "relu")
    return None


def _one_slope(state: Rewriting, node: Node) -> Node | None:
    """A prelu whose slope is one number."""
    slope = state.scalar(node.inputs[1])
    return None if slope is None or math.isnan(slope) else _activation(
        state, node, node.inputs[0], "leaky_relu", slope=slope)


RULES: Rules = {"activation": (_plainer,), "multiply": (_gated, _hard), "divide": (_hard,),
                "maximum": (_positive_part,), "prelu": (_one_slope,)}
