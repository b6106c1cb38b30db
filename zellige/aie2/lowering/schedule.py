"""A phase cut for an overlay: tiles, passes and parts, and every size that follows from them.

Columns of the overlay take rectangles of the result, rows take ranges of its channel groups. Each column goes through its tiles,
for every pass over the groups again; input channels (or rows of a large window) come in parts, between which sums wait in the
accumulators. What doesn't divide overlaps: the last tile, or range of groups, begins so early that it ends where its column's
share, or the map, does. It computes again what is there already. What another core computes too is dropped by the memory tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from zellige.aie2.overlay import ROWS_PER_MEMORY, Overlay, memory_shares
from zellige.aie2.packet import GROUP
from zellige.aie2.phase import Phase

VARIED = 64
"""Packets of a row that may have sizes of their own: each then needs descriptors of its own on its way. More have one size, and are
moved by chains that repeat."""


@dataclass(frozen=True)
class Tiling:
    """How a phase is cut: ``columns`` of the overlay as (down, across), a tile's ``height`` and ``width``, the ``groups`` that a
    core computes in a pass, and the groups and window rows of an input ``part``, of which ``together`` lie in one object of a
    memory tile."""

    columns: tuple[int, int]
    height: int
    width: int
    groups: int
    part: tuple[int, int]
    apart: int
    together: int = 1


@dataclass(frozen=True)
class Stays:
    """Which values of a phase are in memory tiles: its ``source`` and ``residual`` are read there; its ``result`` is written there,
    and ``out``, to host memory, or both."""

    source: bool = False
    residual: bool = False
    result: bool = False
    out: bool = True

    @property
    def any(self) -> bool:
        """If so, columns share the result from top to bottom, as they do all values that stay."""
        return self.source or self.residual or self.result


NOTHING_STAYS = Stays()


@dataclass(frozen=True)
class Cell:
    """What a core computes in a pass: result groups from ``first`` on, of which the first ``skip`` are another's."""

    row: int
    first: int
    skip: int


@dataclass(frozen=True)
class Share:
    """What a column computes: tiles that begin at ``tops`` × ``lefts`` of the result, of which the first ``skip`` rows and columns
    are another's. An ``idle`` column computes what another does, and nobody reads it."""

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    skip: tuple[int, int]
    idle: bool


@dataclass(frozen=True)
class Part:
    """Of the source, groups from ``group`` on and window rows from ``row`` on."""

    group: int
    row: int


