"""Coordinate descent over a network's groups: one group's order at a time, all others held, sweep after sweep.

What an order is worth depends on the others, since a block's columns are one group's and its rows another's. So groups have their
turns in the order of the network's layers, several times, while the temperature falls. Each starts from its units sorted by their
mass in all weights, where that is better than where they are.

Where all weights that share an axis cut it alike, their sums stand side by side and the exchanges are those of single weights, in
machine code (``clustering.meetings``); else, as behind a flatten or where parts of a concatenation begin within a piece, they are
weighed in PyTorch (``exchange``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from zellige.prune.clustering.exchange import what_matters
from zellige.prune.clustering.meetings import TRIES, exchange_lines, padded
from zellige.prune.permutation.exchange import Exchange
from zellige.prune.permutation.members import Lines, Member, even_length, member_of, side_by_side
from zellige.prune.permutation.weights import PlacedWeight

Progress = Callable[[str], None]

FEWEST_SWEEPS = 12
READING = 100  # to go through a weight in a sweep takes, for each of its numbers, as long as to weigh so many


@dataclass(frozen=True)
class Effort:
    """How long to search, and at which temperatures.

    Each group is visited once in each of at most ``sweeps``. It gets so many ``tries`` for each of its units, in machine code, or
    ``rounds`` of meetings, but not more than ``work`` numbers to weigh. Temperatures are in units of what a random exchange changes
    at the start: they fall evenly from ``start`` to 0 for tries, geometrically between ``heats`` for rounds.
    """

    sweeps: int
    tries: int
    rounds: int
    work: float
    start: float
    heats: tuple[float, float]

    def affordable_sweeps(self, numbers: int) -> int:
        """How many sweeps weights of so many numbers in all get: few, if they are large."""
        return min(self.sweeps, max(FEWEST_SWEEPS, round(self.work / (READING * numbers))))

    def heat_of_tries(self, cooled: float) -> float:
        """The temperature when this share of the sweeps is done."""
        return self.start * (1 - cooled)

    def heat_of_rounds(self, cooled: float) -> float:
        first, last = self.heats
        return first * (last / first) ** cooled


METHODS: dict[str, Effort] = {
    "exchange": Effort(sweeps=100, tries=16_000, rounds=400, work=2e10, start=0.1, heats=(0.05, 0.01)),
    "annealing": Effort(sweeps=400, tries=320_000, rounds=8000, work=4e11, start=0.1, heats=(0.3, 0.01)),
    "mass": Effort(sweeps=0, tries=0, rounds=0, work=0, start=0, heats=(1, 1)),
}
"""The ways to search, by name."""


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
        self._units: dict[int, float] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._random = np.random.Generator(np.random.PCG64(seed))

    @property
    def kept(self) -> float:
        """What all weights keep, in their unit."""
        return sum(self._kept.values())

    def run(self, effort: Effort, progress: Progress) -> list[torch.Tensor]:
        """The best orders that were come by."""
        for number, lines in self.groups.items():
            self._sort(number, lines)
        best, most = [order.clone() for order in self.orders], self.kept
        sweeps = effort.affordable_sweeps(sum(weight.numbers for weight in self._kept)) if self.groups else 0
        for sweep in range(sweeps):
            for done, (number, lines) in enumerate(self.groups.items()):
                progress(f"permuting, sweep {sweep + 1} of {sweeps}, group {done + 1} of {len(self.groups)}")
                self._exchange(number, lines, effort, sweep, sweeps)
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

    def _exchange(self, number: int, lines: Sequence[Lines], effort: Effort, sweep: int, sweeps: int) -> None:
        """A group's turn."""
        members = side_by_side([member_of(line) for line in lines])
        exchange = Exchange(members, self.orders[number].clone(), self._generator)
        if not exchange.meetings:
            return
        if (length := even_length(members)) is not None:
            self._place(number, self._by_tries(number, members[0], length, effort, sweep, sweeps))
            return
        exchange.spread = self._units.get(number, 0.0)
        affordable = effort.work / (exchange.weighed * exchange.meetings)
        for _ in range(max(1, round(min(effort.rounds, affordable) / sweeps))):
            exchange.round(effort.heat_of_rounds(sweep / max(1, sweeps - 1)))
        self._units[number] = exchange.spread
        self._place(number, exchange.order)

    def _by_tries(self, number: int, member: Member, length: int, effort: Effort, sweep: int, sweeps: int) -> torch.Tensor:
        """The order after tries in machine code."""
        sums, excesses, order = padded(member.added[0]), padded(member.excess), self.orders[number].numpy()
        if number not in self._units:
            self._units[number] = what_matters(order, length, sums, excesses, self._random)
        meetings = max(1, round(min(effort.tries * len(order), effort.work / sums.shape[1]) / TRIES / sweeps))
        temperature, seed = effort.heat_of_tries((sweep + 1) / sweeps) * self._units[number], int(self._random.integers(1 << 62))
        return torch.from_numpy(exchange_lines(order, length, sums, excesses, temperature, meetings, seed))

    def _place(self, number: int, order: torch.Tensor) -> None:
        """Lets a group's units stand in that order."""
        if torch.equal(order, self.orders[number]):
            return
        self.orders[number] = order
        weights: dict[PlacedWeight, None] = {}
        for line in self._all[number]:
            line.place(order)
            weights[line.weight] = None
        self._kept.update((weight, weight.kept()) for weight in weights)
