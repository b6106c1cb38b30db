"""Channels in the order in which whole bands of rows vanish.

Kernels run bands of 8 neighbouring rows on the columns that any of these keeps. Tile-wise pruning takes rows wherever they stand,
and gives every tile of the rest a list of columns: nothing is saved by zeros in a band that has other rows beside them. Here
channels that may stand in any order (``graph/axes``) are ordered so that rows of like columns, and rows of none, are neighbours.
Consumers' columns move along, no operation is added, and the network computes what it did.

Orders are kept only where they pay: by the weights that bands would multiply, counted with the pixels that they meet. Where taps
are skipped together, that count must not rise; where lanes run over rows (few pixels), columns count as they are read, in runs.
Nor may they scatter the neighbours that an N:M pattern counts: reports would not find it, and a kernel for it would not either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zellige.graph.axes import AxisGroup, find_axes, permute_graph
from zellige.graph.ir import Graph, Node
from zellige.passes.pattern_names import few_of_many
from zellige.passes.sparsity import BAND_ROWS, BLOCK_COLUMNS, as_filters, band_rows

WORTH = 0.01  # of what a group's layers do, or channels stay where they are
FEW_PIXELS = 16  # below, lanes run over rows: weights are read in runs of columns, or one by one with an index each
MOST_COMPARED = 1 << 31  # channels × channels × columns that are told apart; beyond, channels are merely sorted


@dataclass(eq=False)
class _Layer:
    """Which weights of a layer are there: rows × columns × taps. ``filled`` changes as channels move."""

    filled: np.ndarray
    groups: int
    pixels: int

    def work(self) -> tuple[float, float]:
        """Weights × pixels that bands do: with taps skipped one by one (or by runs of columns), and all together."""
        first, count = band_rows(len(self.filled), self.groups, BAND_ROWS)
        kept = np.logical_or.reduceat(self.filled, first, axis=0)
        together = kept.any(2)
        all_taps = float(count @ together.sum(1)) * kept.shape[2] * self.pixels
        if self.pixels >= FEW_PIXELS or kept.shape[2] > 1:
            return float(count @ kept.sum((1, 2))) * self.pixels, all_taps
        runs = np.logical_or.reduceat(together, np.arange(0, together.shape[1], BLOCK_COLUMNS), axis=1)
        one_by_one, in_runs = together.sum() * (BAND_ROWS + 1), runs.sum() * (BAND_ROWS * BLOCK_COLUMNS + 1)
        return float(min(one_by_one, in_runs)) * self.pixels, all_taps

    def could_gain(self) -> bool:
        """Whether its rows, sorted by their columns, would make less work."""
        each = len(self.filled) // self.groups
        packed = np.packbits(self.filled.reshape(len(self.filled), -1), axis=1)
        ranks = np.unique(packed, axis=0, return_inverse=True)[1].ravel()
        order = np.concatenate([start + np.argsort(ranks[start:start + each], kind="stable")
                                for start in range(0, len(ranks), each)])
        return _pays(self.work(), _Layer(self.filled[order], self.groups, self.pixels).work())


def order_channels(graph: Graph) -> Graph:
    """The graph with its channels ordered so that bands of rows vanish; itself, if that would save nothing to speak of."""
    layers = _sparse_layers(graph)
    if not any(layer.could_gain() for layer in layers.values()):
        return graph
    axes = find_axes(graph)
    orders = [_order(group, layers) for group in axes.groups]
    if all(np.array_equal(order, np.arange(len(order))) for order in orders):
        return graph
    return permute_graph(graph, axes, orders)


def _sparse_layers(graph: Graph) -> dict[str, _Layer]:
    """The convolutions and linear layers that lack weights, by the names of these; the last reading of one counts."""
    found = {}
    for node in graph:
        if node.op in ("conv2d", "linear") and node.inputs[1] in graph.constants:
            weight = as_filters(np.asarray(graph.constants[node.inputs[1]]))
            if np.count_nonzero(weight) < weight.size:
                groups: Any = node.attributes.get("groups", 1)
                found[node.inputs[1]] = _Layer((weight != 0).reshape(*weight.shape[:2], -1), groups, _pixels(node))
    return found


def _pixels(node: Node) -> int:
    return node.type.elements // (node.type.shape[1] if node.op == "conv2d" else node.type.shape[-1])


def _order(group: AxisGroup, layers: Mapping[str, _Layer]) -> np.ndarray:
    """The order of a group's channels, which is then that of its layers, or where they stand now."""
    stay = np.arange(group.units)
    touched = {part.constant: layers[part.constant] for part in group.parts if part.constant in layers}
    rows = [(layers[part.constant], part.positions) for part in group.parts if part.constant in layers and part.dims == (0,)]
    if not rows:
        return stay
    before = [(layer, layer.filled, layer.work()) for layer in touched.values()]
    order = _by_likeness(rows)
    _move(group, layers, order)
    pays = _pays(_total([work for *_, work in before]), _total([layer.work() for layer in touched.values()]))
    if pays and not any(_counts_neighbours(filled) and not _counts_neighbours(layer.filled) for layer, filled, _ in before):
        return order
    for layer, filled, _ in before:
        layer.filled = filled
    return stay


