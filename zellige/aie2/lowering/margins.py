"""Margins of host tensors: as wide as what phases read beyond the edges, and of zeros, or of −128 where maxima ignore them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from zellige.aie2.lowering.placement import Extent, Placement, region
from zellige.aie2.lowering.taps import window_taps
from zellige.aie2.packet import GROUP, MAXIMUM
from zellige.aie2.phase import Phase, Region
from zellige.aie2.tensor import Place, Tensor
from zellige.graph.fixed_point import LEAST


@dataclass(frozen=True)
class Read:
    """What a phase reads as its ``role``, its source or its residual: a region, with its rows and columns."""

    role: Literal["source", "residual"]
    region: Region
    rows: int
    columns: int

    def margins(self, extents: Mapping[str, Extent]) -> tuple[int, int, int, int]:
        """How far beyond the edges of its tensor it reaches: top, bottom, left, right."""
        return margins(self.region, self.rows, self.columns, extents[self.region.tensor])


def reads(phase: Phase) -> list[Read]:
    """All that a phase reads."""
    found = [Read("source", phase.source, *phase.reads(phase.height, phase.width))]
    return found if phase.residual is None else [*found, Read("residual", phase.residual, phase.height, phase.width)]


def margins(read: Region, rows: int, columns: int, extent: Extent) -> tuple[int, int, int, int]:
    """How far beyond the edges of its tensor a region reaches: top, bottom, left, right."""
    return (max(0, -read.y), max(0, read.y + rows - extent.height), max(0, -read.x), max(0, read.x + columns - extent.width))


def _margins_of(where: Place, found: Placement) -> tuple[int, int, int, int]:
    return margins(region(where), where.height, where.width, found.extents[where.tensor])


def settle_margins(found: Placement) -> None:
    """Maxima that need margins of −128 where others need zeros get a copy of their input."""
    zeros = {where.tensor for where in found.places.values() if any(_margins_of(where, found))}
    zeros |= {read.region.tensor for phase in found.phases for read in reads(phase)
              if any(read.margins(found.extents)) and phase.fill == 0}
    phases = []
    for phase in found.phases:
        source, extent = phase.source, found.extents[phase.source.tensor]
        if phase.fill == LEAST and source.tensor in zeros and any(reads(phase)[0].margins(found.extents)):
            name = found.free(f"{phase.name}.copy")
            found.extents[name] = Extent(source.groups, extent.height, extent.width)
            ones, none = np.ones((source.groups, GROUP), np.int32), np.zeros((source.groups, GROUP), np.int32)
            phases.append(Phase(name, phase.node, MAXIMUM, replace(source, y=0, x=0), Region(name, 0, source.groups), extent.height,
                                extent.width, window_taps(source.groups, (1, 1)), ones, none, none, none, fill=None))
            phase = replace(phase, source=replace(source, tensor=name, group=0))
        phases.append(phase)
    found.phases = phases


def tensors_of(found: Placement) -> dict[str, Tensor]:
    """The host tensors, with margins for all that phases read of them."""
    wide: dict[str, list[tuple[int, int, int, int]]] = {name: [(0, 0, 0, 0)] * 2 for name in found.extents}
    fills: dict[str, int] = {}
    for where in found.places.values():
        wide[where.tensor].append(_margins_of(where, found))
    for phase in found.phases:
        for read in reads(phase):
            wide[read.region.tensor].append(read.margins(found.extents))
        if phase.fill == LEAST:
            fills[phase.source.tensor] = LEAST
    return {name: Tensor(name, extent.groups, extent.height, extent.width, tuple(map(max, *wide[name])),
                         fills.get(name, 0))
            for name, extent in found.extents.items()}
