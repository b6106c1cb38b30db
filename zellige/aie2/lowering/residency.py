"""Which values stay in memory tiles between phases, and where: a plan, as data.

A value may stay if the phases that write it write all of its map, columns sharing it from top to bottom, and for those of its
readers whose windows reach no further than the next column. Others read it from host memory, which it is then written to as well.
A reader that steps over columns is one of those, as memory tiles put such columns together only as they take in a line.

What stays is what makes phases shorter, by the estimates of ``tiling.py``. The search begins with all that fits, in the order of
the phases, and then tries for each value whether fewer or more of its readers, or none, make the whole shorter, until nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from zellige.aie2.lowering.margins import margins
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.resident import ZEROS, Resident
from zellige.aie2.lowering.schedule import Stays
from zellige.aie2.lowering.sequence import Effect
from zellige.aie2.overlay import Overlay, memory_shares
from zellige.aie2.phase import Phase, Region

Use = tuple[str, str]
"""A phase, and what the value is for it: its ``source`` or its ``residual``."""

Cycles = Callable[[Phase, Stays], float]
"""What a phase should take; ``inf`` if it can't be."""


@dataclass(frozen=True)
class Residency:
    """Where values stay, by their tensors; and who reads them there. ``zeros``: bytes of zeros in front of all."""

    residents: Mapping[str, Resident]
    uses: Mapping[str, frozenset[Use]]
    zeros: int = 0

    def stays(self, found: Placement, outputs: Collection[str]) -> dict[str, Stays]:
        """What stays, phase by phase. ``outputs``: tensors that the host reads in the end."""
        out = set(outputs) | {region.tensor for phase in found.phases for role, region in _reads(phase)
                              if (phase.name, role) not in self.uses.get(region.tensor, ())}
        by_phase = {}
        for phase in found.phases:
            roles = {role for role, region in _reads(phase) if (phase.name, role) in self.uses.get(region.tensor, ())}
            kept = phase.target.tensor in self.residents
            by_phase[phase.name] = Stays("source" in roles, "residual" in roles, kept, not kept or phase.target.tensor in out)
        return by_phase

    def writes(self, found: Placement) -> list[tuple[str, str]]:
        """Phases that begin to write what stays, in their order, and its tensor."""
        first: dict[str, str] = {}
        for phase in found.phases:
            if phase.target.tensor in self.residents:
                first.setdefault(phase.target.tensor, phase.name)
        return [(name, tensor) for tensor, name in first.items()]

    def filled(self, found: Placement) -> dict[str, list[Resident]]:
        """By phases: values that they begin to write, between whose lines there must be zeros and are none."""
        clean: list[Resident] = []
        needed: dict[str, list[Resident]] = {}
        for name, tensor in self.writes(found):
            one = self.residents[tensor]
            if one.margin and not any(replace(one, tensor=other.tensor) == other for other in clean):
                needed.setdefault(name, []).append(one)
            clean = [other for other in clean if not _overlap(one, other) or replace(one, tensor=other.tensor) == other]
            clean.append(one)
        return needed

    def overwritten(self, found: Placement) -> dict[str, list[str]]:
        """By phases: the tensors that stayed where they begin to write."""
        earlier: list[Resident] = []
        lost: dict[str, list[str]] = {}
        for name, tensor in self.writes(found):
            one = self.residents[tensor]
            lost[name] = [other.tensor for other in earlier if _overlap(one, other)]
            earlier.append(one)
        return lost


NONE = Residency({}, {})
"""Nothing stays."""


