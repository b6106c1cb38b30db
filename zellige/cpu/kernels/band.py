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

The same idea as XNNPACK's sparse matrix product, with bands in place of single rows and taps in the list of offsets. Two things
keep small maps from wasting lanes. Maps without margins lie flat, so that vectors run across the ends of rows: there a *masked*
kernel reads only the lanes whose tap lies inside of the map. And the last few pixels of a map, which would fill a
small part of a vector, ride along as *singles* of a tile (``band_singles.py``): 7 × 7 pixels are three vectors and a single.

A *staged* kernel reads planes that are made for it, part of the map by part, where a stride keeps taps from being offsets into the
source's own: by the thread that reads them, in scratch memory of its own, when it comes to the first tile of a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import llvmlite.ir as ir

from zellige.cpu.emitter import I8, I16, I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.band_singles import Single
from zellige.cpu.kernels.copy import emit_copies
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import broadcasts, emit_fields, emit_store

VECTOR_FIELDS = 4   # source, target, inside, store: zellige.cpu.tables.vectors
BAND_FIELDS = 4     # first column, end of columns, first output row, rows
AHEAD = 8192        # bytes of weights that are fetched before their use: a layer's are seldom in a cache when it begins
MASKED_TAPS = 65536  # of a filter, all of which a masked kernel can name
COLUMNS_AHEAD = 16  # whose pixels are fetched before their use: they lie in other planes, in an order that no processor foresees
ITEM_FIELDS = 4     # first vector of the tile, vectors in it, singles after them, band
STAGE_FIELDS = 2    # of an item of a staged kernel: the first and the end of the copies that its part of the map needs


class Tile(NamedTuple):
    """A shape of tiles: so many vectors of pixels, and so many single pixels."""

    vectors: int
    singles: int = 0

    @property
    def entries(self) -> int:
        """Rows of the table of vectors that it takes."""
        return self.vectors + self.singles


