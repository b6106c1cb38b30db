"""Exchanges of pairs of a group's units, weighed in all weights that share the axis, under a falling temperature.

As in ``clustering.exchange``: an exchange is worth what it does to Σ max(block − threshold, 0), so that blocks that it takes across
the threshold change sides at once; here the sum goes over the blocks of all members. Pieces are paired at random, all exchanges
within all pairs are weighed at once, and each pair takes one of them, or none, with a probability that grows with
exp(gain / temperature). Where members are cut differently, exchanges made at once may share blocks; what is booked stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import cdist

from zellige.prune.permutation.members import Member

AT_ONCE = 1 << 20  # numbers in one batch of exchanges: they stay in a cache
CANDIDATES = 16  # slots of a long piece that one meeting weighs, drawn at random
OTHERWISE = 8  # slots that meet together where no member of one line a slot says which


class Exchange:
    """The exchanges within one group of units that stand in ``order``."""

    def __init__(self, members: Sequence[Member], order: torch.Tensor, generator: torch.Generator) -> None:
        self.members, self.order, self.generator = members, order, generator
        self.chunks = _chunks(members, len(order))
        self.candidates = min(self.chunks.shape[1], CANDIDATES)
        self.weighed = self.candidates**2 * sum(member.features for member in members)
        """Numbers that a meeting of two pieces takes."""
        self.spread = 0.0

    @property
    def meetings(self) -> int:
        """How many meetings a round has."""
        return len(self.chunks) // 2

    def round(self, heat: float) -> None:
        """Every piece meets one other, but for an odd one; ``order`` is changed."""
        drawn = torch.rand(len(self.chunks), generator=self.generator).argsort(stable=True)
        pairs = drawn[: self.meetings * 2].reshape(2, -1)
        for some in pairs.split(max(1, AT_ONCE // self.weighed), dim=1):
            self._meet(self._slots(some[0]), self._slots(some[1]), heat)

    def _slots(self, chunks: torch.Tensor) -> torch.Tensor:
        """Which slots of pieces come to a meeting: all, or some of many."""
        slots = self.chunks[chunks]
        if self.candidates == slots.shape[1]:
            return slots
        drawn = torch.rand(slots.shape, generator=self.generator).masked_fill_(slots < 0, 2.0)
        return slots.gather(1, drawn.argsort(dim=1, stable=True)[:, : self.candidates])

    def _meet(self, one: torch.Tensor, other: torch.Tensor, heat: float) -> None:
        """Lets each pair of pieces exchange two units, or none."""
        gains = torch.zeros(len(one), self.candidates, self.candidates)
        for member in self.members:
            gains += self._gains(member, one, other)
        gains.masked_fill_((one < 0)[:, :, None] | (other < 0)[:, None, :], -torch.inf)
        if not self.spread:
            finite = gains[gains.isfinite()]
            self.spread = float(finite.std()) if len(finite) > 1 else 0.0
        noise = torch.rand(len(one), self.candidates**2 + 1, generator=self.generator).log_().neg_().log_()
        noise.mul_(-heat * self.spread)
        value, choice = (gains.flatten(1) + noise[:, 1:]).max(1)
        taken = (value > noise[:, 0]).nonzero().squeeze(1)
        row, column = torch.div(choice[taken], self.candidates, rounding_mode="floor"), choice[taken] % self.candidates
        self._exchange(one[taken, row], other[taken, column])

    def _gains(self, member: Member, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """What each exchange adds to Σ |excess|, twice what it keeps more: pairs × slots × slots."""
        here, there = self.order[one], self.order[other]
        excess = [_windows(member, slots) for slots in (one, other)]
        leaving, coming = member.added[member.kind[one], here], member.added[member.kind[other], there]
        if member.simple:
            after = cdist(leaving - excess[0], coming, p=1) + cdist(leaving, coming - excess[1], p=1)
        else:
            into = member.added[member.kind[one][:, :, None], there[:, None, :]]
            after = cdist((leaving - excess[0])[:, :, None, :], into, p=1).squeeze(2)
            into = member.added[member.kind[other][:, :, None], here[:, None, :]]
            after += cdist((coming - excess[1])[:, :, None, :], into, p=1).squeeze(2).transpose(1, 2)
        after -= excess[0].abs().sum(2)[:, :, None] + excess[1].abs().sum(2)[:, None, :]
        same = (member.window[one][:, :, None] == member.window[other][:, None, :]).all(3)
        return after.masked_fill_(same & (member.window.shape[1] == 1), 0.0)

    def _exchange(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """Exchanges the units of pairs of slots, in the order and in the books."""
        leaving, coming = self.order[one], self.order[other]
        self.order[one], self.order[other] = coming, leaving
        for member in self.members:
            for slots, came, left in ((one, coming, leaving), (other, leaving, coming)):
                change = member.added[member.kind[slots], came] - member.added[member.kind[slots], left]
                member.excess.index_add_(0, member.window[slots].flatten(), change.reshape(-1, member.excess.shape[1]))


def _windows(member: Member, slots: torch.Tensor) -> torch.Tensor:
    """What the pieces of slots are above the threshold: pairs × slots × features."""
    return member.excess[member.window[slots]].flatten(2)


def _chunks(members: Sequence[Member], slots: int) -> torch.Tensor:
    """The slots that meet together, −1 past the end: those of a piece of the widest member of one line a slot."""
    pieces = [member.window[:, 0].numpy() for member in sorted(members, key=lambda member: -member.features)
              if member.window.shape[1] == 1]
    piece = next((piece for piece in pieces if len(np.unique(piece)) > 1), np.arange(slots) // OTHERWISE)
    chunks = [np.flatnonzero(piece == one) for one in np.unique(piece)]
    length = max(map(len, chunks))
    return torch.stack([torch.from_numpy(np.pad(chunk, (0, length - len(chunk)), constant_values=-1)) for chunk in chunks])
