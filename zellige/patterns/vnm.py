"""V:N:M (VENOM, Castro et al., arXiv 2310.02065): what lets sparse tensor cores, built for 2:4, skip more than half.

A weight is cut into blocks of v rows × m columns (at each tap). Four columns of a block stay, the same ones for all of its
rows; of these four, every row keeps n. The last rows may be fewer than v. Where m doesn't divide the columns, the last block
counts as padded with zeros.

Which four stay is found by trying all, for m up to 12; for larger m by exchanging one column at a time, from the four that
hold most, for as long as the block gains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch.nn.functional import pad

from zellige.errors import PruneError
from zellige.patterns.fixed_share import FixedShare, check_share, index_bits
from zellige.patterns.pattern import Census
from zellige.patterns.ranking import highest_of_few
from zellige.patterns.shape import WeightShape
from zellige.patterns.sums import SLAB, tree_sum

CHOSEN = 4       # columns that stay of a block
TRY_ALL = 12     # m up to which all choices are tried: 495 of them


@dataclass(frozen=True)
class VNM(FixedShare):
    """Of blocks of ``v`` rows × ``m`` columns four columns stay, of which each row keeps ``n``.

    >>> VNM(64, 2, 8).sparsity
    Fraction(3, 4)

    Raises:
        PruneError: not 1 ≤ n ≤ 4 ≤ m with n < m, or v is not a positive whole number.
    """

    v: int
    n: int
    m: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("VNM", self.n, self.m)
        if not isinstance(self.v, int) or isinstance(self.v, bool) or self.v < 1:
            raise PruneError(f"VNM shares its columns among v rows, a positive whole number, as in VNM(64, 2, 8); not {self.v!r}.")
        if not self.n <= CHOSEN <= self.m:
            raise PruneError(f"VNM keeps n of {CHOSEN} columns chosen out of m: n ≤ {CHOSEN} ≤ m, not n = {self.n}, m = {self.m}.")

    def __str__(self) -> str:
        return f"vnm:{self.v}:{self.n}:{self.m}"

    def too_small(self, shape: WeightShape) -> str | None:
        if shape.rows_per_group < self.v or shape.columns < self.m:
            return f"too small: {shape} is less than one {self.v}×{self.m} block"
        return None

    def mask_of(self, scores: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        blocks = self._blocks(scores, shape, padding=-1)
        at_once = max(1, SLAB // 8 // (blocks.shape[1] * self.m))
        kept = [self._best(slab.double()) for slab in blocks.split(at_once)]
        return self._from_blocks(torch.cat(kept), shape)

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        shape = WeightShape(tuple(weight.shape), groups)
        filled = self._blocks(weight != 0, shape, padding=0)
        too_wide = filled.any(1).sum(1)[:, None, None] > CHOSEN
        too_full = filled.sum(2, keepdim=True) > self.n
        broken = self._from_blocks(filled & (too_wide | too_full), shape)
        return Census(shape.weights, int((weight == 0).sum()), broken)

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """n values of every row of a block and their places among the four, and the places of the four, in bits."""
        shape = WeightShape(tuple(mask.shape), groups)
        runs, bands = -(-shape.columns // self.m), -(-shape.rows_per_group // self.v)
        values = shape.rows * shape.taps * runs * self.n
        chosen = groups * shape.taps * bands * runs * CHOSEN
        return values * itemsize + -(-(values * index_bits(CHOSEN) + chosen * index_bits(self.m)) // 8)

    def _best(self, blocks: torch.Tensor) -> torch.Tensor:
        """The kept weights of blocks × v × m scores, -1 where a block is padded to m columns."""
        chosen = (self._tried if self.m <= TRY_ALL else self._exchanged)(blocks)
        places = chosen[:, None, :].expand(-1, blocks.shape[1], -1)
        kept = highest_of_few(blocks.gather(2, places), self.n)
        return torch.zeros_like(blocks, dtype=torch.bool).scatter_(2, places, kept)

    def _tried(self, blocks: torch.Tensor) -> torch.Tensor:
        """The best four columns of each block, by trying all; among equals the last. A row gives its best n of four."""
        columns = blocks.permute(2, 1, 0).contiguous()  # m × v × blocks: whole runs of numbers are added and compared
        sums = {few: tree_sum(columns[list(few)], 0) for few in combinations(range(self.m), self.n)}
        best = blocks.new_full((len(blocks),), -torch.inf)
        chosen = torch.zeros(len(blocks), CHOSEN, dtype=torch.long, device=blocks.device)
        for four in combinations(range(self.m), CHOSEN):
            rows = _largest(sums[few] for few in combinations(four, self.n))
            kept = tree_sum(rows, 0)
            better = kept >= best
            best = torch.where(better, kept, best)
            chosen[better] = torch.tensor(four, device=blocks.device)
        return chosen

    def _exchanged(self, blocks: torch.Tensor) -> torch.Tensor:
        """Four good columns of each block: exchanging any one of them for another gains nothing."""
        chosen = torch.argsort(tree_sum(blocks, 1), dim=1, stable=True)[:, -CHOSEN:]
        best = blocks.new_full((len(blocks),), -torch.inf)
        while True:
            before = chosen
            for slot in range(CHOSEN):
                others = torch.cat((chosen[:, :slot], chosen[:, slot + 1:]), 1)
                gains = self._with_a_fourth(blocks, others)
                top = gains.max(1)
                better = top.values > best
                best = torch.where(better, top.values, best)
                chosen = torch.where(better[:, None], torch.cat((others, top.indices[:, None]), 1), chosen)
            if torch.equal(before, chosen):
                return chosen.sort(1).values

    def _with_a_fourth(self, blocks: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """What each block keeps with three columns and any fourth: blocks × m, none where the fourth is one of the three."""
        three = blocks.gather(2, others[:, None, :].expand(-1, blocks.shape[1], -1)).sort(2, descending=True).values
        sure = tree_sum(three[:, :, : self.n - 1], 2) if self.n > 1 else torch.zeros_like(three[:, :, 0])
        last = three[:, :, self.n - 1, None].expand_as(blocks) if self.n < CHOSEN else torch.full_like(blocks, -torch.inf)
        gains = tree_sum(sure[:, :, None] + torch.maximum(blocks, last), 1)
        return gains.scatter(1, others, -torch.inf)

    def _blocks(self, tensor: torch.Tensor, shape: WeightShape, padding: int) -> torch.Tensor:
        """The weight as blocks × v × m. Columns that are missing to m are ``padding``; rows that are missing to v are 0."""
        lines = tensor.reshape(shape.matrix).permute(0, 3, 1, 2)
        wide = pad(lines, (0, -shape.columns % self.m), value=padding)
        height = min(self.v, shape.rows_per_group)
        whole = pad(wide, (0, 0, 0, -shape.rows_per_group % height))
        cut = whole.unflatten(3, (-1, self.m)).unflatten(2, (-1, height))
        return cut.transpose(3, 4).flatten(0, 3)

    def _from_blocks(self, blocks: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        groups, rows, columns, taps = shape.matrix
        bands, runs = -(-rows // blocks.shape[1]), -(-columns // self.m)
        grid = blocks.unflatten(0, (groups, taps, bands, runs)).transpose(3, 4)
        whole = grid.flatten(4, 5).flatten(2, 3)
        return whole[:, :, :rows, :columns].permute(0, 2, 3, 1).reshape(shape.dims).contiguous()


def _largest(values: Iterator[torch.Tensor]) -> torch.Tensor:
    """The elementwise maximum."""
    largest = next(values)
    for value in values:
        largest = torch.maximum(largest, value)
    return largest
