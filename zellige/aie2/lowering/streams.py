"""What the channels of the overlay do in a phase: chains for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zellige.aie2.device import KINDS
from zellige.aie2.lowering.chains import Chain, Dimensions, Turns, pattern
from zellige.aie2.lowering.packets import Parcel
from zellige.aie2.lowering.resident import Resident
from zellige.aie2.lowering.schedule import Schedule
from zellige.aie2.overlay import DEPTH
from zellige.aie2.packet import GROUP
from zellige.aie2.phase import Region
from zellige.aie2.program import Channel
from zellige.aie2.tensor import Tensor

SHIM_CHAIN = 2
"""Descriptors of a chain of a shim: half of what its channel has, so that the next task can wait behind the one that runs."""

Effect = Literal["host", "resident", "read"]
"""What others may have to wait for: results are in host memory; or in memory tiles; what stayed in memory tiles has been read."""


@dataclass(frozen=True)
class Stream:
    """All that a channel does in a phase. ``what`` is for names. ``needs``: phases before must be done with what it reads or
    overwrites; ``effect``: what others may wait for; ``ahead``: it brings packets, the first of which may come while the phase
    before is at work."""

    what: str
    channel: Channel
    chains: tuple[Chain, ...]
    needs: bool = False
    effect: Effect | None = None
    ahead: bool = False


@dataclass(frozen=True)
class Fill:
    """Zeros that a phase brings to all resident buffers before it does anything else: from byte ``at`` of each on, from a host
    buffer of zeros."""

    at: int
    dimensions: Dimensions
    zeros: str


@dataclass(frozen=True)
class Lowering:
    """A scheduled phase, where its tensors lie in host memory and in memory tiles, its packets (by the column that sends them),
    and the turns of all rings. ``fills`` come first. ``reuses``: its results overwrite what stayed there before. ``follows``: the
    phase before leaves the shims' first channels to packets, too."""

    schedule: Schedule
    tensors: Mapping[str, Tensor]
    parcels: Mapping[int, Parcel]
    turns: Turns
    residents: Mapping[str, Resident]
    fills: Sequence[Fill] = ()
    reuses: bool = False
    follows: bool = False

    @property
    def ready(self) -> float:
        """The step in which packets of the next phase may start: as many packets before the end as they come early."""
        schedule = self.schedule
        return len(schedule.passes) * schedule.steps * (1 - DEPTH / schedule.packets)

    @property
    def spares(self) -> bool:
        """Whether the shims' first channels bring nothing but packets, if anything."""
        return self.schedule.spares and not self.fills

    def kinds(self) -> list[tuple[int, int, int]]:
        """Passes that are alike: the first, how many, and the step in which they begin."""
        return [(first, count, first * self.schedule.steps) for first, count in self.schedule.kinds()]

    def tiles(self, column: int) -> list[tuple[int, int]]:
        """Where the tiles of a column begin."""
        share = self.schedule.share(column)
        return [(top, left) for top in share.tops for left in share.lefts]

    def offset(self, region: Region, y: int, group: int, x: int) -> int:
        return self.tensors[region.tensor].offset(region.y + y, region.group + group, region.x + x)

    def host_pattern(self, region: Region, rows: int, groups: int, width: int) -> tuple[tuple[int, int], ...]:
        tensor = self.tensors[region.tensor]
        return pattern([(rows, tensor.row), (groups, tensor.line), (width, GROUP)], KINDS["shim"])
