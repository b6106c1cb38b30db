"""Exchanges of two lines at a time by what the mask becomes, under a falling temperature.

TETRIS weighs an exchange under the mask as it is, in which the two lines have a say themselves: they hold their blocks where
they are, and a search that goes by it soon stands still. Here an exchange is worth what it does to Σ max(block − threshold, 0):
blocks that it takes across the threshold change sides at once. The threshold lies between the heaviest blocks, as many as stay,
and the others, and is found anew whenever an axis has its turn. It is a mass, not a mean: to keep a short block at the edge
takes as much of a mask's number as to keep a whole one.

Pairs are drawn at random and taken as in simulated annealing (Kirkpatrick et al., Science 1983), tens of millions of them in a
second, by machine code (``meetings``). The axes take turns often: what is best for rows depends on how columns lie, and at every
temperature both must come to terms. Temperatures fall evenly to 0, in units of what an exchange at the start matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zellige.prune.clustering.grid import Grid, Orders
from zellige.prune.clustering.meetings import TRIES, exchange_lines, padded, padded_width
from zellige.prune.clustering.progress import Progress

SAMPLE = 1024  # exchanges looked at to learn what one matters
READING = 8  # to read a number of the weight takes as long as to weigh so many


@dataclass(frozen=True)
class Cooling:
    """How long to search, and from which temperature, in units of what a random exchange changes at the start.

    An axis gets so many ``tries`` for each of its lines, in as many ``visits``, each at a temperature of its own; but it weighs no
    more than about ``work`` numbers, and reads the weight for no longer than that takes. With fewer tries it starts cooler: there
    is no time to come to terms again.
    """

    tries: int
    visits: int
    work: float
    start: float

    def affordable_visits(self, numbers: int) -> int:
        """How often the axes of a weight of so many numbers have their turn."""
        return max(1, min(self.visits, round(self.work / (READING * numbers))))


def anneal(grid: Grid, cooling: Cooling, seed: int, progress: Progress) -> Orders:
    """Rows and columns by exchanges from their order by mass, or that order if it keeps more."""
    random = np.random.Generator(np.random.PCG64(seed))
    visits = cooling.affordable_visits(grid.numbers)
    first = orders = grid.by_mass()
    searches = {axis: _AxisSearch(grid, axis, cooling, random) for axis in grid.axes}
    for visit in range(visits):
        heat = cooling.start * (1 - (visit + 1) / visits)
        for axis, search in searches.items():
            order = search.visit(orders, heat, visits)
            orders = (order, orders[1]) if axis == 0 else (orders[0], order)
        progress(visit + 1, visits)
    return max((first, orders), key=lambda orders: _kept(grid, orders))


def _kept(grid: Grid, orders: Orders) -> float:
    """The mass that these orders keep."""
    axis = grid.axes[0]
    return grid.kept(grid.blocks(axis, grid.sums(axis, orders), orders[axis]), grid.sizes(axis))


class _AxisSearch:
    """The exchanges along one axis."""

    def __init__(self, grid: Grid, axis: int, cooling: Cooling, random: np.random.Generator) -> None:
        self.grid, self.axis, self.random = grid, axis, random
        asked = cooling.tries * grid.lines[axis]
        self.share = min(1.0, cooling.work / padded_width(grid.pieces[1 - axis] * grid.taps) / asked)
        self.meetings = self.share * asked / TRIES
        self.unit: float | None = None

    def visit(self, orders: Orders, heat: float, visits: int) -> torch.Tensor:
        """The order of the axis after a visit, one of so many."""
        grid, order = self.grid, orders[self.axis].numpy()
        line_sums = grid.sums(self.axis, orders)
        blocks = grid.blocks(self.axis, line_sums, orders[self.axis])
        sums, excesses = padded(line_sums), padded(blocks - grid.threshold(blocks))
        if self.unit is None:
            self.unit = what_matters(order, grid.lengths[self.axis], sums, excesses, self.random)
        temperature = heat * self.share * self.unit
        meetings, seed = max(1, round(self.meetings / visits)), int(self.random.integers(1 << 62))
        return torch.from_numpy(exchange_lines(order, grid.lengths[self.axis], sums, excesses, temperature, meetings, seed))


def what_matters(order: np.ndarray, length: int, sums: np.ndarray, excesses: np.ndarray, random: np.random.Generator) -> float:
    """How much an exchange changes Σ |excess|: the root mean square of random ones. Arguments as for ``exchange_lines``."""
    here, there = random.integers(len(order), size=(2, SAMPLE))
    one, other = here // length, there // length
    change = sums[order[there]] - sums[order[here]]
    after = np.abs(excesses[one] + change).sum(1) + np.abs(excesses[other] - change).sum(1)
    gains = (after - np.abs(excesses[one]).sum(1) - np.abs(excesses[other]).sum(1))[one != other].astype(np.float64)
    return float(np.sqrt(np.square(gains).mean())) if len(gains) else 0.0