def waits(residency: Residency, found: Placement, stays: Mapping[str, Stays]) -> dict[str, list[tuple[str, Effect]]]:
    """For every phase what it must wait for: writers of what it reads; readers of what it overwrites."""
    writers: dict[str, list[str]] = {}
    readers: dict[str, list[str]] = {}
    lost, needs = residency.overwritten(found), dict[str, list[tuple[str, Effect]]]()
    for phase in found.phases:
        after: list[tuple[str, Effect]] = []
        for role, region in _reads(phase):
            kept = getattr(stays[phase.name], role)
            after += [(name, "resident" if kept else "host") for name in writers.get(region.tensor, [])]
            if kept:
                after.append((found.phases[0].name, "resident"))  # the zeros in front
                readers.setdefault(region.tensor, []).append(phase.name)
        for tensor in lost.get(phase.name, []):
            after += [(name, "read") for name in readers.get(tensor, [])]
            after += [(name, "host") for name in writers[tensor] if stays[name].out]
        needs[phase.name] = list(dict.fromkeys(after))
        writers.setdefault(phase.target.tensor, []).append(phase.name)
    return needs


def _overlap(one: Resident, other: Resident) -> bool:
    return one.at < other.at + other.size and other.at < one.at + one.size


def _reads(phase: Phase) -> list[tuple[str, Region]]:
    return [("source", phase.source)] + ([("residual", phase.residual)] if phase.residual is not None else [])


@dataclass(frozen=True, eq=False)
class Candidate:
    """A value that may stay: the phases that write it and those that could read it (by their places in the order, with what it is
    for them), how wide margins each of these needs, and whether others read it too."""

    resident: Resident
    writers: tuple[int, ...]
    uses: tuple[tuple[int, str], ...]
    margins: tuple[int, ...]
    elsewhere: bool

    def kept(self, uses: int) -> Resident:
        """For its first readers, so many."""
        return replace(self.resident, margin=max(self.margins[:uses]))

    def life(self, uses: int) -> tuple[int, int]:
        """From which phase to which."""
        return self.writers[0], max(self.writers[-1], self.uses[uses - 1][0])


def candidates(found: Placement, on: Overlay, outputs: Collection[str]) -> list[Candidate]:
    """All values that may stay, in the order in which they are written."""
    writers: dict[str, list[int]] = {}
    for at, phase in enumerate(found.phases):
        writers.setdefault(phase.target.tensor, []).append(at)
    listed = []
    for tensor, by in writers.items():
        extent = found.extents[tensor]
        resident = Resident(tensor, 0, extent.height, extent.groups, extent.width, 0, on.columns)
        written = all(_whole(found.phases[at], extent.height, extent.width, on) for at in by)
        uses, sides, elsewhere = [], [], tensor in outputs
        for at, phase in enumerate(found.phases):
            for role, region in _reads(phase):
                if region.tensor == tensor and at > by[-1] and _near(phase, role, region, resident, on):
                    uses.append((at, role))
                    rows, columns = phase.reads(phase.height, phase.width) if role == "source" else (phase.height, phase.width)
                    sides.append(max(margins(region, rows, columns, extent)[2:]))
                elif region.tensor == tensor:
                    elsewhere = True
        if written and uses and extent.constant is None:
            listed.append(Candidate(resident, tuple(by), tuple(uses), tuple(sides), elsewhere))
    return listed


