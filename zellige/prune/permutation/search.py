"""Coordinate descent over a network's groups: one group's order at a time, all others held, sweep after sweep.

What an order is worth depends on the others, since a block's columns are one group's and its rows another's. So groups have their
turns in the order of the network's layers, several times, while the temperature falls. Each starts from its units sorted by their
mass in all weights, where that is better than where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from zellige.errors import PruneError
from zellige.prune.permutation.exchange import Exchange
from zellige.prune.permutation.members import Lines, member_of, side_by_side
from zellige.prune.permutation.weights import PlacedWeight

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How long to search, and at which temperatures, in standard deviations of a group's first gains.

    Each group is visited once in each of the ``sweeps`` and gets this many ``rounds`` in all, but not more than ``work`` numbers to
    weigh.
    """

    sweeps: int
    rounds: int
    work: float
    start: float
    end: float


METHODS: dict[str, Effort] = {
    "exchange": Effort(sweeps=10, rounds=400, work=2e10, start=0.05, end=0.01),
    "annealing": Effort(sweeps=100, rounds=8000, work=4e11, start=0.3, end=0.01),
    "mass": Effort(sweeps=0, rounds=0, work=0, start=1, end=1),
}
"""The ways to search, by name."""


def method_named(name: str) -> Effort:
    """The method of that name.

    Raises:
        PruneError: there is none.
    """
    if name not in METHODS:
        raise PruneError(f"Unknown method of permutation {name!r}. Known: {', '.join(METHODS)}.")
    return METHODS[name]


@contextmanager
def one_thread() -> Iterator[None]:
    """Steps of a search are small: threads would wait for one another most of the time, and on a busy machine much longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Search:
    """The orders of all groups, and what the weights keep under them. Groups are given by their lines, and may have none."""

    def __init__(self, groups: Sequence[Sequence[Lines]], sizes: Sequence[int], seed: int) -> None:
        self.groups = {number: [line for line in lines if line.weight.matters(line.axis)] for number, lines in enumerate(groups)}
        self.groups = {number: lines for number, lines in self.groups.items() if lines}
        self._all = groups
        self.orders = [torch.arange(size) for size in sizes]
        self._kept = {weight: weight.kept() for lines in groups for weight in (line.weight for line in lines)}
        self._spreads: dict[int, float] = {}
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def kept(self) -> float:
        """What all weights keep, in their unit."""
        return sum(self._kept.values())

    def run(self, effort: Effort, progress: Progress) -> list[torch.Tensor]:
        """The best orders that were come by."""
        for number, lines in self.groups.items():
            self._sort(number, lines)
        best, most = [order.clone() for order in self.orders], self.kept
        for sweep in range(effort.sweeps):
            heat = effort.start * (effort.end / effort.start) ** (sweep / max(1, effort.sweeps - 1))
            for done, (number, lines) in enumerate(self.groups.items()):
                progress(f"permuting, sweep {sweep + 1} of {effort.sweeps}, group {done + 1} of {len(self.groups)}")
                self._exchange(number, lines, effort, heat)
            if self.kept > most:
                best, most = [order.clone() for order in self.orders], self.kept
        return best

    def _sort(self, number: int, lines: Sequence[Lines]) -> None:
        """Units of great mass first, if that gains; among equals, those that stood first."""
        before, order = self.kept, self.orders[number]
        mass = sum((line.weight.sums(line.axis).double().sum(2)[line.group, line.line].sum(1) for line in lines),
                   torch.zeros(len(order), dtype=torch.double))
        self._place(number, torch.argsort(-mass, stable=True))
        if self.kept < before:
            self._place(number, order)

    def _exchange(self, number: int, lines: Sequence[Lines], effort: Effort, heat: float) -> None:
        exchange = Exchange(side_by_side([member_of(line) for line in lines]), self.orders[number].clone(), self._generator)
        if not exchange.meetings:
            return
        exchange.spread = self._spreads.get(number, 0.0)
        affordable = effort.work / (exchange.weighed * exchange.meetings)
        for _ in range(max(1, round(min(effort.rounds, affordable) / effort.sweeps))):
            exchange.round(heat)
        self._spreads[number] = exchange.spread
        self._place(number, exchange.order)

    def _place(self, number: int, order: torch.Tensor) -> None:
        """Lets a group's units stand in that order."""
        self.orders[number] = order
        weights: dict[PlacedWeight, None] = {}
        for line in self._all[number]:
            line.place(order)
            weights[line.weight] = None
        self._kept.update((weight, weight.kept()) for weight in weights)
