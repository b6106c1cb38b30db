"""The Graph: a network as a list of operations in the order in which they run.

A graph is static single assignment: every node makes one value, and the value carries the node's name. Weights are
constants, named like the parameters of the model they came from. Shapes are fixed. What an operator means, which
attributes it takes and which shape it gives stands in ``operators.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zellige.errors import GraphError

Attribute = bool | int | float | str | tuple["Attribute", ...]


@dataclass(frozen=True)
class TensorType:
    """The shape and element type of a value.

    >>> print(TensorType((1, 64, 56, 56)))
    f32[1, 64, 56, 56]
    """

    shape: tuple[int, ...]
    dtype: str = "f32"

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Fused:
    """One step of an epilogue: what happens to a result before it is stored.

    ``op`` is ``"activation"`` (with ``attributes["function"]`` and its parameters) or ``"add"`` (``operand`` names the
    value, of the node's own shape, that is added).
    """

    op: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    operand: str | None = None

    def __str__(self) -> str:
        if self.operand is not None:
            return f"{self.op} {self.operand}"
        rest = [f"{key}={value}" for key, value in self.attributes.items() if key != "function"]
        return " ".join([str(self.attributes["function"]), *rest])


@dataclass(frozen=True)
class Node:
    """One operation: ``inputs`` name values or constants; ``origin`` is the module it came from, for messages."""

    name: str
    op: str
    inputs: tuple[str, ...]
    type: TensorType
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    epilogue: tuple[Fused, ...] = ()
    origin: str = ""

    @property
    def operands(self) -> tuple[str, ...]:
        """All names that the node reads: its inputs, then the operands of its epilogue."""
        return (*self.inputs, *(step.operand for step in self.epilogue if step.operand is not None))

    def __str__(self) -> str:
        attributes = "".join(f" {key}={_short(value)}" for key, value in self.attributes.items())
        epilogue = "".join(f" ▸ {step}" for step in self.epilogue)
        inputs = ", ".join(f"%{name}" for name in self.inputs)
        return f"%{self.name} = {self.op}({inputs}){attributes}{epilogue} : {self.type}"


class StoredConstants(Mapping[str, np.ndarray], ABC):
    """Constants that are kept in another form and made whenever one is asked for; their ``types`` are known without."""

    types: Mapping[str, TensorType]

    @abstractmethod
    def ordered(self, names: Iterable[str]) -> StoredConstants:
        """The same constants in the order of ``names``, which are all of them."""


@dataclass
class Graph:
    """A network: ``inputs`` and ``outputs`` are value names, ``nodes`` stand in execution order.

    ``input_tree`` and ``output_tree`` say how a call's arguments and results nest: a JSON value in which integers are
    positions in ``inputs`` or ``outputs``, lists and tuples are ``{"list": [...]}`` and ``{"tuple": [...]}``, dicts are
    ``{"dict": [[key, value], ...]}``, and an absent (``None``) output is ``null``. ``trees.py`` works on them.
    """

    name: str
    inputs: dict[str, TensorType]
    nodes: dict[str, Node]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    input_tree: Any = None
    output_tree: Any = None

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def type_of(self, name: str) -> TensorType:
        """The type of a value, an input or a constant."""
        if name in self.nodes:
            return self.nodes[name].type
        if name in self.inputs:
            return self.inputs[name]
        if isinstance(self.constants, StoredConstants) and name in self.constants.types:
            return self.constants.types[name]
        if name in self.constants:
            array = self.constants[name]
            return TensorType(tuple(array.shape), DTYPES.get(array.dtype.name, array.dtype.name))
        raise GraphError(f"graph {self.name}: no value, input or constant is called {name!r}")

    def consumers(self) -> dict[str, list[str]]:
        """For every name, the nodes that read it, in execution order (a node that reads it twice stands once)."""
        readers: dict[str, list[str]] = {name: [] for name in (*self.inputs, *self.constants, *self.nodes)}
        for node in self:
            for operand in dict.fromkeys(node.operands):
                readers[operand].append(node.name)
        return readers

    def with_nodes(self, nodes: Iterable[Node], constants: Mapping[str, np.ndarray] | None = None,
                   outputs: tuple[str, ...] | None = None) -> Graph:
        """The same network with other nodes (and constants, and outputs): passes never change a graph in place."""
        return replace(self, nodes={node.name: node for node in nodes},
                       constants=dict(self.constants if constants is None else constants),
                       outputs=self.outputs if outputs is None else outputs)

    def __str__(self) -> str:
        head = ", ".join(f"%{name}: {kind}" for name, kind in self.inputs.items())
        used = {operand for node in self for operand in node.operands}
        constants = [f"  constant %{name} : {self.type_of(name)}" for name in self.constants if name in used]
        lines = [f"  {node}" + (f"   # {node.origin}" if node.origin else "") for node in self]
        return "\n".join([f"graph {self.name}({head})", *constants, *lines,
                          f"  return {', '.join('%' + name for name in self.outputs)}"])


DTYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "bool": "bool"}


def _short(value: Attribute) -> str:
    return str(value).replace(" ", "") if isinstance(value, tuple) else str(value)
