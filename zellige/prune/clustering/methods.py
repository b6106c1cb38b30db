"""The ways to search for a permutation, by name."""

from __future__ import annotations

from collections.abc import Callable

from zellige.prune.clustering.exchange import Cooling, anneal
from zellige.prune.clustering.grid import Grid, Orders
from zellige.prune.clustering.progress import Progress
from zellige.prune.clustering.tetris import tetris

Method = Callable[[Grid, int, Progress], Orders]
"""Grid, seed and progress in, orders of rows and columns out."""

QUICK = Cooling(tries=16_000, visits=100, work=2e10, start=0.1)
LONG = Cooling(tries=320_000, visits=1000, work=4e11, start=0.1)

METHODS: dict[str, Method] = {
    "exchange": lambda grid, seed, progress: anneal(grid, QUICK, seed, progress),
    "annealing": lambda grid, seed, progress: anneal(grid, LONG, seed, progress),
    "tetris": tetris,
    "mass": lambda grid, seed, progress: grid.by_mass(),
}
