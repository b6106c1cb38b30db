"""A weight of the network as a search for permutations sees it: magnitudes, how the pattern cuts them, and who stands where.

Lines are rows (axis 0) or columns (axis 1) of one group of the weight; pieces of rows are bands, pieces of columns are runs, and
a block is where a band and a run meet, at each tap by itself where taps have blocks of their own. Magnitudes are float32, in units
that all weights of a network share, so that what one gains can be set against what another loses. Sums are trees of additions and
don't depend on threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch.nn.functional import pad

from zellige.patterns import Block, Pattern, TileWise, WeightShape
from zellige.patterns.shares import floor_share
from zellige.patterns.sums import SLAB, row_sums, tree_sum

Clusterable = Block | TileWise


@dataclass(frozen=True)
class Cut:
    """How a pattern cuts weights: the lengths of bands and of runs, and whether taps have blocks of their own."""

    band: int
    run: int
    per_tap: bool

    @classmethod
    def of(cls, pattern: Clusterable) -> Cut:
        return cls(pattern.rows, pattern.columns if isinstance(pattern, Block) else 1, pattern.per_tap)


class PlacedWeight:
    """The magnitudes of one weight, and the lines that stand at each place of it, at one sparsity."""

    def __init__(self, weight: torch.Tensor, groups: int, unit: float, cut: Cut, sparsity: Fraction) -> None:
        shape = WeightShape(tuple(weight.shape), groups)
        self.groups = groups
        self.lines = (shape.rows_per_group, shape.columns)
        """Rows and columns of a group."""
        self.lengths = (min(cut.band, self.lines[0]), min(cut.run, self.lines[1]))
        self.pieces = (-(-self.lines[0] // self.lengths[0]), -(-self.lines[1] // self.lengths[1]))
        magnitudes = weight.detach().reshape(groups, *self.lines, -1)
        rows = max(1, SLAB * shape.rows // shape.weights)
        summed = shape.taps > 1 and not cut.per_tap
        slabs = [(tree_sum(slab.abs().double(), 2)[:, :, None] if summed else slab.abs().double()).div_(unit).float()
                 for slab in magnitudes.flatten(0, 1).split(rows)]
        self._magnitudes = torch.cat(slabs).reshape(groups, *self.lines, -1)
        self.taps, self.numbers = self._magnitudes.shape[3], self._magnitudes.numel()
        self.placed = tuple(torch.arange(lines).expand(groups, -1).clone() for lines in self.lines)
        """For rows and for columns, the number of the line at each place: groups × places."""
        self.removed = floor_share(sparsity, groups * self.pieces[0] * self.pieces[1] * self.taps)
        """How many blocks go."""

    def matters(self, axis: int) -> bool:
        """Whether it makes any difference where the lines of an axis stand."""
        return self.removed > 0 and self.lengths[axis] > 1 and self.pieces[axis] > 1

    def sums(self, axis: int) -> torch.Tensor:
        """Every line of an axis, by number, summed over the other axis's pieces: groups × lines × (pieces · taps)."""
        parts = [self._over_runs(group) if axis == 0 else self._over_bands(group) for group in range(self.groups)]
        return torch.stack(parts)

    def blocks(self, axis: int) -> torch.Tensor:
        """The magnitudes of the blocks: (groups · pieces of the axis) × (pieces of the other · taps)."""
        return self.blocks_of(axis, self.sums(axis))

    def blocks_of(self, axis: int, sums: torch.Tensor) -> torch.Tensor:
        """The blocks, from the sums of the axis's lines."""
        length, pieces = self.lengths[axis], self.pieces[axis]
        placed = torch.stack([of_group[order] for of_group, order in zip(sums, self.placed[axis], strict=True)])
        padded = pad(placed, (0, 0, 0, pieces * length - self.lines[axis]))
        return tree_sum(padded.reshape(self.groups, pieces, length, -1), 2).flatten(0, 1)

    def sizes(self, axis: int) -> torch.Tensor:
        """Lines × lines of each block, in the shape of ``blocks``."""
        own, other = (_lengths(self.lines[one], self.lengths[one]) for one in (axis, 1 - axis))
        return (own[:, None] * other.repeat_interleave(self.taps)[None, :]).repeat(self.groups, 1)

    def threshold(self, blocks: torch.Tensor, sizes: torch.Tensor) -> float:
        """A mean magnitude between the best block that goes and the worst that stays."""
        means = (blocks / sizes).flatten()
        ends = [float(means.kthvalue(place).values) for place in (self.removed, min(self.removed + 1, len(means)))]
        return sum(ends) / 2

    def kept(self) -> float:
        """The magnitude of the blocks that stay, as the lines are placed."""
        axis = int(self.lines[1] < self.lines[0])
        blocks, sizes = self.blocks(axis), self.sizes(axis)
        order = torch.argsort((blocks / sizes).flatten(), stable=True)
        return float(tree_sum(blocks.flatten().double()[order[self.removed :]], 0))

    def _over_runs(self, group: int) -> torch.Tensor:
        order, (_, columns) = self.placed[1][group], self.lines
        padding = self.pieces[1] * self.lengths[1] - columns
        found = []
        for slab in self._magnitudes[group].split(max(1, SLAB // (columns * self.taps))):
            placed = pad(slab.index_select(1, order), (0, 0, 0, padding))
            found.append(tree_sum(placed.reshape(len(slab), self.pieces[1], self.lengths[1], -1), 2).flatten(1))
        return torch.cat(found)

    def _over_bands(self, group: int) -> torch.Tensor:
        length, columns = self.lengths[0], self.lines[1]
        rows = length * max(1, SLAB // (columns * self.taps * length))
        found = []
        for some in self.placed[0][group].split(rows):
            placed = pad(self._magnitudes[group].index_select(0, some), (0, 0, 0, 0, 0, -len(some) % length))
            found.append(tree_sum(placed.reshape(-1, length, columns, self.taps), 1))
        return torch.cat(found).transpose(0, 1).flatten(1)


def kept_l1(weight: torch.Tensor, groups: int, pattern: Pattern, sparsity: Fraction) -> float:
    """The L1 mass that the pattern's own mask leaves of a weight."""
    magnitudes = weight.detach().abs()
    if isinstance(pattern, Block):
        scores = pattern.block_scores(magnitudes, groups)
        means = scores / pattern.block_sizes(WeightShape(tuple(weight.shape), groups))
        return float(tree_sum(scores[pattern.staying([means], sparsity)], 0))
    mask = pattern.mask(magnitudes, float(sparsity), groups)
    return float(tree_sum(row_sums(magnitudes.mul_(mask)), 0))


def _lengths(lines: int, length: int) -> torch.Tensor:
    """The lengths of the pieces of that many lines."""
    return (lines - torch.arange(0, lines, length)).clamp(max=length).float()
