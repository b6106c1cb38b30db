"""Constant folding: what does not depend on the inputs is computed once, here, in float64."""

from __future__ import annotations

import numpy as np

from zellige.graph.ir import Graph, Node
from zellige.graph.operators import make_node
from zellige.graph.reference import evaluate_node

NUMPY_TYPES = {"f32": "float32", "f64": "float64"}


def fold_constants(graph: Graph) -> Graph:
    """Nodes all of whose operands are constants become constants of the same name and type.

    Standardised weights and position tables come out of this. An output stays a node, which outputs always are: it
    becomes a ``reshape`` that gives its value.
    """
    constants = dict(graph.constants)
    nodes = []
    for node in graph:
        if any(operand not in constants for operand in node.operands) or _gives_a_constant(graph, node):
            nodes.append(node)
            continue
        value = evaluate_node(node, constants).astype(NUMPY_TYPES[node.type.dtype])
        if node.name in graph.outputs:
            name = _fresh(f"{node.name}.value", graph, constants)
            nodes.append(make_node(node.name, "reshape", (name,), (node.type,), {"shape": node.type.shape}, node.origin))
        else:
            name = node.name
        constants[name] = value
    return graph.with_nodes(nodes, constants)


def _gives_a_constant(graph: Graph, node: Node) -> bool:
    """Whether an output is folded already."""
    return node.name in graph.outputs and node.op == "reshape" and graph.type_of(node.inputs[0]) == node.type


def _fresh(wish: str, graph: Graph, constants: dict[str, np.ndarray]) -> str:
    while wish in constants or wish in graph.nodes or wish in graph.inputs:
        wish += "_"
    return wish
