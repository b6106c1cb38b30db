"""What is decided before anything is written: where values lie, which stay in memory tiles, and how phases are cut."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from zellige.aie2.lowering.parts import Counts
from zellige.aie2.lowering.place import place
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.residency import NONE, Residency
from zellige.aie2.lowering.residency_search import Cycles, choose_residency
from zellige.aie2.lowering.schedule import NOTHING_STAYS, Schedule, Stays
from zellige.aie2.lowering.stems import fold_stems
from zellige.aie2.lowering.tiling import Choice, choose, estimate, fits
from zellige.aie2.overlay import Overlay
from zellige.aie2.packet import PRODUCT
from zellige.aie2.phase import Phase
from zellige.errors import CompileError
from zellige.graph.quantized import QuantizedGraph

ResidencyChoice = Callable[[Placement, Overlay, Collection[str], Cycles], Residency]
"""From a placed network, an overlay, the tensors that the host reads in the end, and estimates, to what stays."""

ALL_STAYS = Stays(source=True, residual=True, result=True, out=False)


@dataclass(frozen=True, eq=False)
class Plan:
    """Where values lie in host memory, which stay in memory tiles, and how phases are cut. ``folds``: inputs of which so many
    columns lie in one."""

    placement: Placement
    schedules: tuple[Schedule, ...]
    folds: Mapping[str, int]
    residency: Residency = NONE


def plan(graph: QuantizedGraph, on: Overlay, choose_what_stays: ResidencyChoice = choose_residency) -> Plan:
    """Places and schedules of a network on an overlay. ``choose_what_stays``: in memory tiles between phases.

    Results of convolutions have their channel groups in the order that shares out the work best; so a network is placed twice.
    Raises ``CompileError`` naming the first node that can't be placed.
    """
    read = outputs_of(graph)
    graph, folds = fold_stems(graph)
    choices = _Choices(graph, on)
    found = place(graph)
    for phase in found.phases:
        choices.host(phase)
    residency = choose_what_stays(found, on, {found.places[name].tensor for name in read}, choices.cycles)
    stays = residency.stays(found, {found.places[name].tensor for name in read})
    chosen = {phase.name: choices.exact(phase, stays[phase.name]) for phase in found.phases}
    found = place(graph, {name: one.order for name, one in chosen.items() if name in choices.free})
    stays = residency.stays(found, {found.places[name].tensor for name in read})
    schedules = tuple(_again(phase, chosen.get(phase.name), on, stays[phase.name]) for phase in found.phases)
    return Plan(found, schedules, folds, residency)


def _again(phase: Phase, before: Choice | None, on: Overlay, stays: Stays) -> Schedule:
    """The schedule of a phase that is placed for the second time."""
    if before is not None:
        schedule = replace(before.schedule, phase=phase, stays=stays)
        if schedule.stays == before.schedule.stays and _alike(phase, before.schedule.phase):
            return schedule
        if phase.residual is None and fits(schedule):
            return schedule
    return choose(phase, on, stays=stays).schedule


def _alike(phase: Phase, other: Phase) -> bool:
    """Whether two phases have as many taps everywhere."""
    one, two = phase.taps, other.taps
    return all(np.array_equal(a, b) for a, b in ((one.ends, two.ends), (one.groups, two.groups), (one.rows, two.rows)))


def outputs_of(graph: QuantizedGraph) -> list[str]:
    """The int8 values that the host reads in the end: outputs, or what it makes outputs of."""
    read = [name for output in graph.outputs for name in (graph.tail[output].inputs if output in graph.tail else (output,))]
    return list(dict.fromkeys(read))


@dataclass
class _Choices:
    """Schedules of phases that are placed for the first time, by what stays; each is looked for once."""

    graph: QuantizedGraph
    on: Overlay
    free: set[str] = field(default_factory=set)
    """Phases whose results may have their groups in any order."""

    def __post_init__(self) -> None:
        self._added = {name for node in self.graph if node.op in ("add", "subtract") for name in node.inputs}
        self._found: dict[tuple[str, Stays], Choice | None] = {}
        self._counts: dict[str, Counts] = {}

    def exact(self, phase: Phase, stays: Stays) -> Choice:
        """The best schedule. Raises ``CompileError`` if there is none."""
        key = (phase.name, stays)
        if self._found.get(key) is None:
            self._found[key] = choose(phase, self.on, phase.name in self.free, stays, self._counted(phase))
        found = self._found[key]
        assert found is not None
        return found

    def host(self, phase: Phase) -> Choice:
        """The best, if nothing stays."""
        if phase.name == phase.node and phase.name not in self._added and _may_be_ordered(phase):
            self.free.add(phase.name)
        return self.exact(phase, NOTHING_STAYS)

    def cycles(self, phase: Phase, stays: Stays) -> float:
        """What a phase takes about, if that stays; by one tiling, whatever stays."""
        if not stays.any:
            return self.exact(phase, stays).estimate.cycles
        key = (phase.name, ALL_STAYS)
        if key not in self._found:
            try:
                self._found[key] = choose(phase, self.on, phase.name in self.free, ALL_STAYS, self._counted(phase))
            except CompileError:
                self._found[key] = None
        found = self._found[key]
        if found is None:
            return inf
        counts, groups = self._counted(phase), found.schedule.tiling.groups
        return estimate(replace(found.schedule, stays=stays), counts.dealt(groups) if phase.name in self.free else counts).cycles

    def _counted(self, phase: Phase) -> Counts:
        if phase.name not in self._counts:
            self._counts[phase.name] = Counts(phase)
        return self._counts[phase.name]


def _may_be_ordered(phase: Phase) -> bool:
    """Whether channel groups of its result may lie in any order: not as those of what is added."""
    return phase.operation == PRODUCT and not phase.own and phase.residual is None
