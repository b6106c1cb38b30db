"""Which values may stay in memory tiles between phases.

One may if the phases that write it write all of its map, columns sharing it from top to bottom, and for those of its readers whose
windows reach no further than the next column. Others read it from host memory, which it is then written to as well. A reader that
steps over columns is one of those, as memory tiles put such columns together only as they take in a line.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from zellige.aie2.lowering.margins import Read, reads
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.resident import Resident
from zellige.aie2.overlay import Overlay
from zellige.aie2.phase import Phase


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
            for read in reads(phase):
                if read.region.tensor == tensor and at > by[-1] and _near(phase, read, resident, on):
                    uses.append((at, read.role))
                    sides.append(max(read.margins(found.extents)[2:]))
                elif read.region.tensor == tensor:
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


def _near(phase: Phase, read: Read, resident: Resident, on: Overlay) -> bool:
    """Whether what each column's windows see is in its memory tile and its neighbours'."""
    if not _shared(phase.height, on) or (read.role == "source" and (phase.stride[1] > 1 or phase.fill)):
        return False
    step, reach = (phase.stride[0], phase.window[0]) if read.role == "source" else (1, 1)
    each = -(-phase.height // on.columns)
    for column in range(on.columns):
        end = min((column + 1) * each, phase.height)
        first = read.region.y + (end - each) * step
        rows = (each - 1) * step + reach
        seen = [piece.column for piece in resident.pieces(first, rows) if piece.column is not None]
        if not all(on.reaches(column, other) for other in seen):
            return False
    return True
