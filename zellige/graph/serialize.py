"""A graph as JSON and back: everything but the numbers of its constants.

Reading trusts nothing: every field must be there, of its type, and no other; then the verifier runs. Whatever is wrong
is a ``FileFormatError``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from zellige.errors import FileFormatError, GraphError
from zellige.graph.attributes import from_json, to_json
from zellige.graph.ir import Fused, Graph, Node, StoredConstants, TensorType
from zellige.graph.operators import attributes_of
from zellige.graph.verify import verify_graph


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """The graph as a JSON object, the same for the same graph; constants leave their names and types.

    >>> from zellige.graph.operators import make_node
    >>> x = TensorType((1, 2))
    >>> relu = make_node("y", "activation", ["x"], [x], {"function": "relu"})
    >>> graph_to_json(Graph("net", {"x": x}, {"y": relu}, ("y",)))["nodes"][0]["attributes"]
    {'function': 'relu'}
    """
    return {
        "name": graph.name,
        "inputs": [{"name": name, **_type_to_json(kind)} for name, kind in graph.inputs.items()],
        "constants": [{"name": name, **_type_to_json(graph.type_of(name))} for name in graph.constants],
        "nodes": [_node_to_json(node) for node in graph],
        "outputs": list(graph.outputs),
        "input_tree": graph.input_tree,
        "output_tree": graph.output_tree,
    }


def graph_from_json(data: Any, constants: Mapping[str, np.ndarray]) -> Graph:
    """The graph that ``graph_to_json`` wrote, with the numbers of its ``constants``, verified.

    Raises ``FileFormatError`` if anything is missing, unknown, of a wrong type, or breaks a rule of the graph.
    """
    try:
        fields = _fields(data, "the graph", {"name": str, "inputs": list, "constants": list, "nodes": list,
                                             "outputs": list, "input_tree": None, "output_tree": None})
        nodes = [_node_from_json(item) for item in fields["nodes"]]
        graph = Graph(fields["name"], _typed_names(fields["inputs"], "inputs"), _by_name(nodes),
                      _names(fields["outputs"], "outputs"), constants,
                      fields["input_tree"], fields["output_tree"])
        declared = _typed_names(fields["constants"], "constants")
        verify_graph(graph)
        if declared != (given := {name: graph.type_of(name) for name in constants}):
            raise GraphError(f"the constants given are not the ones declared: {_difference(declared, given)}")
    except GraphError as error:
        raise FileFormatError(f"this graph can't be read: {error}") from None
    if isinstance(constants, StoredConstants):
        return replace(graph, constants=constants.ordered(declared))
    return replace(graph, constants={name: constants[name] for name in declared})


def _type_to_json(kind: TensorType) -> dict[str, Any]:
    return {"shape": list(kind.shape), "dtype": kind.dtype}


def _attributes_to_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_json(value) for name, value in attributes.items()}


def _node_to_json(node: Node) -> dict[str, Any]:
    epilogue = [{"op": step.op, "attributes": _attributes_to_json(step.attributes), "operand": step.operand}
                for step in node.epilogue]
    return {"name": node.name, "op": node.op, "inputs": list(node.inputs), **_type_to_json(node.type),
            "attributes": _attributes_to_json(node.attributes), "epilogue": epilogue, "origin": node.origin}


def _fields(data: Any, what: str, expected: Mapping[str, type | None]) -> dict[str, Any]:
    """``data`` as an object with exactly the ``expected`` fields, each of its type (``None``: any)."""
    if not isinstance(data, dict) or set(data) != set(expected):
        came = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise GraphError(f"{what} must be an object with the fields {', '.join(expected)}, got {came}")
    for name, kind in expected.items():
        if kind is not None and not isinstance(data[name], kind):
            raise GraphError(f"{what}: {name} must be a {kind.__name__}, got {type(data[name]).__name__}")
    return data


def _every(items: list[Any], accepts: Callable[[Any], bool], what: str) -> tuple[Any, ...]:
    if not all(map(accepts, items)):
        raise GraphError(f"{what}, got {reprlib.repr(items)}")
    return tuple(items)


def _names(items: list[Any], what: str) -> tuple[str, ...]:
    return _every(items, lambda item: isinstance(item, str), f"{what} must be names")


def _type_from_json(fields: Mapping[str, Any], what: str) -> TensorType:
    shape = _every(fields["shape"], lambda size: type(size) is int, f"{what}: the shape must be integers")
    return TensorType(shape, fields["dtype"])


def _typed_names(items: list[Any], what: str) -> dict[str, TensorType]:
    types: dict[str, TensorType] = {}
    for item in items:
        fields = _fields(item, f"one of {what}", {"name": str, "shape": list, "dtype": str})
        if fields["name"] in types:
            raise GraphError(f"{what}: the name {fields['name']!r} is given twice")
        types[fields["name"]] = _type_from_json(fields, fields["name"])
    return types


def _attributes_from_json(op: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of known names, in their Python form; the verifier checks what they hold."""
    known = attributes_of(op, data.get("function"))
    if unknown := [name for name in data if name not in known]:
        raise GraphError(f"{op}: unknown attribute {unknown[0]!r}")
    return {name: from_json(value, known[name].kind) for name, value in data.items()}


def _step_from_json(data: Any) -> Fused:
    fields = _fields(data, "a step of an epilogue", {"op": str, "attributes": dict, "operand": None})
    if fields["operand"] is not None and not isinstance(fields["operand"], str):
        raise GraphError(f"the operand of a step must be a name or null, got {reprlib.repr(fields['operand'])}")
    attributes = _attributes_from_json("activation", fields["attributes"]) if fields["attributes"] else {}
    return Fused(fields["op"], attributes, fields["operand"])


def _node_from_json(data: Any) -> Node:
    fields = _fields(data, "a node", {"name": str, "op": str, "inputs": list, "shape": list, "dtype": str,
                                      "attributes": dict, "epilogue": list, "origin": str})
    name, op = fields["name"], fields["op"]
    return Node(name, op, _names(fields["inputs"], f"{name}: inputs"), _type_from_json(fields, name),
                _attributes_from_json(op, fields["attributes"]),
                tuple(_step_from_json(step) for step in fields["epilogue"]), fields["origin"])


def _by_name(nodes: list[Node]) -> dict[str, Node]:
    named = {node.name: node for node in nodes}
    if len(named) < len(nodes):
        raise GraphError("two nodes have the same name")
    return named


def _difference(declared: Mapping[str, TensorType], given: Mapping[str, TensorType]) -> str:
    names = [name for name in sorted({*declared, *given}) if declared.get(name) != given.get(name)]
    return "; ".join(f"{name} is declared {declared.get(name)} and given {given.get(name)}" for name in names[:3])
