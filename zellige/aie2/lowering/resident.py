"""Where values lie that stay in memory tiles between phases.

Every column of the overlay keeps the rows of the map that it computes: columns share such maps from top to bottom, so what a
window reads beyond the rows of its column is in its neighbours' memory tiles, which a memory tile's first channels reach (AM020).
Rows beyond the map's edges are read from a place with zeros. Columns beyond them are there: lines have zeros between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from zellige.aie2.device import KINDS
from zellige.aie2.lowering.chains import Dimensions, Visit, linear, pattern
from zellige.aie2.overlay import resident_buffer
from zellige.aie2.packet import GROUP

ZEROS = 0
"""Where zeros lie in the resident buffers, if any are needed."""


@dataclass(frozen=True)
class Piece:
    """So many rows of a map from ``y`` on, in the memory tile of a column; ``None``: beyond the map."""

    column: int | None
    y: int
    rows: int


@dataclass(frozen=True)
class Resident:
    """A tensor in the resident buffers of all ``columns``, from byte ``at`` of each on: int8 of [rows][groups][line][8], where a
    line is ``margin`` zeros and ``width`` pixels. As many zeros come last."""

    tensor: str
    at: int
    height: int
    groups: int
    width: int
    margin: int
    columns: int

    @property
    def rows(self) -> int:
        """That each column keeps: those up to the end of its share."""
        return -(-self.height // self.columns)

    @property
    def line(self) -> int:
        """Bytes from a group to the next."""
        return GROUP * (self.margin + self.width)

    @property
    def size(self) -> int:
        return self.rows * self.groups * self.line + GROUP * self.margin

    @property
    def margins(self) -> Dimensions:
        """The zeros between lines, from ``at`` on."""
        return pattern([(self.rows * self.groups + 1, self.line), (self.margin, GROUP)], KINDS["memory"])

    def offset(self, column: int, y: int, group: int, x: int) -> int:
        """Byte of a pixel of the rows that a column keeps."""
        first = min((column + 1) * self.rows, self.height) - self.rows
        return self.at + ((y - first) * self.groups + group) * self.line + GROUP * (self.margin + x)

    def pieces(self, y: int, rows: int) -> Iterator[Piece]:
        """Where rows of the map are, from the top down."""
        end = y + rows
        while y < end:
            if 0 <= y < self.height:
                column = y // self.rows
                until = min(end, self.height, (column + 1) * self.rows)
                yield Piece(column, y, until - y)
            else:
                until = min(end, 0) if y < 0 else end
                yield Piece(None, y, until - y)
            y = until

    def reads(self, column: int, box: Box, packet: int, parts: int = 1, apart: int = 0) -> list[Visit]:
        """What a column's memory tile sends of a box; or of so many boxes, one after another, ``apart`` groups from each other."""
        pieces = list(self.pieces(box.y, box.rows))
        if len(pieces) == 1 and pieces[0].column is not None:
            return [self._read(pieces[0], box, packet, parts, apart)]
        found = []
        for part in range(parts):
            moved = Box(box.y, box.rows, box.group + part * apart, box.groups, box.x, box.width)
            for piece in pieces:
                if piece.column is None:
                    size = piece.rows * box.groups * box.width * GROUP
                    found.append(Visit(resident_buffer(column), ZEROS, linear(size), packet))
                else:
                    found.append(self._read(piece, moved, packet, 1, 0))
        return found

    def _read(self, piece: Piece, box: Box, packet: int, parts: int, apart: int) -> Visit:
        assert piece.column is not None
        size = _pattern(parts, apart * self.line, piece.rows, self.groups * self.line, box.groups, self.line, box.width)
        return Visit(resident_buffer(piece.column), self.offset(piece.column, piece.y, box.group, box.x), size, packet)

    def written(self, rows: int, groups: int, width: int) -> Dimensions:
        """Where results of [rows][groups][width] go."""
        return _pattern(1, 0, rows, self.groups * self.line, groups, self.line, width)

    def read(self, rows: int, groups: int, width: int) -> Dimensions:
        """How they are read as [groups][rows][width]: as shims take them."""
        size = [(groups, self.line), (rows, self.groups * self.line), (width, GROUP)]
        return pattern(size, KINDS["memory"])


@dataclass(frozen=True)
class Box:
    """A part of a tensor."""

    y: int
    rows: int
    group: int
    groups: int
    x: int
    width: int


@cache
def _pattern(parts: int, apart: int, rows: int, row: int, groups: int, line: int, width: int) -> Dimensions:
    return pattern([(parts, apart), (rows, row), (groups, line), (width, GROUP)], KINDS["memory"])
