"""Exchanges of two lines at a time by what the mask becomes, under a falling temperature.

TETRIS weighs an exchange under the mask as it is, in which the two lines have a say themselves: they hold their blocks where
they are, and a search that goes by it soon stands still. Here an exchange is worth what it does to Σ max(block − threshold, 0):
blocks that it takes across the threshold change sides at once. The threshold lies between the blocks that stay and those that go,
and is found anew whenever an axis has its turn.

Pairs are drawn at random and taken as in simulated annealing (Kirkpatrick et al., Science 1983), millions of them in a second, by
code of its own (``cpu/kernels/exchange.py``). The axes take turns often: what is best for rows depends on how columns lie, and
at every temperature both must come to terms. Temperatures fall evenly to 0, in units of what an exchange at the start matters.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn.functional import pad

from zellige.cpu.code import build_kernels
from zellige.cpu.host import host_isa
from zellige.cpu.kernels.exchange import BOUNDS, LANES, ExchangeKernel
from zellige.cpu.toolchain import Library
from zellige.patterns.sums import tree_sum
from zellige.prune.clustering.grid import Grid, Orders
from zellige.prune.clustering.progress import Progress

SAMPLE = 1 << 20  # numbers looked at to learn what an exchange matters


@dataclass(frozen=True)
class Cooling:
    """How long to search, and from which temperature, in units of what a random exchange changes at the start.

    An axis gets so many ``tries`` for each of its lines, but not more than ``work`` numbers to weigh. ``visits`` is how often it
    has its turn.
    """

    tries: int
    work: float
    visits: int
    start: float


def anneal(grid: Grid, cooling: Cooling, seed: int, progress: Progress) -> Orders:
    """Rows and columns by exchanges from their order by mass, or that order if it keeps more."""
    generator = torch.Generator().manual_seed(seed)
    first = orders = grid.by_mass()
    searches = {axis: _AxisSearch(grid, axis, cooling, generator) for axis in grid.axes}
    for visit in range(cooling.visits):
        heat = cooling.start * (1 - (visit + 1) / cooling.visits)
        for axis, search in searches.items():
            order = search.visit(orders, heat)
            orders = (order, orders[1]) if axis == 0 else (orders[0], order)
        progress(visit + 1, cooling.visits)
    return max((first, orders), key=lambda orders: _kept(grid, orders))


def _kept(grid: Grid, orders: Orders) -> float:
    """The mass that these orders keep."""
    axis = grid.axes[0]
    return grid.kept(grid.blocks(axis, grid.sums(axis, orders), orders[axis]), grid.sizes(axis))


class _AxisSearch:
    """The exchanges along one axis."""

    def __init__(self, grid: Grid, axis: int, cooling: Cooling, generator: torch.Generator) -> None:
        self.grid, self.axis, self.generator = grid, axis, generator
        self.sizes = grid.sizes(axis)
        self.lines, self.width = grid.lines[axis], -(-self.sizes.shape[1] // LANES) * LANES
        self.place_pieces = torch.arange(self.lines, dtype=torch.int32) // grid.lengths[axis]
        self.tries = max(1, round(min(cooling.tries * self.lines, cooling.work / self.width) / cooling.visits))
        self.unit: float | None = None

    def visit(self, orders: Orders, heat: float) -> torch.Tensor:
        """The order of the axis after some tries."""
        grid, axis = self.grid, self.axis
        sums = grid.sums(axis, orders)
        blocks = grid.blocks(axis, sums, orders[axis])
        excesses = blocks - self.sizes * grid.threshold(blocks, self.sizes)
        sums, excesses = (pad(each, (0, self.width - each.shape[1])).contiguous() for each in (sums, excesses))
        totals, place_lines = tree_sum(excesses.abs(), 1), orders[axis].int()
        if self.unit is None:
            self.unit = self._matters(sums, excesses, totals, place_lines)
        bounds = _log_uniform() * (heat * self.unit)
        seed = int(torch.randint(1 << 62, (), generator=self.generator))
        arrays = (place_lines, self.place_pieces, sums, excesses, totals, bounds)
        slots = np.array([*(array.data_ptr() for array in arrays), self.lines, self.width, seed], np.int64)
        _kernel()[0](slots.ctypes.data, 0, self.tries, 0)
        return place_lines.long()

    def _matters(self, sums: torch.Tensor, excesses: torch.Tensor, totals: torch.Tensor, place_lines: torch.Tensor) -> float:
        """How much an exchange changes Σ |excess|: the root mean square of random ones."""
        here, there = torch.randint(self.lines, (2, max(1, SAMPLE // self.width)), generator=self.generator)
        one, other = self.place_pieces[here], self.place_pieces[there]
        change = sums[place_lines[there]] - sums[place_lines[here]]
        after = tree_sum((excesses[one] + change).abs() + (excesses[other] - change).abs(), 1)
        gains = (after - totals[one] - totals[other])[one != other].double()
        return math.sqrt(float(tree_sum(gains.square(), 0)) / len(gains)) if len(gains) else 0.0


@cache
def _log_uniform() -> torch.Tensor:
    """The logarithms of equally spaced numbers from 0 to 1."""
    return torch.tensor([math.log((number + 0.5) / BOUNDS) for number in range(BOUNDS)])


@cache
def _kernel() -> tuple[Callable[[int, int, int, int], None], tuple[Library, ...]]:
    """The compiled kernel, and the library that keeps its code."""
    kernel = ExchangeKernel()
    code, libraries = build_kernels([kernel], host_isa())
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    return prototype(code[kernel]), libraries
