"""A weight's magnitudes as a search for permutations sees them: sums of its lines over the pieces that a pattern cuts.

Lines are rows (axis 0) or columns (axis 1). Pieces of rows are bands, pieces of columns are runs; a block is where a band and
a run meet, at each tap by itself where taps have blocks of their own. An order says which line stands at which place; its last
piece is shorter where a length doesn't divide the lines.

Magnitudes are held twice, by rows and by columns, as float32 in units of their mean, and sums of the lines of one axis over the
pieces of the other are made of them whenever an order has changed. A very large weight is not copied but read again, some rows at
a time. Lines are added one after the other, each as a whole, so sums don't depend on threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from zellige.patterns.shape import WeightShape
from zellige.patterns.shares import floor_share
from zellige.patterns.sums import SLAB, tree_sum

READ_AGAIN = 1 << 27  # more magnitudes than these are not copied

Orders = tuple[torch.Tensor, torch.Tensor]
"""Rows and columns, by number, in the order in which they are to stand."""


@dataclass(frozen=True)
class Cut:
    """How a pattern cuts a weight: the lengths of bands and of runs, and whether taps have blocks of their own."""

    band: int
    run: int
    per_tap: bool


class Grid:
    """The blocks of a weight, whose mean magnitude is ``unit``, under any order of its lines, at one sparsity."""

    def __init__(self, weight: torch.Tensor, unit: float, cut: Cut, sparsity: Fraction) -> None:
        shape = WeightShape(tuple(weight.shape))
        self.lines = (shape.rows, shape.columns)
        self.lengths = (min(cut.band, shape.rows), min(cut.run, shape.columns))
        self.pieces = (-(-shape.rows // self.lengths[0]), -(-shape.columns // self.lengths[1]))
        self.axes = tuple(axis for axis in (0, 1) if self.lengths[axis] > 1 and self.pieces[axis] > 1)
        """Those along which it matters where a line stands."""
        self._unit, self.taps = unit, shape.taps if cut.per_tap else 1
        self._weight = weight.reshape(shape.rows, shape.columns, -1)
        self._copies: tuple[torch.Tensor, torch.Tensor] | None = None
        self.numbers = shape.rows * shape.columns * self.taps
        if self.numbers <= READ_AGAIN:
            rows = torch.cat(list(self._slabs(1)))
            self._copies = rows, rows.transpose(0, 1).contiguous()
        self.removed = floor_share(sparsity, self.pieces[0] * self.pieces[1] * self.taps)
        """How many blocks go."""

    def identity(self) -> Orders:
        """All lines where they are."""
        return torch.arange(self.lines[0]), torch.arange(self.lines[1])

    def by_mass(self) -> Orders:
        """Lines of great magnitude first, so that the lightest are in a short last piece; among equals, those of lower number."""
        rows = torch.cat([tree_sum(tree_sum(slab, 2), 1) for slab in self._slabs(1)])
        columns = sum(tree_sum(tree_sum(slab, 2), 0).double() for slab in self._slabs(1))
        assert isinstance(columns, torch.Tensor)
        return torch.argsort(-rows, stable=True), torch.argsort(-columns, stable=True)

    def sums(self, axis: int, orders: Orders) -> torch.Tensor:
        """Every line of this axis, by number, summed over the other axis's pieces: lines × (pieces · taps), float32."""
        other = 1 - axis
        if self._copies is not None:
            parts = [_added(self._copies[other], orders[other], self.lengths[other])]
        elif axis == 0:
            parts = [_added(slab.transpose(0, 1), orders[1], self.lengths[1]) for slab in self._slabs(1)]
        else:
            parts = [_added(slab, torch.arange(len(slab)), self.lengths[0]) for slab in self._slabs(self.lengths[0], orders[0])]
        return torch.cat(parts, 1 - axis).transpose(0, 1).reshape(self.lines[axis], -1)

    def sizes(self, axis: int) -> torch.Tensor:
        """Lines × lines in every block, as ``sums`` has them: pieces of the axis × (pieces of the other · taps), float32."""
        own, other = (_lengths(self.lines[one], self.lengths[one]) for one in (axis, 1 - axis))
        return own[:, None] * other.repeat_interleave(self.taps)[None, :]

    def blocks(self, axis: int, sums: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """The magnitudes of all blocks, from the sums of an axis's lines and their order: in the shape of ``sizes``."""
        return _added(sums, order, self.lengths[axis])

    def threshold(self, values: torch.Tensor) -> float:
        """A number between the best block that goes and the worst that stays, by these values of the blocks."""
        places = [self.removed - 1, min(self.removed, values.numel() - 1)]
        return float(np.partition(values.flatten().numpy(), places)[places].mean(dtype=np.float64))

    def kept(self, blocks: torch.Tensor, sizes: torch.Tensor) -> float:
        """The magnitude of the blocks that stay."""
        order = torch.argsort((blocks / sizes).flatten(), stable=True)
        return float(tree_sum(blocks.flatten().double()[order[self.removed :]], 0))

    def _slabs(self, multiple: int, order: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        """Magnitudes in units, some rows at a time, a multiple of a number of them: rows × columns × taps."""
        rows, columns, taps = self._weight.shape
        step = multiple * max(1, SLAB // (columns * taps * multiple))
        for start in range(0, rows, step):
            some = slice(start, start + step)
            if self._copies is not None:
                yield self._copies[0][some if order is None else order[some]]
                continue
            magnitudes = self._weight[some if order is None else order[some]].abs().double() / self._unit
            yield (tree_sum(magnitudes, 2)[:, :, None] if self.taps < taps else magnitudes).float()


def _added(lines: torch.Tensor, order: torch.Tensor, length: int) -> torch.Tensor:
    """The sum of every piece of that many lines of an order, the last one of fewer where they don't divide it: pieces × …."""
    pieces = torch.arange(0, len(order), length)
    return embedding_bag(order, lines.flatten(1).contiguous(), pieces, mode="sum").reshape(len(pieces), *lines.shape[1:])


def _lengths(lines: int, length: int) -> torch.Tensor:
    """The lengths of the pieces of that many lines."""
    return (lines - torch.arange(0, lines, length)).clamp(max=length).float()
