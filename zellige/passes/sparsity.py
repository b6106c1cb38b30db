"""Sparsity found in the weights themselves: any tool may have made the zeros.

A kernel skips whole units: a block of 8×8 channels with all its taps, or one input column of a *band*, a group of
output rows that share one list of input columns. `band_columns` makes these lists; `find_sparsity` says for every layer
how much is left at each unit that a kernel can skip. Nothing here changes a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zellige.errors import GraphError
from zellige.graph.ir import Graph
from zellige.passes.pattern_names import pattern_name

BAND_ROWS = 8
BLOCK_COLUMNS = 8

WORTH_A_WORD = 0.05  # share of a layer's weights


@dataclass(frozen=True)
class LayerSparsity:
    """What is left of one layer's weight, as the share of its multiplications that remain when a kernel skips by
    single elements, by 8×8 blocks, or by input columns of a band of 8 rows; with all taps of a filter together, or each
    tap by itself.
    """

    shape: tuple[int, ...]
    groups: int
    elements: float
    blocks: float
    blocks_per_tap: float
    columns: float
    columns_per_tap: float
    pattern: str

    def unused_zeros(self, density: float) -> str:
        """What to add to a reason where a kernel that does the share ``density`` of the multiplications can't use the zeros; empty
        where it uses them, or there are hardly any."""
        if density - self.elements < WORTH_A_WORD:
            return ""
        zeros = f"{1 - self.elements:.0%} zeros ({self.pattern})"
        if density > 1 - WORTH_A_WORD:
            return f"; no gain expected from {zeros}: hardly a column of {BAND_ROWS} rows is free of weights"
        return f"; {zeros}, but only {1 - density:.0%} of the work can be skipped"


@dataclass(frozen=True, eq=False)
class Bands:
    """The kept columns of every band of a weight, as flat arrays.

    Band ``b`` makes the output rows ``first_row[b] … first_row[b] + rows[b] - 1``. Its columns are entries
    ``start[b] … start[b + 1] - 1`` of ``channel`` (absolute input channel) and ``tap`` (``ky * kw + kx``), channel
    first, then tap. Its weights begin at ``values[value_start[b]]``, as [columns][rows]: the weights of one column for
    all rows of the band lie together.
    """

    first_row: np.ndarray
    rows: np.ndarray
    start: np.ndarray
    channel: np.ndarray
    tap: np.ndarray
    value_start: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.first_row)

    def weights(self, band: int) -> np.ndarray:
        """The weights of one band, columns × rows."""
        return self.values[self.value_start[band]:self.value_start[band + 1]].reshape(-1, self.rows[band])

    @property
    def kept(self) -> int:
        """The number of weights stored."""
        return int(self.value_start[-1])


def as_filters(weight: np.ndarray) -> np.ndarray:
    """A weight as Cout × Cin/groups × kh × kw: a linear layer's is a convolution's with one tap."""
    if weight.ndim not in (2, 4):
        raise GraphError(f"a weight has 2 dimensions (linear) or 4 (convolution), this one has shape {weight.shape}")
    return weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight


def band_rows(outputs: int, groups: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """First row and row count of every band. Bands never cross groups; the last one of a group may be short.

    >>> first, count = band_rows(outputs=24, groups=2, rows=8)
    >>> first.tolist(), count.tolist()
    ([0, 8, 12, 20], [8, 4, 8, 4])
    """
    if rows < 1 or groups < 1 or outputs % groups:
        raise GraphError(f"bands of {rows} rows can't be cut from {outputs} outputs in {groups} groups: rows and "
                         "groups must be positive, and the groups must divide the outputs")
    each = outputs // groups
    inside = np.arange(0, each, rows)
    first = (np.arange(groups)[:, None] * each + inside).ravel()
    count = np.tile(np.minimum(rows, each - inside), groups)
    return first, count


def kept_columns(weight: np.ndarray, groups: int = 1, rows: int = BAND_ROWS) -> np.ndarray:
    """Which columns of each band hold any weight that is not zero: bands × (Cin/groups × taps), bool.

    >>> kept_columns(np.eye(4, dtype=np.float32), rows=2).astype(int)
    array([[1, 1, 0, 0],
           [0, 0, 1, 1]])
    """
    filters = as_filters(weight)
    first, _ = band_rows(len(filters), groups, rows)
    nonzero = (filters != 0).reshape(len(filters), -1)
    return np.logical_or.reduceat(nonzero, first, axis=0)


def band_columns(weight: np.ndarray, groups: int = 1, rows: int = BAND_ROWS) -> Bands:
    """The lists that a band-sparse kernel runs, for a weight of Cout × Cin/groups [× kh × kw]."""
    filters = as_filters(weight)
    outputs, inputs, height, width = filters.shape
    taps = height * width
    first, count = band_rows(outputs, groups, rows)
    kept = kept_columns(filters, groups, rows)
    band, column = np.nonzero(kept)
    columns = np.count_nonzero(kept, axis=1)
    start = np.concatenate([[0], np.cumsum(columns)])
    value_start = np.concatenate([[0], np.cumsum(columns * count)])
    group = first // (outputs // groups)
    return Bands(first_row=first.astype(np.int32), rows=count.astype(np.int32), start=start,
                 channel=(group[band] * inputs + column // taps).astype(np.int32), tap=(column % taps).astype(np.int32),
                 value_start=value_start,
                 values=_gather(filters.reshape(outputs, -1), first, count, band, column, start, value_start))


def _gather(matrix: np.ndarray, first: np.ndarray, count: np.ndarray, band: np.ndarray, column: np.ndarray,
            start: np.ndarray, value_start: np.ndarray) -> np.ndarray:
    """The kept weights in band order. Bands have at most two heights, full and last of a group: one gather for each."""
    heights = sorted(set(count.tolist()))  # not np.unique, which loads numpy.ma: a megabyte and a half
    if len(heights) == 1:
        return matrix.reshape(len(first), heights[0], -1)[band, :, column].astype(np.float32, copy=False).ravel()
    values = np.empty(value_start[-1], dtype=np.float32)
    for height in heights:
        bands = np.flatnonzero(count == height)
        chosen = np.flatnonzero(count[band] == height)
        stacked = matrix[first[bands][:, None] + np.arange(height)]
        position = value_start[band[chosen]] + (chosen - start[band[chosen]]) * height
        values[position[:, None] + np.arange(height)] = stacked[np.searchsorted(bands, band[chosen]), :, column[chosen]]
    return values


def layer_sparsity(weight: np.ndarray, groups: int = 1) -> LayerSparsity:
    """What each granularity could skip in one weight.

    >>> weight = np.ones((16, 16), dtype=np.float32)
    >>> weight[:8, :8] = 0
    >>> layer_sparsity(weight).pattern, layer_sparsity(weight).blocks
    ('8x8 blocks', 0.75)
    """
    filters = as_filters(weight)
    inputs = filters.shape[1]
    _, count = band_rows(len(filters), groups, BAND_ROWS)
    per_tap = kept_columns(filters, groups).reshape(len(count), inputs, -1)
    all_taps = per_tap.any(axis=2)
    left = np.arange(0, inputs, BLOCK_COLUMNS)
    width = np.minimum(BLOCK_COLUMNS, inputs - left)
    rows = count / len(filters)                       # a short band or a narrow block counts by the work it holds
    blocks_per_tap = np.logical_or.reduceat(per_tap, left, axis=1)
    blocks = blocks_per_tap.any(axis=2)
    density = {
        "elements": np.count_nonzero(filters) / filters.size,
        "blocks": rows @ blocks @ (width / inputs),
        "blocks_per_tap": rows @ blocks_per_tap.mean(axis=2) @ (width / inputs),
        "columns": rows @ all_taps.mean(axis=1),
        "columns_per_tap": rows @ per_tap.mean(axis=(1, 2)),
    }
    density = {unit: float(share) for unit, share in density.items()}
    return LayerSparsity(shape=tuple(weight.shape), groups=groups, pattern=pattern_name(filters, groups, density), **density)


def find_sparsity(graph: Graph) -> dict[str, LayerSparsity]:
    """The sparsity of every conv2d and linear whose weight is a constant, by the name of its node."""
    found = {}
    for node in graph:
        if node.op in ("conv2d", "linear") and node.inputs[1] in graph.constants:
            groups: Any = node.attributes.get("groups", 1)
            found[node.name] = layer_sparsity(graph.constants[node.inputs[1]], groups)
    return found
