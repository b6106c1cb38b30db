"""The choice of what stays in memory tiles: that which makes phases shorter, by the estimates of ``tiling.py``.

The search begins with all that fits, in the order of the phases, and then tries for each value whether fewer or more of its
readers, or none, make the whole shorter, and whether it is shorter without runs of values, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from zellige.aie2.lowering.candidates import Candidate, candidates
from zellige.aie2.lowering.margins import reads
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.residency import NONE, Residency
from zellige.aie2.lowering.resident import ZEROS, Resident
from zellige.aie2.lowering.schedule import Stays
from zellige.aie2.overlay import Overlay, memory_shares
from zellige.aie2.phase import Phase

LONGEST = 24
"""Of runs of values that are tried together."""

Cycles = Callable[[Phase, Stays], float]
"""What a phase should take; ``inf`` if it can't be."""

NEVER = 1 << 200
"""More than any phases take, in the units of ``_Search.cost``."""


@dataclass
class _Search:
    """The state of the search: how many of its uses each candidate stays for."""

    found: Placement
    on: Overlay
    listed: Sequence[Candidate]
    cycles: Cycles

    def __post_init__(self) -> None:
        self.uses = [0] * len(self.listed)
        self._known: dict[tuple[str, Stays], int] = {}
        self._touched: list[list[int]] = [sorted({*one.writers, *(at for at, _ in one.uses)}) for one in self.listed]

    @cached_property
    def by_tensor(self) -> dict[str, int]:
        return {one.resident.tensor: number for number, one in enumerate(self.listed)}

    def stays(self, at: int) -> Stays:
        phase, roles = self.found.phases[at], set()
        for read in reads(phase):
            number = self.by_tensor.get(read.region.tensor)
            if number is not None and (at, read.role) in self.listed[number].uses[: self.uses[number]]:
                roles.add(read.role)
        number = self.by_tensor.get(phase.target.tensor)
        if number is None or not self.uses[number]:
            return Stays("source" in roles, "residual" in roles)
        one = self.listed[number]
        return Stays("source" in roles, "residual" in roles, True, one.elsewhere or self.uses[number] < len(one.uses))

    def cost(self, phases: Iterable[int]) -> int:
        """Of these phases in units of 2⁻⁵² cycles, which add up exactly: so no step makes the whole longer, and the search ends."""
        total = 0
        for at in phases:
            key = (self.found.phases[at].name, self.stays(at))
            if key not in self._known:
                cycles = self.cycles(self.found.phases[at], key[1])
                self._known[key] = NEVER if cycles == inf else int(cycles * 2.0**52)
            total += self._known[key]
        return total

    def run(self) -> Residency:
        for number, one in enumerate(self.listed):
            for uses in range(len(one.uses), 0, -1):
                if self._try({number: uses}, begins=True):
                    break
        better = True
        while better:
            better = sum(self._improve(number) for number in range(len(self.listed))) + sum(map(self._end, self._runs())) > 0
        found = self.residency()
        assert found is not None
        return found

    def _runs(self) -> list[range]:
        """Values one after another, two or more."""
        count = len(self.listed)
        return [range(first, last) for first in range(count) for last in range(first + 2, min(first + LONGEST, count) + 1)]

    def _try(self, changes: Mapping[int, int], begins: bool = False) -> bool:
        """Set the uses of some candidates, if that can be and makes the phases that it touches take less; or no more, if less stays
        then; or, as the search ``begins``, if it can be at all."""
        touched = sorted({at for number in changes for at in self._touched[number]})
        before = {number: self.uses[number] for number in changes}
        least = NEVER if begins else self.cost(touched)
        fewer = all(uses < before[number] for number, uses in changes.items())
        self._set(changes)
        if (self.cost(touched) < least or (fewer and self.cost(touched) == least)) and self.residency() is not None:
            return True
        self._set(before)
        return False

    def _set(self, changes: Mapping[int, int]) -> None:
        for number, uses in changes.items():
            self.uses[number] = uses

    def _improve(self, number: int) -> bool:
        """Give a candidate other uses, if any are better."""
        others = [uses for uses in range(len(self.listed[number].uses) + 1) if uses != self.uses[number]]
        return sum(self._try({number: uses}) for uses in others) > 0

    def _end(self, run: range) -> bool:
        """Let no value of a run stay, if that is better: of a chain of phases that all must be cut otherwise then."""
        changes = {number: 0 for number in run if self.uses[number]}
        return len(changes) > 1 and self._try(changes)

    def residency(self) -> Residency | None:
        """The plan that the state stands for; ``None`` if the resident buffers are too small for it."""
        chosen = [(one, uses) for one, uses in zip(self.listed, self.uses, strict=True) if uses]
        zeros = any(self._sees_zeros(*use) for one, uses in chosen for use in one.uses[:uses])
        first = self.on.core_memory.activations if zeros else 0
        placed = _placed(chosen, first, memory_shares(self.on).resident)
        if placed is None:
            return None
        uses = {one.resident.tensor: frozenset((self.found.phases[at].name, role) for at, role in one.uses[:count])
                for one, count in chosen}
        return Residency(placed, uses, first)

    def _sees_zeros(self, at: int, role: str) -> bool:
        """Whether a phase reads above or below a map."""
        return any(any(read.margins(self.found.extents)[:2]) for read in reads(self.found.phases[at]) if read.role == role)


@dataclass
class _Room:
    """Bytes of the resident buffers, from one phase to another, for values one after another whose lines are alike."""

    size: int
    begin: int
    end: int
    values: list[Resident]
    at: int = 0


def _placed(chosen: Sequence[tuple[Candidate, int]], first: int, size: int) -> dict[str, Resident] | None:
    """Where values lie, from byte ``first`` on. Those with margins share a room, if there is enough for all then, so that zeros
    between their lines need not be brought again. ``None`` if there isn't enough in any case."""
    for sharing in (True, False):
        rooms = _rooms(chosen, sharing)
        if all(_settle(room, rooms[:number], first, size) for number, room in enumerate(rooms)):
            return {one.tensor: replace(one, at=room.at) for room in rooms for one in room.values}
    return None


def _rooms(chosen: Sequence[tuple[Candidate, int]], sharing: bool) -> list[_Room]:
    """In the order in which they begin."""
    rooms: list[_Room] = []
    for one, uses in chosen:
        kept, (begin, end) = one.kept(uses), one.life(uses)
        shared = next((room for room in rooms if room.end < begin and replace(room.values[0], tensor=kept.tensor) == kept), None)
        if shared is not None and sharing and kept.margin:
            shared.values.append(kept)
            shared.end = end
        else:
            rooms.append(_Room(kept.size, begin, end, [kept]))
    return rooms


def _settle(room: _Room, others: Sequence[_Room], first: int, size: int) -> bool:
    """Let a room lie as low as those that are there at the same time allow. Whether it can."""
    room.at = ZEROS + first
    for other in sorted(others, key=lambda one: one.at):
        meets = other.begin <= room.end and room.begin <= other.end
        if meets and other.at < room.at + room.size and room.at < other.at + other.size:
            room.at = other.at + other.size
    return room.at + room.size <= size


def nothing_stays(found: Placement, on: Overlay, outputs: Collection[str], cycles: Cycles) -> Residency:
    """What ``choose_residency`` is compared with."""
    return NONE


def choose_residency(found: Placement, on: Overlay, outputs: Collection[str], cycles: Cycles) -> Residency:
    """What stays on an overlay, so that phases take least. ``cycles``: of a phase, whatever stays."""
    if not memory_shares(on).resident:
        return NONE
    return _Search(found, on, candidates(found, on, outputs), cycles).run()
