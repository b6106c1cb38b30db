"""The quantised graph: a network whose values are int8, and what each of its operations does in integers.

Every value has one ``scale``, the real number that a step stands for, and no zero point: zero is zero. Operators and their
attributes are those of ``operators.py``, except for

- ``scale_shift``, a product with one weight per channel; ``activation``, a clamp; ``table``, a function of one value, looked up;
- ``pad``, whose ``value`` is in steps.

What a node computes, in ``quantized_reference.py`` bit for bit:

1. **terms**, int32: for products (``weight``) the sum of weights times inputs plus ``bias``, then the other inputs as they are,
   which are added; for ``add`` and ``subtract`` both inputs; for ``multiply`` their product; for averages and sums the sum over
   the window;
2. **rescaling** (``fixed_point.Rescale``): one rounding, halves up. Nodes without one move values that have one scale;
3. **saturation** to ``low`` … ``high``, which holds an activation function of straight pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zellige.graph.fixed_point import LEAST, MOST, Rescale
from zellige.graph.ir import Attribute, Node


@dataclass(frozen=True, eq=False)
class QuantizedNode:
    """One operation on int8 values.

    ``inputs`` name values and constants, all int8. ``weight`` is int8 in the shape of the operator's, ``bias`` int32 (zeros where
    the layer had none), in steps of the accumulators. ``weight_scale`` has the real number of a step of every row of the weight.
    ``table`` has the result for −128 … 127: 256 numbers, or one row of them for each channel.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    weight_scale: np.ndarray | None = None
    rescale: Rescale | None = None
    table: np.ndarray | None = None
    low: int = LEAST
    high: int = MOST
    origin: str = ""

    def __str__(self) -> str:
        attributes = "".join(f" {key}={value}".replace(", ", ",") for key, value in self.attributes.items())
        shift = "" if self.rescale is None else f" ▸ {_factors(self.rescale)}"
        clamp = "" if (self.low, self.high) == (LEAST, MOST) else f" ▸ {self.low}…{self.high}"
        inputs = ", ".join(f"%{name}" for name in self.inputs)
        return f"%{self.name} = {self.op}({inputs}){attributes}{shift}{clamp} : i8[{', '.join(map(str, self.shape))}]"


def _factors(rescale: Rescale) -> str:
    """A rescaling in a few words: ranges where channels differ."""
    words = [_range(multiplier) for multiplier in rescale.multipliers]
    product = "" if words == ["1"] else f"·({', '.join(words)}) "
    return f"{product}>>{_range(rescale.shift)}"


def _range(numbers: np.ndarray) -> str:
    least, most = int(numbers.min()), int(numbers.max())
    return str(least) if least == most else f"{least}…{most}"


@dataclass
class QuantizedGraph:
    """A network in int8: ``nodes`` in execution order, ``constants`` int8, ``scales`` the real number of one step of every value,
    input and constant.

    ``tail`` are operations of the float graph that end it (softmax): they read values in real numbers, and are outputs.
    ``input_tree`` and ``output_tree`` are those of the float graph.
    """

    name: str
    inputs: dict[str, tuple[int, ...]]
    nodes: dict[str, QuantizedNode]
    outputs: tuple[str, ...]
    scales: Mapping[str, float]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    tail: Mapping[str, Node] = field(default_factory=dict)
    input_tree: Any = None
    output_tree: Any = None

    def __iter__(self) -> Iterator[QuantizedNode]:
        return iter(self.nodes.values())

    def __str__(self) -> str:
        head = ", ".join(f"%{name}: i8[{', '.join(map(str, shape))}] × {self.scales[name]:.6g}"
                         for name, shape in self.inputs.items())
        lines = [f"  {node} × {self.scales[node.name]:.6g}" + (f"   # {node.origin}" if node.origin else "") for node in self]
        return "\n".join([f"quantized graph {self.name}({head})", *lines, *(f"  {node}" for node in self.tail.values()),
                          f"  return {', '.join('%' + name for name in self.outputs)}"])
