"""The verifier: whether a graph keeps its own rules. Passes and readers of files call it; its errors name the node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zellige.errors import GraphError
from zellige.graph.ir import DTYPES, Fused, Graph, Node, StoredConstants, TensorType
from zellige.graph.operators import OPERATORS, check_attributes, infer_type
from zellige.graph.trees import leaves

MAXIMUM_RANK = 8
MAXIMUM_ELEMENTS = 2**40
FLOATS = ("f32", "f64")


def verify_graph(graph: Graph) -> None:
    """Raise ``GraphError`` unless every rule of a graph holds.

    Names are unique and known before they are read; operators, their number of inputs, attributes and types are those
    of the table; epilogues add values of the node's own type; outputs are nodes; the trees name outputs, and every input once.
    """
    where = f"graph {graph.name}"
    known = {**_known_inputs(graph, where), **_known_constants(graph, where)}
    if len(known) < len(graph.inputs) + len(graph.constants):
        raise GraphError(f"{where}: {min(set(graph.inputs) & set(graph.constants))!r} is an input and a constant")
    for name, node in graph.nodes.items():
        if node.name != name:
            raise GraphError(f"{where}: the node {node.name!r} is filed under {name!r}")
        if name in known:
            raise GraphError(f"{where}: the name {name!r} is given twice")
        try:
            _check_node(node, known)
        except GraphError as error:
            raise GraphError(f"{where}, node {name!r} ({node.op}): {error}") from None
        known[name] = node.type
    if not graph.outputs:
        raise GraphError(f"{where}: there must be at least one output")
    for name in graph.outputs:
        if name not in graph.nodes:
            raise GraphError(f"{where}: the output {name!r} is no node")
    positions = _check_tree(graph.input_tree, len(graph.inputs), f"{where}, input_tree")
    if graph.input_tree is not None and sorted(positions) != list(range(len(graph.inputs))):
        raise GraphError(f"{where}, input_tree: every input must stand in it once, got the positions {positions}")
    _check_tree(graph.output_tree, len(graph.outputs), f"{where}, output_tree")


def _known_inputs(graph: Graph, where: str) -> dict[str, TensorType]:
    for name, kind in graph.inputs.items():
        _check_type(kind, f"{where}, input {name!r}")
    return dict(graph.inputs)


def _known_constants(graph: Graph, where: str) -> dict[str, TensorType]:
    arrays = {} if isinstance(graph.constants, StoredConstants) else graph.constants
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.name not in DTYPES:
            raise GraphError(f"{where}, constant {name!r}: expected an array of {', '.join(DTYPES)}")
    types = {name: graph.type_of(name) for name in graph.constants}
    for name, kind in types.items():
        _check_type(kind, f"{where}, constant {name!r}", (*DTYPES.values(),))
    return types


def _check_type(kind: TensorType, where: str, dtypes: tuple[str, ...] = FLOATS) -> None:
    if kind.dtype not in dtypes:
        raise GraphError(f"{where}: the element type must be one of {', '.join(dtypes)}, got {kind.dtype}")
    if len(kind.shape) > MAXIMUM_RANK or any(type(size) is not int or size < 1 for size in kind.shape):
        raise GraphError(f"{where}: a shape is at most {MAXIMUM_RANK} integers ≥ 1, got {list(kind.shape)}")
    if math.prod(kind.shape) > MAXIMUM_ELEMENTS:
        raise GraphError(f"{where}: {list(kind.shape)} has more than {MAXIMUM_ELEMENTS} elements")


def _check_node(node: Node, known: Mapping[str, TensorType]) -> None:
    if node.op not in OPERATORS:
        raise GraphError(f"{node.op!r} is no operator; known are {', '.join(OPERATORS)}")
    for operand in node.operands:
        if operand not in known:
            raise GraphError(f"reads {operand!r}, which nothing before it makes")
    check_attributes(node.op, node.attributes)
    expected = infer_type(node.op, [known[name] for name in node.inputs], node.attributes)
    _check_type(expected, "the result")
    if node.type != expected:
        raise GraphError(f"its type is {node.type}, but its operands give {expected}")
    for step in node.epilogue:
        _check_step(step, node, known)


def _check_step(step: Fused, node: Node, known: Mapping[str, TensorType]) -> None:
    if step.op == "activation":
        if step.operand is not None:
            raise GraphError(f"the fused activation must have no operand, got {step.operand!r}")
        check_attributes("activation", step.attributes)
    elif step.op == "add":
        if step.operand is None or step.attributes:
            raise GraphError("a fused add must have an operand, and no attributes")
        if known[step.operand] != node.type:
            raise GraphError(f"the fused add of {step.operand!r} needs {node.type}, got {known[step.operand]}")
    else:
        raise GraphError(f"an epilogue step must be activation or add, got {step.op!r}")


def _check_tree(tree: Any, count: int, where: str) -> list[int]:
    """The positions that a tree, where there is one, names: they must be among ``count``."""
    try:
        positions = list(leaves(tree))
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from None
    for position in positions:
        if not 0 <= position < count:
            raise GraphError(f"{where}: position {position} is not among {count}")
    return positions