def _shared(height: int, on: Overlay) -> bool:
    """Whether every column has some of so many rows."""
    return (on.columns - 1) * -(-height // on.columns) < height


def _whole(phase: Phase, height: int, width: int, on: Overlay) -> bool:
    """Whether a phase writes all of a map of that size."""
    target = phase.target
    return (phase.height, phase.width, target.y, target.x) == (height, width, 0, 0) and _shared(height, on)


def _near(phase: Phase, role: str, region: Region, resident: Resident, on: Overlay) -> bool:
    """Whether what each column's windows see is in its memory tile and its neighbours'."""
    if not _shared(phase.height, on) or (role == "source" and (phase.stride[1] > 1 or phase.fill)):
        return False
    step, reach = (phase.stride[0], phase.window[0]) if role == "source" else (1, 1)
    each = -(-phase.height // on.columns)
    for column in range(on.columns):
        end = min((column + 1) * each, phase.height)
        first = region.y + (end - each) * step
        rows = (each - 1) * step + reach
        seen = [piece.column for piece in resident.pieces(first, rows) if piece.column is not None]
        if not all(on.reaches(column, other) for other in seen):
            return False
    return True


@dataclass
class _Search:
    """The state of the search: how many of its uses each candidate stays for."""

    found: Placement
    on: Overlay
    listed: Sequence[Candidate]
    cycles: Cycles

    def __post_init__(self) -> None:
        self.uses = [0] * len(self.listed)
        self._known: dict[tuple[str, Stays], float] = {}
        self._touched: list[list[int]] = [sorted({*one.writers, *(at for at, _ in one.uses)}) for one in self.listed]

    @cached_property
    def by_tensor(self) -> dict[str, int]:
        return {one.resident.tensor: number for number, one in enumerate(self.listed)}

    def stays(self, at: int) -> Stays:
        phase, roles = self.found.phases[at], set()
        for role, region in _reads(phase):
            number = self.by_tensor.get(region.tensor)
            if number is not None and (at, role) in self.listed[number].uses[: self.uses[number]]:
                roles.add(role)
        number = self.by_tensor.get(phase.target.tensor)
        if number is None or not self.uses[number]:
            return Stays("source" in roles, "residual" in roles)
        one = self.listed[number]
        return Stays("source" in roles, "residual" in roles, True, one.elsewhere or self.uses[number] < len(one.uses))

    def cost(self, phases: Iterable[int]) -> float:
        total = 0.0
        for at in phases:
            key = (self.found.phases[at].name, self.stays(at))
            if key not in self._known:
                self._known[key] = self.cycles(self.found.phases[at], key[1])
            total += self._known[key]
        return total

    def run(self) -> Residency:
        for number, one in enumerate(self.listed):
            for uses in range(len(one.uses), 0, -1):
                if self._may(number, uses):
                    break
        better = True
        while better:
            better = sum(self._improve(number) for number in range(len(self.listed))) > 0
        found = self.residency()
        assert found is not None
        return found

    def _may(self, number: int, uses: int) -> bool:
        """Set the uses of a candidate, if that can be."""
        before, self.uses[number] = self.uses[number], uses
        if self.cost(self._touched[number]) < inf and self.residency() is not None:
            return True
        self.uses[number] = before
        return False

    def _improve(self, number: int) -> bool:
        touched, before = self._touched[number], self.uses[number]
        best, least = before, self.cost(touched)
        for uses in range(len(self.listed[number].uses) + 1):
            self.uses[number] = uses
            if uses != before and self.cost(touched) < least and self.residency() is not None:
                best, least = uses, self.cost(touched)
        self.uses[number] = best
        return best != before

    def residency(self) -> Residency | None:
        """The plan that the state stands for; ``None`` if the resident buffers are too small for it."""
        chosen = [(one, uses) for one, uses in zip(self.listed, self.uses, strict=True) if uses]
        zeros = any(self._sees_zeros(at, role) for one, uses in chosen for at, role in one.uses[:uses])
        first = self.on.core_memory.activations if zeros else 0
        placed = _placed(chosen, first, memory_shares(self.on).resident)
        if placed is None:
            return None
        uses = {one.resident.tensor: frozenset((self.found.phases[at].name, role) for at, role in one.uses[:count])
                for one, count in chosen}
        return Residency(placed, uses, first)

    def _sees_zeros(self, at: int, role: str) -> bool:
        """Whether a phase reads above or below a map."""
        phase = self.found.phases[at]
        if role != "source":
            return False
        rows, columns = phase.reads(phase.height, phase.width)
        return any(margins(phase.source, rows, columns, self.found.extents[phase.source.tensor])[:2])


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


def choose_residency(found: Placement, on: Overlay, outputs: Collection[str], cycles: Cycles) -> Residency:
    """What stays on an overlay, so that phases take least. ``cycles``: of a phase, whatever stays."""
    if not memory_shares(on).resident:
        return NONE
    return _Search(found, on, candidates(found, on, outputs), cycles).run()
