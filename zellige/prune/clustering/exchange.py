"""Pair exchange that looks at what the mask becomes, under a falling temperature.

TETRIS weighs an exchange under the mask as it is, in which the two lines have a say themselves: they hold their blocks where
they are, and a search that goes by it soon stands still. Here an exchange is worth what it does to Σ max(block − threshold, 0):
blocks that it takes across the threshold change sides at once. The threshold lies between the blocks that stay and those that go,
and is found anew whenever the axis changes.

Pieces are paired at random, so that no two pairs share a block, and all exchanges within all pairs are weighed at once. Each
pair then takes one of them, or none, with a probability that grows with exp(gain / temperature), "heat bath" among annealing
methods (Kirkpatrick et al., Science 1983): the temperature falls geometrically from a share of the spread of gains at the start.
Everything is elementwise or summed per exchange, so threads have no say in the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import embedding, pad

from zellige.prune.clustering.grid import Grid, Orders
from zellige.prune.clustering.progress import Progress

AT_ONCE = 1 << 20  # numbers in one batch of exchanges: they stay in a cache
CANDIDATES = 16  # lines of a long piece that one meeting weighs, drawn at random


@dataclass(frozen=True)
class Cooling:
    """How long to search, and at which temperatures, in standard deviations of the first gains.

    An axis gets this many ``rounds``, or ``per_piece`` of them for each of its pieces where that is more, but not more than
    ``work`` numbers to weigh. ``visits`` is how often it has its turn.
    """

    rounds: int
    per_piece: int
    work: float
    start: float
    end: float
    visits: int


def anneal(grid: Grid, cooling: Cooling, seed: int, progress: Progress) -> Orders:
    """Rows and columns by exchanges from their order by mass: the best order that was come by."""
    generator = torch.Generator().manual_seed(seed)
    orders = list(grid.by_mass())
    searches = {axis: _AxisSearch(grid, axis, cooling, generator) for axis in grid.axes}
    best, kept = (orders[0], orders[1]), searches[grid.axes[0]].kept((orders[0], orders[1]))
    for visit in range(cooling.visits):
        heat = cooling.start * (cooling.end / cooling.start) ** (visit / max(1, cooling.visits - 1))
        for axis, search in searches.items():
            orders[axis], now = search.visit((orders[0], orders[1]), heat)
            if now > kept:
                best, kept = (orders[0], orders[1]), now
        progress(visit + 1, cooling.visits)
    return best


class _AxisSearch:
    """The exchanges along one axis."""

    def __init__(self, grid: Grid, axis: int, cooling: Cooling, generator: torch.Generator) -> None:
        self.grid, self.axis, self.generator = grid, axis, generator
        self.pieces, self.length = grid.pieces[axis], grid.lengths[axis]
        self.sizes = grid.sizes(axis)
        self.candidates = min(self.length, CANDIDATES)
        weighed = self.candidates**2 * self.sizes.shape[1]
        self.pairs_at_once = max(1, AT_ONCE // weighed)
        asked = max(cooling.rounds, cooling.per_piece * self.pieces)
        rounds = min(asked, cooling.work / (weighed * (self.pieces // 2)))
        self.rounds = max(1, round(rounds / cooling.visits))
        self.spread = 0.0

    def kept(self, orders: Orders) -> float:
        """The mass that these orders keep."""
        blocks = self.grid.blocks(self.axis, self.grid.sums(self.axis, orders), orders[self.axis])
        return self.grid.kept(blocks, self.sizes)

    def visit(self, orders: Orders, heat: float) -> tuple[torch.Tensor, float]:
        """Some rounds of exchanges: the new order, and the mass that it keeps."""
        sums = self.grid.sums(self.axis, orders)
        blocks = self.grid.blocks(self.axis, sums, orders[self.axis])
        expected = self.sizes * self.grid.threshold(blocks, self.sizes)
        empty = len(sums)  # number of the line that stands past the end of the last piece
        places = torch.full((self.pieces * self.length,), empty)
        places[: len(sums)] = orders[self.axis]
        places = places.reshape(self.pieces, self.length)
        sums = pad(sums, (0, 0, 0, 1))
        excess = blocks - expected
        for _ in range(self.rounds):
            drawn = torch.rand(self.pieces, generator=self.generator).argsort(stable=True)
            pairs = drawn[: self.pieces // 2 * 2].reshape(2, -1)
            for some in pairs.split(self.pairs_at_once, dim=1):
                self._meet(some[0], some[1], places, sums, excess, heat)
        order = places.flatten()[:empty]
        return order, self.grid.kept(self.grid.blocks(self.axis, sums, order), self.sizes)

    def _meet(self, one: torch.Tensor, other: torch.Tensor, places: torch.Tensor, sums: torch.Tensor,
              excess: torch.Tensor, heat: float) -> None:
        """Lets each pair of pieces exchange two lines, or none; ``places`` and ``excess`` are changed."""
        here, there = self._drawn(len(one)), self._drawn(len(one))
        leaving, coming = places[one[:, None], here], places[other[:, None], there]
        gains = _gains(embedding(leaving, sums), embedding(coming, sums), excess[one], excess[other])
        if places.numel() > len(sums) - 1:
            gains.masked_fill_((leaving == len(sums) - 1)[:, :, None] | (coming == len(sums) - 1)[:, None, :], -torch.inf)
        if not self.spread:
            finite = gains[gains.isfinite()]
            self.spread = float(finite.std()) if len(finite) > 1 else 0.0
        noise = torch.rand(len(one), self.candidates**2 + 1, generator=self.generator).log_().neg_().log_()
        noise.mul_(-heat * self.spread)
        value, choice = (gains.flatten(1) + noise[:, 1:]).max(1)
        taken = (value > noise[:, 0]).nonzero().squeeze(1)
        row, column = choice[taken] // self.candidates, choice[taken] % self.candidates
        one, other, leaving, coming = one[taken], other[taken], leaving[taken, row], coming[taken, column]
        places[one, here[taken, row]], places[other, there[taken, column]] = coming, leaving
        change = sums[coming] - sums[leaving]
        excess[one] += change
        excess[other] -= change

    def _drawn(self, pairs: int) -> torch.Tensor:
        """Which places of a piece come to a meeting: all, or some of many."""
        if self.candidates == self.length:
            return torch.arange(self.length).expand(pairs, -1)
        drawn = torch.rand(pairs, self.length, generator=self.generator)
        return drawn.argsort(dim=1, stable=True)[:, : self.candidates]


def _gains(leaving: torch.Tensor, coming: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """What each exchange adds to Σ |excess|, twice what it keeps more: pairs × lines that leave × lines that come."""
    change = coming[:, None, :, :] - leaving[:, :, None, :]
    after = (change + one[:, None, None, :]).abs_().sum(3)
    after += change.sub_(other[:, None, None, :]).abs_().sum(3)
    return after.sub_((one.abs() + other.abs()).sum(1)[:, None, None])
