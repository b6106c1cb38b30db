"""Which values stay in memory tiles between phases, and where: a plan, as data; and who waits for whom because of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from zellige.aie2.lowering.margins import Read, reads
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.resident import Resident
from zellige.aie2.lowering.schedule import Stays
from zellige.aie2.lowering.streams import Effect
from zellige.aie2.phase import Phase

Use = tuple[str, str]
"""A phase, and what the value is for it: its ``source`` or its ``residual``."""


@dataclass(frozen=True)
class Residency:
    """Where values stay, by their tensors; and who reads them there. ``zeros``: bytes of zeros in front of all."""

    residents: Mapping[str, Resident]
    uses: Mapping[str, frozenset[Use]]
    zeros: int = 0

    def stays(self, found: Placement, outputs: Collection[str]) -> dict[str, Stays]:
        """What stays, phase by phase. ``outputs``: tensors that the host reads in the end."""
        out = set(outputs) | {read.region.tensor for phase in found.phases for read in reads(phase) if not self._kept(phase, read)}
        by_phase = {}
        for phase in found.phases:
            roles = {read.role for read in reads(phase) if self._kept(phase, read)}
            kept = phase.target.tensor in self.residents
            by_phase[phase.name] = Stays("source" in roles, "residual" in roles, kept, not kept or phase.target.tensor in out)
        return by_phase

    def _kept(self, phase: Phase, read: Read) -> bool:
        """Whether a phase reads something where it stays."""
        return (phase.name, read.role) in self.uses.get(read.region.tensor, ())

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
        for read in reads(phase):
            kept = getattr(stays[phase.name], read.role)
            after += [(name, "resident" if kept else "host") for name in writers.get(read.region.tensor, [])]
            if kept:
                after.append((found.phases[0].name, "resident"))  # the zeros in front
                readers.setdefault(read.region.tensor, []).append(phase.name)
        for tensor in lost.get(phase.name, []):
            after += [(name, "read") for name in readers.get(tensor, [])]
            after += [(name, "host") for name in writers[tensor] if stays[name].out]
        needs[phase.name] = list(dict.fromkeys(after))
        writers.setdefault(phase.target.tensor, []).append(phase.name)
    return needs


def _overlap(one: Resident, other: Resident) -> bool:
    return one.at < other.at + other.size and other.at < one.at + one.size
