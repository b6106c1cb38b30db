"""Constant folding: what does not depend on the inputs is computed once, here, in float64."""

from __future__ import annotations

from zellige.graph.ir import Graph
from zellige.graph.reference import evaluate_node

NUMPY_TYPES = {"f32": "float32", "f64": "float64"}


def fold_constants(graph: Graph) -> Graph:
    """Nodes all of whose operands are constants become constants of the same name and type.

    Standardised weights and position tables come out of this. An output stays a node, which outputs always are.
    """
    constants = dict(graph.constants)
    nodes = []
    for node in graph:
        if node.name in graph.outputs or any(operand not in constants for operand in node.operands):
            nodes.append(node)
        else:
            constants[node.name] = evaluate_node(node, constants).astype(NUMPY_TYPES[node.type.dtype])
    return graph.with_nodes(nodes, constants)
