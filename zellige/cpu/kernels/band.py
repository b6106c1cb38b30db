"""The band kernel: direct convolution with only the kept columns of each band of output rows.

Lanes run over pixels and weights are broadcast. A *tile* is one to a few vectors of pixels, a *band* a few output rows
that share one list of columns; a column is an input channel at one tap, which is nothing but an offset into the source
planes. So 1×1 and k×k, dilated, grouped, depthwise and (from phase planes) strided convolutions, dense or sparse by 8×8 blocks,
8×1 vectors or tiles, are all this one loop:

    for item in items:                           a tile and a band
        sums[row][vector] = bias[row]            rows × vectors registers
        for column of the band:
            x[vector] = source[tile, column]     one load each
            sums[row][vector] += weight[column][row] · x[vector]
        target[row][vector] = epilogue(sums)

The same idea as XNNPACK's sparse matrix product, with bands in place of single rows and taps in the list of offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import broadcasts, emit_store

VECTOR_FIELDS = 4   # source, target, inside, store: zellige.cpu.tables.vectors
BAND_FIELDS = 4     # first column, end of columns, first output row, rows
AHEAD = 8192        # bytes of weights that are fetched before their use: a layer's are seldom in a cache when it begins
ITEM_FIELDS = 3     # first vector of the tile, vectors in it, band


@dataclass(frozen=True)
class BandKernel(Kernel):
    """One variant: ``rows`` of a band, the tile widths it knows (in vectors), what happens before storing.

    ``bands`` hold 32-bit fields: first and end of the band's columns, its first output row and how many of ``rows`` are
    real. ``columns`` are the source offsets; ``weights`` are [column][rows]; ``bias`` has ``rows`` spare entries.
    """

    rows: int
    vectors: tuple[int, ...]
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = (
        "source", "target", "vectors", "items", "bands", "columns", "weights", "bias", "target_plane",
        "operand0", "operand0_plane", "operand1", "operand1_plane")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        tiles = {count: self._emit_tile(module, isa, count) for count in self.vectors}
        b, slots, begin, end, _ = self.entry(module, isa)
        vectors, items, bands = (self.slot(b, slots, name) for name in ("vectors", "items", "bands"))
        with b.loop(begin, end) as index:
            item = b.at(items, index, ITEM_FIELDS, I32)
            first, width, band = (b.load_index(item, field) for field in range(ITEM_FIELDS))
            arguments = (slots, b.at(vectors, first, VECTOR_FIELDS, I32), b.at(bands, band, BAND_FIELDS, I32))
            for count, tile in tiles.items():
                with b.if_then(b.icmp_signed("==", width, ir.Constant(I64, count))):
                    b.call(tile, arguments)
        b.ret_void()

    def _emit_tile(self, module: ir.Module, isa: Isa, vectors: int) -> ir.Function:
        """The inner loop for tiles of so many vectors: ``tile(slots, first vector, band)``."""
        b = Emitter(module, isa, f"{self.symbol}_tile{vectors}", [POINTER] * 3, internal=True)
        slots, table, band = b.function.args
        places = [(row, vector) for row in range(self.rows) for vector in range(vectors)]
        first, last, first_row, rows = (b.load_index(band, field) for field in range(BAND_FIELDS))
        source, columns, weights, bias = (self.slot(b, slots, name) for name in ("source", "columns", "weights", "bias"))
        pixels = [b.at(source, b.load_index(table, VECTOR_FIELDS * vector)) for vector in range(vectors)]
        start = [b.splat(b.load_scalar(bias, b.add(first_row, ir.Constant(I64, row)))) for row in range(self.rows)]
        sums = {(row, vector): b.variable(start[row]) for row, vector in places}
        with b.loop(first, last) as column:
            b.prefetch(b.at(weights, b.add(column, ir.Constant(I64, AHEAD // (4 * self.rows))), self.rows))
            offset = b.load_index(columns, column)
            x = [b.load_vector(b.at(pixel, offset)) for pixel in pixels]
            for row, weight in enumerate(broadcasts(b, b.at(weights, column, self.rows), self.rows)):
                for vector in range(vectors):
                    total = b.load(sums[row, vector], typ=b.vector)
                    b.store(b.multiply_add(x[vector], weight, total), sums[row, vector])
        for row in range(self.rows):
            totals = [b.load(sums[row, vector], typ=b.vector) for vector in range(vectors)]
            with b.if_then(b.icmp_signed("<", ir.Constant(I64, row), rows), likely=True):
                self._emit_store(b, slots, table, b.add(first_row, ir.Constant(I64, row)), totals)
        b.ret_void()
        return b.function

    def _emit_store(self, b: Emitter, slots: ir.Value, table: ir.Value, row: ir.Value, totals: list[ir.Value]) -> None:
        """One output row of a tile: through the epilogue, zero outside of the map, into the target plane."""
        plane, *operands = self._planes(b, slots, row)
        for vector, total in enumerate(totals):
            offset, inside, store = (b.load_index(table, VECTOR_FIELDS * vector + field) for field in (1, 2, 3))
            added = [b.load_vector(b.at(operand, offset)) for operand in operands]
            value = emit_epilogue(b, self.epilogue, total, added.__getitem__)
            emit_store(b, value, b.at(plane, offset), inside, store)

    def _planes(self, b: Emitter, slots: ir.Value, row: ir.Value) -> Iterator[ir.Value]:
        """Where the output row's plane begins in the target, then in every operand of the epilogue."""
        for name in ("target", *(f"operand{number}" for number in range(operand_count(self.epilogue)))):
            yield b.at(self.slot(b, slots, name), row, self.slot(b, slots, f"{name}_plane", I64))
