"""What nobody needs goes: nodes without a reader, constants without a reader, and work that is done twice."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from zellige.graph.ir import Graph, Node


def eliminate_dead(graph: Graph) -> Graph:
    """Keeps the nodes that an output depends on, and the constants that these read. Inputs are part of the call, and
    all stay.
    """
    needed = set(graph.outputs)
    for node in reversed(graph.nodes.values()):
        if node.name in needed:
            needed.update(node.operands)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return graph.with_nodes((node for node in graph if node.name in needed), constants)


def eliminate_duplicates(graph: Graph) -> Graph:
    """Lets the readers of a node that repeats an earlier one read the earlier one (common subexpressions)."""
    first: dict[Hashable, str] = {}
    same_as: dict[str, str] = {}
    nodes = []
    for original in graph:
        node = _renamed(original, same_as)
        earlier = first.setdefault(_key(graph, node), node.name)
        if earlier == node.name:
            nodes.append(node)
        else:
            same_as[node.name] = earlier
    return graph.with_nodes(nodes, outputs=tuple(same_as.get(name, name) for name in graph.outputs))


def _renamed(node: Node, same_as: dict[str, str]) -> Node:
    epilogue = tuple(step if step.operand is None else replace(step, operand=same_as.get(step.operand, step.operand))
                     for step in node.epilogue)
    return replace(node, inputs=tuple(same_as.get(name, name) for name in node.inputs), epilogue=epilogue)


def _key(graph: Graph, node: Node) -> Hashable:
    """Equal for nodes that compute the same."""
    operands = tuple(_scalar_or_name(graph, name) for name in node.inputs)
    steps = tuple((step.op, step.operand, tuple(sorted(step.attributes.items()))) for step in node.epilogue)
    return node.op, operands, tuple(sorted(node.attributes.items())), steps, node.type


def _scalar_or_name(graph: Graph, name: str) -> Hashable:
    """Equal for scalar constants of the same bits, whatever their names."""
    array = graph.constants.get(name)
    return name if array is None or array.ndim else (array.dtype.name, array.tobytes())
