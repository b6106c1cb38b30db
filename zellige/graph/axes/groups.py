"""Groups: channels that may change places with one another, and every line of a constant that moves with them. Plain data.

The same reading of a network stands behind filter pruning along residual branches and behind permutations for N:M sparsity (Pool
and Yu, NeurIPS 2021): producers, consumers, normalisations and residual branches share an axis.

A walk through the graph says which outputs of layers are one unit; it is repeated until it learns nothing new. Units then form a
group if they have the same parts in the same constants and every operator treats them alike. Any permutation of a group's units,
applied to all of its parts, leaves what the network computes as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zellige.errors import GraphError
from zellige.graph.axes.labels import Labels
from zellige.graph.axes.rules import visit
from zellige.graph.axes.units import Units
from zellige.graph.axes.walk import Tag, Walk
from zellige.graph.ir import Graph

MOST_WALKS = 64
ALONE = "no other channel is used in the same way"
UNMADE = "reads an input of the network, or what has no channels"


@dataclass(frozen=True, eq=False)
class Part:
    """The lines of a constant that belong to a group's units.

    The k-th line of unit i is number ``positions[i, k]`` of the constant flattened over ``dims``: rows (``dims`` = 0), columns (1),
    or columns of each row apart (0 and 1), as grouped convolutions have them.
    """

    constant: str
    dims: tuple[int, ...]
    positions: np.ndarray


@dataclass(frozen=True, eq=False)
class AxisGroup:
    """Units that may stand in any order, and all that moves with them."""

    units: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class FixedLines:
    """So many lines of a weight, of ``of``, that can't be permuted, and why. ``axis`` is 0 for rows, 1 for columns."""

    constant: str
    axis: int
    lines: int
    of: int
    reason: str


@dataclass(frozen=True, eq=False)
class Axes:
    """All groups of a graph, in the order of its layers, and the lines of its weights that are in none."""

    groups: tuple[AxisGroup, ...]
    fixed: tuple[FixedLines, ...]


def find_axes(graph: Graph, fixed: Mapping[str, str] | None = None, same: Mapping[str, str] | None = None) -> Axes:
    """The groups of a graph, and what can't be permuted.

    ``fixed`` names constants that must stay as they are, with the reason. ``same`` maps names to another constant's, where two
    constants are the same numbers in memory; groups name the latter.
    """
    units = Units()
    for _ in range(MOST_WALKS):
        units.changed = False
        walk = Walk(graph, units, fixed or {}, same or {})
        for node in graph:
            visit(walk, node)
        for name in graph.outputs:
            walk.freeze(walk.layers(name), "an output of the network")
        walk.settle_constants()
        if not units.changed:
            return _collect(walk)
    raise GraphError(f"graph {graph.name}: its axes are not settled after {MOST_WALKS} walks")


def _collect(walk: Walk) -> Axes:
    """Units that are used alike, by the time that nothing changes any more."""
    uses: dict[int, list[object]] = defaultdict(list)
    for tag in walk.tags:
        for unit, key in _per_unit(walk, tag).items():
            uses[unit].append((tag.node, key))
    lines: dict[tuple[str, tuple[int, ...]], dict[int, np.ndarray]] = {}
    for name, readings in walk.readings.items():
        for dims, labels in readings[0].items():
            lines[name, dims], places = _lines(walk, labels)
            for unit, key in places.items():
                uses[unit].append((name, dims, key))
    alike: dict[object, list[int]] = defaultdict(list)
    for unit in sorted(uses):
        if walk.units.reason(unit) is None:
            alike[tuple(uses[unit])].append(unit)
    groups = tuple(group for members in alike.values() if len(members) > 1 and (group := _group(members, lines)).parts)
    free = {unit for members in alike.values() if len(members) > 1 for unit in members}
    return Axes(groups, tuple(_fixed(walk, free)))


def _group(members: list[int], lines: Mapping[tuple[str, tuple[int, ...]], Mapping[int, np.ndarray]]) -> AxisGroup:
    parts = (Part(name, dims, np.stack([of_unit[unit] for unit in members]))
             for (name, dims), of_unit in lines.items() if members[0] in of_unit)
    return AxisGroup(len(members), tuple(parts))


def _lines(walk: Walk, labels: Labels) -> tuple[dict[int, np.ndarray], dict[int, bytes]]:
    """Of every unit: the lines of a constant, by place; and the places."""
    unit, place = walk.units.find(labels.unit.ravel()), labels.place.ravel()
    found, places = {}, {}
    for chosen in _runs(unit, place):
        found[int(unit[chosen[0]])] = chosen
        places[int(unit[chosen[0]])] = place[chosen].tobytes()
    return found, places


def _per_unit(walk: Walk, tag: Tag) -> dict[int, bytes]:
    """What a tag says of every unit."""
    unit, place, mark = walk.units.find(tag.unit.ravel()), tag.place.ravel(), tag.mark.ravel()
    return {int(unit[chosen[0]]): place[chosen].tobytes() + mark[chosen].tobytes() for chosen in _runs(unit, place, mark)}


def _runs(unit: np.ndarray, *keys: np.ndarray) -> Iterator[np.ndarray]:
    """The positions of every unit, in the order of the keys."""
    order = np.lexsort((*reversed(keys), unit))
    yield from np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)


def _fixed(walk: Walk, free: set[int]) -> Iterator[FixedLines]:
    """Rows and columns of convolutions and linear layers that are in no group; depthwise ones have no columns."""
    weights = {node.inputs[1]: node for node in walk.graph if node.op in ("conv2d", "linear") and walk.is_constant(node.inputs[1])}
    for weight, node in weights.items():
        groups: Any = node.attributes.get("groups", 1)
        rows, columns = walk.shape(weight)[:2]
        for axis, count in ((0, rows), (1, columns * groups)):
            if axis == 0 or columns > 1 or groups == 1:
                for reason, lines in _reasons(walk, weight, axis, count, free).items():
                    yield FixedLines(weight, axis, lines, count, reason)


def _reasons(walk: Walk, weight: str, axis: int, count: int, free: set[int]) -> dict[str, int]:
    """How many of the lines can't move, by reason. Columns of a grouped convolution are those of all groups."""
    reading = walk.reading(weight)
    if reading is None:
        return {}
    labels = next((labels for dims, labels in reading.items() if dims[-1] == axis), None)
    if labels is None:
        return {UNMADE: count}
    reasons: dict[str, int] = defaultdict(int)
    for unit in walk.units.find(labels.unit).ravel().tolist():
        if unit not in free:
            reasons[walk.units.reason(unit) or ALONE] += 1
    repeats = labels.unit.size // count  # a column stands in every row of its group
    return {reason: lines // repeats for reason, lines in reasons.items()}