@dataclass(frozen=True)
class Schedule:
    """A phase, an overlay, a tiling, and what follows."""

    phase: Phase
    on: Overlay
    tiling: Tiling
    stays: Stays = NOTHING_STAYS

    @cached_property
    def rows(self) -> int:
        """Rows of the overlay that compute. Where each reads channels of its own, four do: they share one stream anyway."""
        most = ROWS_PER_MEMORY if self.phase.own else self.on.rows
        return min(most, self.on.rows, -(-self.phase.groups // self.tiling.groups))

    @cached_property
    def listening(self) -> int:
        """Rows that get packets: those without groups must let activations pass that go to all."""
        return self.rows if self.phase.own else self.on.rows

    @cached_property
    def tiles(self) -> tuple[int, int]:
        """Tiles of a column: down and across."""
        down, across = self.tiling.columns
        height, width = ceil(self.phase.height / down), ceil(self.phase.width / across)
        return ceil(height / self.tiling.height), ceil(width / self.tiling.width)

    @cached_property
    def steps(self) -> int:
        """Tiles of a column."""
        return self.tiles[0] * self.tiles[1]

    def share(self, column: int) -> Share:
        """What a column computes."""
        at = divmod(column, self.tiling.columns[1])
        idle = at[0] >= self.tiling.columns[0]
        places = (0, 0) if idle else at
        tops, above, nothing = _cut(self.phase.height, self.tiling.columns[0], self.tiling.height, places[0], self.tiles[0])
        lefts, before, none = _cut(self.phase.width, self.tiling.columns[1], self.tiling.width, places[1], self.tiles[1])
        return Share(tops, lefts, (above, before), idle or nothing or none)

    @cached_property
    def passes(self) -> tuple[tuple[Cell, ...], ...]:
        """For each pass the cells of its rows."""
        size, groups = self.tiling.groups, self.phase.groups
        found = []
        for first in range(0, groups, self.rows * size):
            starts = range(first, min(first + self.rows * size, groups), size)
            cells = [(start, min(start, groups - size)) for start in starts]
            found.append(tuple(Cell(row, actual, start - actual) for row, (start, actual) in enumerate(cells)))
        return tuple(found)

    @cached_property
    def whole(self) -> int:
        """Passes that are like the first; there may be one more, of fewer groups."""
        fewer = len(self.passes) * self.rows * self.tiling.groups > self.phase.groups
        return len(self.passes) - (fewer and len(self.passes) > 1)

    def kinds(self) -> tuple[tuple[int, int], ...]:
        """Passes that are alike: the first of them, and how many."""
        return tuple((first, count) for first, count in ((0, self.whole), (self.whole, len(self.passes) - self.whole)) if count)

    def shared(self, number: int) -> tuple[int, int]:
        """The groups, first and how many, that the cells of a pass have together."""
        cells = self.passes[number]
        return cells[0].first, cells[-1].first + self.tiling.groups - cells[0].first

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        groups, rows = self.tiling.part
        if self.phase.own:
            return tuple(Part(0, row) for row in range(0, self.phase.window[0], rows))
        last = self.phase.source.groups - groups + self.tiling.apart
        starts = range(0, last, self.tiling.apart)
        return tuple(Part(group, row) for row in range(0, self.phase.window[0], rows) for group in starts)

    @cached_property
    def packets(self) -> int:
        """That a row gets: of every pass one, or of every part for each tile again."""
        return len(self.passes) * (self.steps * len(self.parts) if len(self.parts) > 1 else 1)

    @property
    def varied(self) -> bool:
        """Whether packets may have sizes of their own: few do, of one row from each column."""
        return self.packets <= VARIED and self.on.rows <= self.on.columns

    @cached_property
    def object_groups(self) -> int:
        return self.tiling.groups if self.phase.own else self.tiling.part[0]

    @cached_property
    def object_rows(self) -> int:
        return (self.tiling.height - 1) * self.phase.stride[0] + self.tiling.part[1]

    @property
    def fold(self) -> int:
        """Memory tiles put columns of a line that are so far apart side by side: what a tap reads of a row's pixels is one run."""
        return self.phase.stride[1]

    @cached_property
    def object_width(self) -> int:
        return self.fold * -(-self.phase.reads(1, self.tiling.width)[1] // self.fold)

    @cached_property
    def object_bytes(self) -> int:
        """Of activations that a core reads in a step, the residual apart."""
        return self.object_rows * self.object_groups * self.object_width * GROUP

    @cached_property
    def result_bytes(self) -> int:
        """Of a result, and of a residual."""
        return self.tiling.height * self.tiling.groups * self.tiling.width * GROUP

    def box_groups(self, number: int) -> int:
        """Groups in an object of a memory tile, in that pass."""
        return self.shared(number)[1] if self.phase.own else self.tiling.part[0] + self.tiling.apart * (self.tiling.together - 1)

    def box_bytes(self, number: int) -> int:
        return self.object_rows * self.box_groups(number) * self.object_width * GROUP

    def residual_bytes(self, number: int) -> int:
        """Of the residual of a tile, for all rows, in a memory tile."""
        return self.tiling.height * self.shared(number)[1] * self.tiling.width * GROUP

    @cached_property
    def overrun(self) -> int:
        """Groups that parts read beyond the source's."""
        return 0 if self.phase.own else self.parts[-1].group + self.tiling.part[0] - self.phase.source.groups

    @cached_property
    def spares(self) -> bool:
        """Whether no activations come from host memory, so that shims could bring something else."""
        return self.stays.source and (self.phase.residual is None or self.stays.residual)

    @cached_property
    def halved(self) -> bool:
        """Whether packets come in halves, by both channels of their shim."""
        return self.spares and bool(memory_shares(self.on).rest)

    @cached_property
    def stays_whole(self) -> bool:
        """Whether what stays in memory tiles is written by one core, and nothing beside it is read."""
        twice = self.stays.result and any(cell.skip for cells in self.passes for cell in cells)
        return not twice and not (self.stays.source and self.overrun)


def _cut(size: int, columns: int, tile: int, place: int, count: int) -> tuple[tuple[int, ...], int, bool]:
    """Along one axis of ``size``: where the ``count`` tiles of a share begin, how much of each another share has, and whether all
    of it."""
    each = -(-size // columns)
    start, end = place * each, min((place + 1) * each, size)
    if start >= size:
        return (*_cut(size, columns, tile, 0, count)[:2], True)
    last = end - tile
    return tuple(min(start + i * tile, last) for i in range(count)), max(start - last, 0), False
