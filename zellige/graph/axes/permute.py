"""Permutations folded into constants: a graph of the same operators that computes the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zellige.graph.axes.groups import Axes
from zellige.graph.ir import Graph

Orders = Sequence[np.ndarray]
"""For every group, which unit is to stand where: a permutation of its units."""

Sources = dict[str, dict[tuple[int, ...], np.ndarray]]
"""For every constant that changes, and the dimensions over which it is flattened: from which line each line is to come."""


def sources(axes: Axes, orders: Orders, shapes: dict[str, tuple[int, ...]]) -> Sources:
    """Where the lines of each constant come from, if the groups' units stand in these orders."""
    found: Sources = {}
    for group, order in zip(axes.groups, orders, strict=True):
        if np.array_equal(order, np.arange(group.units)):
            continue
        for part in group.parts:
            of_constant = found.setdefault(part.constant, {})
            if part.dims not in of_constant:
                of_constant[part.dims] = np.arange(math.prod(shapes[part.constant][dim] for dim in part.dims))
            of_constant[part.dims][part.positions] = part.positions[order]
    return found


def permute_graph(graph: Graph, axes: Axes, orders: Orders) -> Graph:
    """The graph with its constants permuted: it computes the same, up to the order of additions."""
    shapes = {name: graph.type_of(name).shape for name in graph.constants}
    moved = sources(axes, orders, shapes)
    constants = {name: _moved(array, moved[name]) if name in moved else array for name, array in graph.constants.items()}
    return graph.with_nodes(graph, constants)


def _moved(array: np.ndarray, lines: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    """An array whose lines come from elsewhere; what rows do and what columns do doesn't get into each other's way."""
    for dims, source in lines.items():
        front = np.moveaxis(array, dims, range(len(dims)))
        taken = front.reshape(-1, *front.shape[len(dims):])[source].reshape(front.shape)
        array = np.moveaxis(taken, range(len(dims)), dims)
    return np.ascontiguousarray(array)