@dataclass(frozen=True)
class BandKernel(Kernel):
    """One variant: ``rows`` of a band, the shapes of tiles that it knows, what happens before storing, whether it is masked, or
    staged.

    ``bands`` hold 32-bit fields: first and end of the band's columns, its first output row and how many of ``rows`` are
    real. ``columns`` are the source offsets, with ``COLUMNS_AHEAD`` spare entries; ``weights`` are [column][rows]; ``bias`` has
    ``rows`` spare entries. A masked kernel has ``taps``, the tap of every column, and ``masks`` [tile][tap][entry], ``tap_count``
    to a tile; both of 16 bits each. A staged kernel has ``stages``, fields for every item, and the tables of a ``CopyKernel``.
    """

    rows: int
    tiles: tuple[Tile, ...]
    epilogue: Epilogue = ()
    masked: bool = False
    staged: bool = False

    SLOTS: ClassVar[tuple[str, ...]] = (
        "source", "target", "vectors", "items", "bands", "columns", "weights", "bias", "target_plane",
        "operand0", "operand0_plane", "operand1", "operand1_plane", "taps", "masks", "tap_count",
        "stages", "copies", "copy_vectors", "copy_indices", "fill", "scratch", "scratch_bytes")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        tiles = {tile: self._emit_tile(module, isa, tile) for tile in self.tiles}
        b, slots, begin, end, thread = self.entry(module, isa)
        vectors, items, bands, source = (self.slot(b, slots, name) for name in ("vectors", "items", "bands", "source"))
        if self.staged:
            source = b.at(self.slot(b, slots, "scratch"), thread, self.slot(b, slots, "scratch_bytes", I64), I8)
        held = b.variable(ir.Constant(I64, -1))  # the first copy of the part that is staged
        with b.loop(begin, end) as index:
            if self.staged:
                self._emit_stage(b, slots, index, source, held)
            item = b.at(items, index, ITEM_FIELDS, I32)
            first, width, singles, band = (b.load_index(item, field) for field in range(ITEM_FIELDS))
            masks = b.at(self.slot(b, slots, "masks"), b.mul(first, self.slot(b, slots, "tap_count", I64)), element=I16)
            arguments = (slots, source, b.at(vectors, first, VECTOR_FIELDS, I32), b.at(bands, band, BAND_FIELDS, I32), masks)
            for tile, function in tiles.items():
                chosen = b.and_(*(b.icmp_signed("==", value, ir.Constant(I64, count))
                                  for value, count in zip((width, singles), tile, strict=True)))
                with b.if_then(chosen):
                    b.call(function, arguments)
        b.ret_void()

    def _emit_stage(self, b: Emitter, slots: ir.Value, item: ir.Value, planes: ir.Value, held: ir.Value) -> None:
        """Make the planes that an item reads, unless the one before had the same."""
        first, end = emit_fields(b, self.slot(b, slots, "stages"), item, STAGE_FIELDS)
        with b.if_then(b.icmp_signed("!=", first, b.load(held, typ=I64))):
            copies, copy_vectors, indices = (self.slot(b, slots, name) for name in ("copies", "copy_vectors", "copy_indices"))
            source, fill = self.slot(b, slots, "source"), self.slot(b, slots, "fill", I64)
            emit_copies(b, (copies, copy_vectors, indices), source, planes, fill, first, end)
            b.store(first, held)

    def _emit_tile(self, module: ir.Module, isa: Isa, tile: Tile) -> ir.Function:
        """The inner loop for tiles of one shape: ``tile(slots, source, first vector, band, masks)``."""
        b = Emitter(module, isa, f"{self.symbol}_tile{tile.vectors}_{tile.singles}", [POINTER] * 5, internal=True)
        slots, source, table, band, masks = b.function.args
        vectors = range(tile.vectors)
        first, last, first_row, rows = (b.load_index(band, field) for field in range(BAND_FIELDS))
        columns, weights, bias = (self.slot(b, slots, name) for name in ("columns", "weights", "bias"))
        taps = self.slot(b, slots, "taps")
        pixels = [b.at(source, b.load_index(table, VECTOR_FIELDS * entry)) for entry in range(tile.entries)]
        row_bias = b.at(bias, first_row)
        start = [b.splat(b.load_scalar(row_bias, row)) for row in range(self.rows)]
        sums = {(row, vector): b.variable(start[row]) for row in range(self.rows) for vector in vectors}
        singles = [Single.start(b, row_bias, self.rows) for _ in range(tile.singles)]
        with b.loop(first, last) as column:
            b.prefetch(b.at(weights, b.add(column, ir.Constant(I64, AHEAD // (4 * self.rows))), self.rows))
            offset, column_weights = b.load_index(columns, column), b.at(weights, column, self.rows)
            tap = b.at(masks, self._tap(b, taps, column), tile.entries, I16) if self.masked else None
            places = [b.at(pixel, offset) for pixel in pixels]
            inside = [emit_tap_mask(b, tap, entry) for entry in range(tile.entries)]
            x = [load_pixels(b, places[vector], inside[vector]) for vector in vectors]
            if self._fetches_pixels(tile):
                soon = b.load_index(columns, b.add(column, ir.Constant(I64, COLUMNS_AHEAD)))
                for vector in vectors:
                    b.prefetch(b.at(pixels[vector], soon))
            for row, weight in enumerate(broadcasts(b, column_weights, self.rows)):
                for vector in vectors:
                    total = b.load(sums[row, vector], typ=b.vector)
                    b.store(b.multiply_add(x[vector], weight, total), sums[row, vector])
            for entry, single in enumerate(singles, tile.vectors):
                single.add_column(places[entry], inside[entry], column_weights)
        results = [single.finish(self.epilogue, self._operands(b, slots, table, entry, first_row), rows)
                   for entry, single in enumerate(singles, tile.vectors)]
        for row in range(self.rows):
            totals = [b.load(sums[row, vector], typ=b.vector) for vector in vectors]
            with b.if_then(b.icmp_signed("<", ir.Constant(I64, row), rows), likely=True):
                plane, *operands = self._planes(b, slots, b.add(first_row, ir.Constant(I64, row)))
                for vector, total in enumerate(totals):
                    self._emit_store(b, b.at(table, vector, VECTOR_FIELDS, I32), plane, operands, total)
                for entry, values in enumerate(results, tile.vectors):
                    target = b.at(plane, b.load_index(table, VECTOR_FIELDS * entry + 1))
                    b.store(b.extract_element(values, ir.Constant(I32, row)), target, align=4)
        b.ret_void()
        return b.function

    def _tap(self, b: Emitter, taps: ir.Value, column: ir.Value) -> ir.Value:
        return b.zext(b.load(b.at(taps, column, element=I16), typ=I16, align=2), I64)

    def _fetches_pixels(self, tile: Tile) -> bool:
        """Whether a column's multiply-adds leave time to fetch a later one's pixels: two loads can start while two of them do."""
        loads = self.rows + tile.vectors + 2 * tile.singles + 2 + (1 + tile.entries if self.masked else 0)
        return loads + 1 + tile.vectors <= self.rows * tile.vectors + tile.singles

    def _emit_store(self, b: Emitter, entry: ir.Value, plane: ir.Value, operands: list[ir.Value], total: ir.Value) -> None:
        """One output row of a vector: through the epilogue, zero outside of the map, into the target plane."""
        offset, inside, store = (b.load_index(entry, field) for field in (1, 2, 3))
        added = [b.load_vector(b.at(operand, offset)) for operand in operands]
        value = emit_epilogue(b, self.epilogue, total, added.__getitem__)
        emit_store(b, value, b.at(plane, offset), inside, store)

    def _planes(self, b: Emitter, slots: ir.Value, row: ir.Value) -> Iterator[ir.Value]:
        """Where the output row's plane begins in the target, then in every operand of the epilogue."""
        for name in ("target", *(f"operand{number}" for number in range(operand_count(self.epilogue)))):
            yield b.at(self.slot(b, slots, name), row, self.slot(b, slots, f"{name}_plane", I64))

    def _operands(self, b: Emitter, slots: ir.Value, table: ir.Value, entry: int, row: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        """Where each operand of the epilogue has a single in the plane of an output row, and the step to the next plane."""
        _, *planes = self._planes(b, slots, row)
        offset = b.load_index(table, VECTOR_FIELDS * entry + 1)
        return [(b.at(plane, offset), self.slot(b, slots, f"operand{number}_plane", I64)) for number, plane in enumerate(planes)]


def emit_tap_mask(b: Emitter, tap: ir.Value | None, entry: int) -> ir.Value | None:
    """The lanes of an entry whose pixel at this tap lies inside of the map; None if all do."""
    if tap is None:
        return None
    return b.lane_mask(b.load(b.at(tap, entry, element=I16), typ=I16, align=2))


def load_pixels(b: Emitter, place: ir.Value, inside: ir.Value | None) -> ir.Value:
    return b.load_vector(place) if inside is None else b.masked_load(place, inside, b.splat(0.0))