def _counts_neighbours(filled: np.ndarray) -> bool:
    """Whether no row has more than n of every m neighbouring columns, and hardly fewer."""
    return few_of_many([np.moveaxis(filled, 1, 2)]) is not None


def _total(works: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(one for one, _ in works), sum(all_taps for _, all_taps in works)


def _pays(before: tuple[float, float], after: tuple[float, float]) -> bool:
    return after[0] < before[0] * (1 - WORTH) and after[1] <= before[1]


def _move(group: AxisGroup, layers: Mapping[str, _Layer], order: np.ndarray) -> None:
    """Moves the weights of a group's layers as ``permute_graph`` would."""
    for part in group.parts:
        if part.constant in layers:
            layer = layers[part.constant]
            flat = layer.filled.reshape(-1, *layer.filled.shape[2:]) if part.dims == (0, 1) else np.moveaxis(
                layer.filled, part.dims[0], 0)
            moved = flat.copy()
            moved[part.positions] = flat[part.positions[order]]
            layer.filled = moved.reshape(layer.filled.shape) if part.dims == (0, 1) else np.moveaxis(moved, 0, part.dims[0])


def _by_likeness(rows: Sequence[tuple[_Layer, np.ndarray]]) -> np.ndarray:
    """Channels in bands of those whose rows keep the same columns, in all layers; what is left over joins where it adds least."""
    patterns, weights = _patterns(rows)
    kinds, kind_of = np.unique(patterns, axis=0, return_inverse=True)
    of_kind: list[list[int]] = [np.flatnonzero(kind_of.ravel() == kind).tolist() for kind in range(len(kinds))]
    size = kinds @ weights
    order: list[int] = []
    for kind in np.argsort(-size, kind="stable"):
        whole = len(of_kind[kind]) // BAND_ROWS * BAND_ROWS
        order += of_kind[kind][:whole]
        of_kind[kind] = of_kind[kind][whole:]
    left = np.array(list(map(len, of_kind)))
    if len(kinds) * int(left.sum()) * len(weights) > MOST_COMPARED:
        return np.array([*order, *(channel for kind in np.argsort(-size, kind="stable") for channel in of_kind[kind])])
    filled = kinds.astype(np.float32)
    while left.any():
        union = np.zeros(len(weights), bool)
        for _ in range(min(BAND_ROWS, int(left.sum()))):
            added = filled @ np.where(union, 0, weights).astype(np.float32) if union.any() else -size
            added = np.where(left > 0, added, np.inf)
            best = np.flatnonzero(added == added.min())
            kind = int(best[np.argmax(size[best])])
            order.append(of_kind[kind].pop(0))
            left[kind] -= 1
            union |= kinds[kind]
    return np.array(order)


def _patterns(rows: Sequence[tuple[_Layer, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Which columns every channel's rows keep: channels × columns, and what a column is worth. Columns of a kind are one."""
    found, weights = [], []
    for layer, positions in rows:
        for row in positions.T:
            columns = layer.filled[row].reshape(len(row), -1).T
            _, example, count = np.unique(np.packbits(columns, axis=1), axis=0, return_index=True, return_counts=True)
            found.append(columns[example].T)
            weights.append(count * float(layer.pixels))
    return np.concatenate(found, 1), np.concatenate(weights)
