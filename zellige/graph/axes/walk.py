"""The walk through a graph: every value gets labels, and what operators demand of them is noted.

A value has several layers of labels where several of its dimensions are channels, such as tokens that were mixed and features. No
two layers of a value vary along the same dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zellige.graph.axes.labels import Labels
from zellige.graph.axes.units import Units
from zellige.graph.ir import Graph

Layers = tuple[Labels, ...]
Reading = dict[tuple[int, ...], Labels]
"""How a node reads a constant: labels by the dimensions of the constant along which they vary."""


@dataclass(frozen=True, eq=False)
class Tag:
    """Something that an operator knows a unit by, beside the constants that it has a part in: units that are told apart by a tag
    can't stand in for one another. Three arrays of one shape.
    """

    node: str
    unit: np.ndarray
    place: np.ndarray
    mark: np.ndarray


class Walk:
    """One pass over a graph. ``fixed`` names constants that can't be changed and why, ``same`` those that are one with another."""

    def __init__(self, graph: Graph, units: Units, fixed: Mapping[str, str], same: Mapping[str, str]) -> None:
        self.graph, self.units = graph, units
        self.values: dict[str, Layers] = dict.fromkeys(graph.inputs, ())
        self.readings: dict[str, list[Reading]] = {}
        self.tags: list[Tag] = []
        self._fixed, self._same = fixed, same
        self._uniform: dict[str, bool] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.type_of(name).shape

    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants

    def layers(self, name: str) -> Layers:
        return self.values.get(name, ())

    def freeze(self, layers: Iterable[Labels], reason: str) -> None:
        for labels in layers:
            self.units.freeze(labels.unit, reason)

    def tag(self, node: str, labels: Labels, mark: np.ndarray | int = 0) -> None:
        """Units differ if their places, or the marks at their places, do."""
        self.tags.append(Tag(node, labels.unit, labels.place, np.broadcast_to(mark, labels.unit.shape)))

    def unite(self, node: str, one: Labels, other: Labels) -> None:
        """Where two labels meet, units are one; which places meet must be alike for all that are to stand in for one another."""
        self.units.unite(one.unit, other.unit)
        self.tag(node, one, other.place)

    def read(self, name: str, reading: Reading) -> None:
        """Notes how a node reads a constant. One whose elements are all equal is the same in any order."""
        if name not in self._uniform:
            array = self.graph.constants[name]
            self._uniform[name] = bool(array.size == 0 or array.min() == array.max())
        if self._uniform[name]:
            return
        if name in self._fixed:
            self.freeze(reading.values(), f"{name} can't be permuted: {self._fixed[name]}")
        self.readings.setdefault(self._same.get(name, name), []).append(reading)

    def reading(self, name: str) -> Reading | None:
        """How a constant is read; None if nobody minds its order."""
        readings = self.readings.get(self._same.get(name, name))
        return readings[0] if readings else None

    def settle_constants(self) -> None:
        """A constant that is read several times must be permuted alike for all readers."""
        for name, readings in self.readings.items():
            first = readings[0]
            for other in readings[1:]:
                if first.keys() != other.keys():
                    reason = f"{name} is read several times, and not with the same channels each time"
                    self.freeze((*first.values(), *other.values()), reason)
                    continue
                for dims, labels in first.items():
                    self.unite(name, labels, other[dims])


@dataclass(frozen=True, eq=False)
class Operand:
    """What meets others element by element: ``at`` says at which of the result's dimensions its own stand."""

    name: str
    at: tuple[int, ...]
    layers: Layers

    def lifted(self, rank: int) -> list[Labels]:
        """Its labels in the rank of the result."""
        found = []
        for labels in self.layers:
            sizes = [1] * rank
            for dim, size in zip(self.at, labels.unit.shape, strict=True):
                sizes[dim] = size
            found.append(labels.reshaped(sizes))
        return found


def vectors(names: Sequence[str], at: int) -> list[Operand]:
    """Constants that stand along one dimension of the result."""
    return [Operand(name, (at,), ()) for name in names]


def broadcast_operands(walk: Walk, names: Sequence[str], rank: int) -> list[Operand]:
    """Operands as numpy broadcasts them: their last dimensions stand at the result's last."""
    return [Operand(name, tuple(range(rank - len(walk.shape(name)), rank)), walk.layers(name)) for name in names]


def meet(walk: Walk, node: str, rank: int, operands: Sequence[Operand], layers: Layers = ()) -> Layers:
    """The layers of a result whose elements are made of the operands', one by one, and of a value of its shape with ``layers``.

    Units that meet are one. An operand without channels there holds units where they are, unless it is the same for all of them;
    a constant moves with them.
    """
    met, own = list(layers), {}
    for operand in operands:
        lifted = operand.lifted(rank)
        own[operand] = {labels.dims for labels in lifted}
        for labels in lifted:
            _join(walk, node, met, labels)
    for operand in operands:
        wide = {dim for dim, size in zip(operand.at, walk.shape(operand.name), strict=True) if size > 1}
        reading: Reading = {}
        for labels in met:
            shared = tuple(dim for dim in labels.dims if dim in wide)
            if not shared or labels.dims in own[operand]:
                continue
            if shared != labels.dims:
                walk.tag(node, labels, labels.coordinates(shared))
            elif walk.is_constant(operand.name):
                lowered = labels.reshaped([labels.unit.shape[dim] for dim in operand.at])
                reading[lowered.dims] = lowered
            else:
                walk.freeze((labels,), f"meets {operand.name}, which has no channels that could move along")
        if walk.is_constant(operand.name):
            walk.read(operand.name, reading)
    return tuple(met)


def _join(walk: Walk, node: str, met: list[Labels], labels: Labels) -> None:
    """Adds a layer to those that met already, or unites it with the one along its dimensions."""
    for other in met:
        if other.dims == labels.dims:
            walk.unite(node, other, labels)
            return
    clashing = [other for other in met if set(other.dims) & set(labels.dims)]
    if clashing:
        walk.freeze((*clashing, labels), f"channels meet along different dimensions in {node}")
    else:
        met.append(labels)
