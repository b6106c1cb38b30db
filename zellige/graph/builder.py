"""The builder: makes a graph node by node, names what it makes, and keeps the constants. What every way in writes to.

A value of the graph is its name, a word; a constant is a ``Constant`` until a node reads it, so that unused ones never
enter the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zellige.errors import UnsupportedModelError
from zellige.graph.ir import Graph, Node, TensorType
from zellige.graph.operators import make_node
from zellige.graph.verify import verify_graph


@dataclass(frozen=True)
class Constant:
    """Numbers known before the network runs; ``name`` is the parameter's, or ``None`` if they were computed. ``sources`` are the
    parameters, by name, that they are or were computed from.
    """

    array: np.ndarray
    name: str | None = None
    sources: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def computed(self, array: np.ndarray) -> Constant:
        """Numbers that were computed from these."""
        return Constant(array, sources=self.sources)


Value = str | Constant
Operand = Value | float | None

NAMED_BY_WEIGHT = ("conv2d", "linear", "batch_norm")
"""Operators that take the name of the module whose ``weight`` they use, even if the module does more."""


class GraphBuilder:
    """``module`` is the path of the module that is being translated; a ``leaf`` gives its own name to its one node. ``sources``
    says of each constant which parameters it comes from.
    """

    def __init__(self, name: str, inputs: dict[str, TensorType], reserved: Iterable[str] = ()) -> None:
        self.name = name
        self.inputs = inputs
        self.nodes: dict[str, Node] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.sources: dict[str, frozenset[str]] = {}
        self.module = ""
        self.leaf = False
        self._taken = {*inputs, *reserved}
        self._computed: dict[int, tuple[Constant, str]] = {}

    def shape(self, value: Value) -> tuple[int, ...]:
        return value.shape if isinstance(value, Constant) else self.type_of(value).shape

    def type_of(self, name: str) -> TensorType:
        return self.nodes[name].type if name in self.nodes else self.inputs[name]

    def emit(self, op: str, *operands: Operand, **attributes: Any) -> str:
        """A node that bears the name of what is being translated; operands that are ``None`` are left out."""
        return self._add(self._main_name(op, operands, attributes), op, operands, attributes)

    def step(self, op: str, *operands: Operand, **attributes: Any) -> str:
        """A node on the way to the one that bears the name."""
        return self._add(self._path(attributes.get("function", op)), op, operands, attributes)

    def reshape(self, value: Value, shape: Sequence[int], main: bool = False) -> Value:
        """``value`` in another shape; no node if it has that shape already."""
        shape = tuple(shape)
        if self.shape(value) == shape:
            return value
        if isinstance(value, Constant):
            return value.computed(value.array.reshape(shape))
        return (self.emit if main else self.step)("reshape", value, shape=shape)

    def stand_in(self, shape: tuple[int, ...]) -> str:
        """A value of a given shape that nothing makes: for a graph that will be refused, never finished."""
        name = self._unique("stand_in")
        self.inputs[name] = TensorType(shape)
        return name

    def finish(self, outputs: Sequence[Value], input_tree: Any, output_tree: Any) -> Graph:
        """The graph, verified. An output that is no node (an input, a constant) becomes one."""
        self.module, self.leaf = "", False
        names = tuple(value if isinstance(value, str) and value in self.nodes
                      else self._add("output", "reshape", (value,), {"shape": self.shape(value)})
                      for value in outputs)
        graph = Graph(self.name, self.inputs, self.nodes, names, self.constants, input_tree, output_tree)
        verify_graph(graph)
        return graph

    def _path(self, last: str) -> str:
        return f"{self.module}.{last}" if self.module else last

    def _main_name(self, op: str, operands: Sequence[Operand], attributes: dict[str, Any]) -> str:
        weight = operands[1].name if len(operands) > 1 and isinstance(operands[1], Constant) else None
        named = self.leaf or (op in NAMED_BY_WEIGHT and weight == f"{self.module}.weight")
        return self.module if named and self.module else self._path(attributes.get("function", op))

    def _unique(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate)
        return candidate

    def _add(self, name: str, op: str, operands: Sequence[Operand], attributes: dict[str, Any]) -> str:
        name = self._unique(name)
        names = [self._operand(operand, f"{name}.{_role(op, position)}")
                 for position, operand in enumerate(operands) if operand is not None]
        types = [self.type_of(n) if n not in self.constants else TensorType(tuple(self.constants[n].shape))
                 for n in names]
        self.nodes[name] = make_node(name, op, names, types, attributes, origin=self.module)
        return name

    def _operand(self, operand: Operand, wanted: str) -> str:
        """The name of an operand in the graph; a constant enters it here, as float32, finite."""
        if isinstance(operand, str):
            return operand
        constant = operand if isinstance(operand, Constant) else Constant(np.asarray(operand, dtype=np.float32))
        if constant.name is not None:
            name = constant.name
        elif id(constant) in self._computed:
            name = self._computed[id(constant)][1]
        else:
            name = self._unique(wanted)
            self._computed[id(constant)] = (constant, name)
        if name not in self.constants:
            self.constants[name] = np.array(constant.array, dtype=np.float32, order="C")
            check_finite(self.constants[name], name)
            self.sources[name] = constant.sources
        return name


def check_finite(array: np.ndarray, name: str) -> None:
    """Refuse NaN and infinities among the constants: the model would compute nothing of use with them."""
    if not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise UnsupportedModelError(f"{name} holds {bad} values that are NaN or infinite, of {array.size}; "
                                    "a compiled network needs finite weights")


def _role(op: str, position: int) -> str:
    """What a computed operand is called after: the part that it plays."""
    roles = {"conv2d": ("input", "weight", "bias"), "linear": ("input", "weight", "bias"),
             "batch_norm": ("input", "weight", "bias", "mean", "variance"), "prelu": ("input", "slope")}
    return roles[op][position] if op in roles else "constant"


def filled(shape: Sequence[int], value: float) -> Constant:
    """A constant of equal numbers."""
    return Constant(np.full(tuple(shape), value, dtype=np.float32))
