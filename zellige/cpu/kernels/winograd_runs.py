"""Runs: neighbouring tiles of one row, as a vector holds them; and the tables that say where the runs of every vector lie.

A vector of tiles has as many runs as a tile's side has pixels, each as wide as the vector itself (in pixels), or twice as many of
half the width, which fill the vectors of some maps better but take twice the loads. Either way as many vectors of neighbouring
pixels as a tile's side has hold one row of all tiles, each made of one run or of two side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ir

from zellige.cpu.emitter import F32, I1, I32, VOID, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.winograd_points import TRANSFORMS, Transform

WHOLE = 0               # first column of both tables: no mask is needed
EDGES = 2               # in the table of windows, in its place: only outermost pixels of windows may not be read
ENDS = 1                # second column of the table of outputs: some run ends rows of the map


@dataclass(frozen=True)
class Tiling:
    """How vectors hold tiles: ``tile`` pixels a side, in so many ``runs`` to a vector."""

    tile: int
    runs: int

    @property
    def transform(self) -> Transform:
        return TRANSFORMS[self.tile]

    @property
    def beside(self) -> int:
        """Runs side by side in a vector of neighbouring pixels."""
        return self.runs // self.tile

    def width(self, lanes: int) -> int:
        """Pixels of a run in a row, for vectors of so many lanes."""
        return self.tile * lanes // self.runs


def tilings(transform: Transform, isa: Isa) -> list[Tiling]:
    """Wide runs, and narrow ones if they are as wide as a tile."""
    both = (Tiling(transform.tile, transform.tile * beside) for beside in (1, 2))
    return [tiling for tiling in both if tiling.width(isa.lanes) >= transform.tile]


@dataclass(frozen=True)
class WindowFields:
    """Columns of the table of windows, 32-bit integers, one row a vector: for each run its source offset, and, as bits, which
    rows of the window may be read, and which lanes of its two loads; then the tiles whose windows' first row, last row, first
    column and last column may be read."""

    runs: int

    def source(self, run: int) -> int:
        return 1 + run

    def rows(self, run: int) -> int:
        return 1 + self.runs + run

    def lanes(self, run: int, load: int) -> int:
        return 1 + (2 + load) * self.runs + run

    def edge(self, side: int) -> int:
        return 1 + 4 * self.runs + side

    @property
    def count(self) -> int:
        return 5 + 4 * self.runs


@dataclass(frozen=True)
class OutputFields:
    """Columns of the table of outputs, 32-bit integers, one row a vector: for each run its target offset, the first and the
    end of the tile's rows whose rest it makes zero, and the lanes to store in each of them; ``rows`` a tile (half, if pooled)."""

    runs: int
    rows: int

    def target(self, run: int) -> int:
        return 2 + run

    def first_row(self, run: int) -> int:
        return 2 + self.runs + run

    def end_row(self, run: int) -> int:
        return 2 + 2 * self.runs + run

    def store(self, run: int, row: int) -> int:
        return 2 + 3 * self.runs + self.rows * run + row

    @property
    def count(self) -> int:
        return 2 + (3 + self.rows) * self.runs


def load_field(b: Emitter, table: ir.Value, field: int) -> ir.Value:
    """A field of a row of a table, as it is."""
    return b.load(b.at(table, field, element=I32), typ=I32, align=4)


def run_mask(b: Emitter, bits: ir.Value, lanes: int) -> ir.Value:
    """The mask of a run of so many lanes, of which lane i is bit i of an integer."""
    return b.bitcast(b.trunc(bits, ir.IntType(lanes)), ir.VectorType(I1, lanes))


def load_run(b: Emitter, place: ir.Value, lanes: int, mask: ir.Value | None) -> ir.Value:
    """A run's pixels; zeros in place of those outside of a mask, which are not read."""
    kind = ir.VectorType(F32, lanes)
    if mask is None:
        return b.load(place, typ=kind, align=4)
    return b.intrinsic(f"llvm.masked.load.v{lanes}f32.p0", kind, place, ir.Constant(I32, 4), mask, ir.Constant(kind, [0.0] * lanes))


def store_run(b: Emitter, value: ir.Value, place: ir.Value, mask: ir.Value | None) -> None:
    if mask is None:
        b.store(value, place, align=4)
    else:
        b.intrinsic(f"llvm.masked.store.v{value.type.count}f32.p0", VOID, value, place, ir.Constant(I32, 4), mask)


def join_runs(b: Emitter, values: list[ir.Value], tiling: Tiling) -> list[ir.Value]:
    """The pixels of all runs, as whole vectors."""
    if tiling.beside == 1:
        return values
    both = range(b.isa.lanes)
    return [b.shuffle(left, right, both) for left, right in zip(values[::2], values[1::2], strict=True)]


def split_runs(b: Emitter, vectors: list[ir.Value], tiling: Tiling) -> list[ir.Value]:
    """The opposite of ``join_runs``."""
    if tiling.beside == 1:
        return vectors
    lanes = tiling.width(b.isa.lanes)
    return [b.shuffle(vector, vector, range(first, first + lanes)) for vector in vectors for first in (0, lanes)]
