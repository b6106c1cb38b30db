"""The row kernel: filters of 5 to 8 taps a row at a stride of 2, as stems of networks have them, with half the multiplications.

A stride of 2 splits the pixels of a row into even and odd ones, and the taps with them: two filters of at most 4 taps at
stride 1, whose results are added. Winograd's algorithm F(4, 4) along the rows makes 4 outputs of such a filter from 7 products, in
place of 16 (``row_transforms.py``), and products of all filters are added before they are transformed back. A *tile* is 4 pixels of
an output row; a *strip* some whole rows of outputs, whose tiles follow one another: a vector of tiles may run across the ends of
rows. Its sources are the planes that a stage makes of the map, one for each phase of the stride. An item is a strip, with all bands
of output channels:

    for plane, row of the strip's window:      7 points of every tile
        points[point][plane][row, tile] = input transform(source)
    for some vectors of the strip's tiles, for band:
        for point:                             7
            for column of the band:            a plane, some rows down
                sums[row][vector] += weight[point][column][row] · points[point][vector + column]
        target = epilogue(bias + output transform(sums))

Where rows of the target are whole tiles, the pixels of a vector of tiles follow one another in memory too. Elsewhere a row's last
tile hangs over its end, and pixels are stored in *pieces*, each of one row: the margin behind a row becomes zero with its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I8, I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import broadcasts, emit_fields, emit_store
from zellige.cpu.kernels.row_transforms import POINTS, TILE, from_points, join_tiles, load_windows, to_points

LINE = 16           # elements of a cache line; as a gap it keeps the sums of the points in different cache sets
ITEM_FIELDS = 5     # where the window begins in a source plane, the strip in a target plane; the window's rows; chunks from, to
CHUNK_FIELDS = 3    # first vector, vectors, the first one's place in ``outputs``
PIECE_FIELDS = 3    # where lane 0 goes, the lanes inside of the map, those that are stored
OUTPUT_FIELDS = TILE + 3  # of a vector: whether its pixels follow one another, where the first goes; where its parts' pieces begin


@dataclass(frozen=True)
class RowWinogradKernel(Kernel):
    """One variant: ``rows`` of a band, how many vectors of tiles may share each weight, the epilogue.

    ``starts`` say where the lists of bands begin in ``columns``, offsets in the points of a plane; ``weights`` are [band]
    [point][column][row]; ``bias`` has all rows of all bands. ``vector_tiles`` are the first tiles of the vectors that cover a row.
    ``outputs`` say where the pixels of a vector of tiles go, which are as many parts of as many pixels.
    """

    rows: int
    widths: tuple[int, ...]
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = (
        "source", "target", "items", "chunks", "outputs", "pieces", "vector_tiles", "vector_count", "starts", "columns", "weights",
        "bias", "bands", "channels", "source_planes", "source_plane", "source_row", "tiles", "plane_pitch",
        "point_pitch", "scratch", "scratch_bytes", "target_plane", "operand0", "operand0_plane", "operand1", "operand1_plane")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        widths = {width: self._emit_chunk(module, isa, width) for width in self.widths}
        window = self._emit_window(module, isa)
        b, slots, begin, end, thread = self.entry(module, isa)
        items, chunks = self.slot(b, slots, "items"), self.slot(b, slots, "chunks")
        points = b.at(self.slot(b, slots, "scratch"), thread, self.slot(b, slots, "scratch_bytes", I64), I8)
        with b.loop(begin, end) as index:
            item = b.at(items, index, ITEM_FIELDS, I32)
            place, goal, rows, first_chunk, end_chunk = (b.load_index(item, field) for field in range(ITEM_FIELDS))
            b.call(window, [slots, b.at(self.slot(b, slots, "source"), place), points, rows])
            with b.loop(first_chunk, end_chunk) as number:
                chunk = b.at(chunks, number, CHUNK_FIELDS, I32)
                first, width, output = (b.load_index(chunk, field) for field in range(CHUNK_FIELDS))
                for count, function in widths.items():
                    with b.if_then(b.icmp_signed("==", width, ir.Constant(I64, count))):
                        b.call(function, [slots, points, first, output, goal])
        b.ret_void()

    def _emit_window(self, module: ir.Module, isa: Isa) -> ir.Function:
        """``window(slots, source, points, rows)``: a strip's window at all points, [point][plane][row][tile].

        Where a row is shorter than a vector, the next one overwrites what lies behind it.
        """
        b = Emitter(module, isa, f"{self.symbol}_window", [POINTER] * 3 + [I64], internal=True)
        slots, source, points, rows = b.function.args
        planes, plane, row, tiles, plane_pitch, point_pitch, count = (self.slot(b, slots, name, I64) for name in (
            "source_planes", "source_plane", "source_row", "tiles", "plane_pitch", "point_pitch", "vector_count"))
        firsts = self.slot(b, slots, "vector_tiles")
        with b.loop(0, planes) as channel, b.loop(0, rows) as y:
            here = b.at(b.at(source, channel, plane), y, row)
            there = b.at(b.at(points, channel, plane_pitch), y, tiles)
            with b.loop(0, count) as vector:
                tile = b.load_index(firsts, vector)
                values = to_points(b, load_windows(b, b.at(here, tile, TILE)))
                for point, value in enumerate(values):
                    b.store_vector(value, b.at(b.at(there, tile), ir.Constant(I64, point), point_pitch))
        b.ret_void()
        return b.function

    def _emit_chunk(self, module: ir.Module, isa: Isa, width: int) -> ir.Function:
        """``chunk(slots, points, first vector, its place in outputs, strip's place)``: some vectors of tiles, with all bands."""
        products = self._emit_products(module, isa, width)
        outputs = self._emit_outputs(module, isa, width)
        pitch = sum_pitch(self.rows, max(self.widths), isa.lanes)
        b = Emitter(module, isa, f"{self.symbol}_chunk{width}", [POINTER, POINTER, I64, I64, I64], internal=True)
        slots, points, first, output, goal = b.function.args
        starts, columns, weights = (self.slot(b, slots, name) for name in ("starts", "columns", "weights"))
        point_pitch = self.slot(b, slots, "point_pitch", I64)
        sums = b.at(points, point_pitch, POINTS)
        here = b.at(points, first, isa.lanes)
        with b.loop(0, self.slot(b, slots, "bands", I64)) as band:
            start, end = (b.load_index(starts, number) for number in (band, b.add(band, ir.Constant(I64, 1))))
            count = b.sub(end, start)
            band_weights = b.at(weights, start, POINTS * self.rows)
            with b.loop(0, POINTS) as point:
                b.call(products, [b.at(here, point, point_pitch), b.at(columns, start, element=I32), count,
                                  b.at(band_weights, b.mul(point, count), self.rows), b.at(sums, point, pitch)])
            b.call(outputs, [slots, sums, band, output, goal])
        b.ret_void()
        return b.function

    def _emit_products(self, module: ir.Module, isa: Isa, width: int) -> ir.Function:
        """``products(points, columns, count, weights, sums)``: the inner loop, a band's columns at one point."""
        b = Emitter(module, isa, f"{self.symbol}_products{width}", [POINTER, POINTER, I64, POINTER, POINTER], internal=True)
        points, columns, count, weights, sums = b.function.args
        places = [(row, vector) for row in range(self.rows) for vector in range(width)]
        totals = {place: b.variable(b.splat(0.0)) for place in places}
        with b.loop(0, count) as column:
            here = b.at(points, b.load_index(columns, column))
            x = [b.load_vector(b.at(here, vector * isa.lanes)) for vector in range(width)]
            for row, weight in enumerate(broadcasts(b, b.at(weights, column, self.rows), self.rows)):
                for vector in range(width):
                    total = totals[row, vector]
                    b.store(b.multiply_add(x[vector], weight, b.load(total, typ=b.vector)), total)
        for row, vector in places:
            b.store_vector(b.load(totals[row, vector], typ=b.vector), b.at(sums, (row * width + vector) * isa.lanes))
        b.ret_void()
        return b.function

    def _emit_outputs(self, module: ir.Module, isa: Isa, width: int) -> ir.Function:
        """``outputs(slots, sums, band, first output, place)``: a band's pixels of a chunk, of a strip at that place."""
        pitch = sum_pitch(self.rows, max(self.widths), isa.lanes)
        b = Emitter(module, isa, f"{self.symbol}_outputs{width}", [POINTER, POINTER, I64, I64, I64], internal=True)
        slots, sums, band, first_output, place = b.function.args
        outputs, pieces = self.slot(b, slots, "outputs"), self.slot(b, slots, "pieces")
        first = b.mul(band, ir.Constant(I64, self.rows))
        left = b.sub(self.slot(b, slots, "channels", I64), first)
        rows = b.select(b.icmp_signed("<", left, ir.Constant(I64, self.rows)), left, ir.Constant(I64, self.rows))
        names = ("target", *(f"operand{number}" for number in range(operand_count(self.epilogue))))
        maps = [b.at(b.at(self.slot(b, slots, name), first, self.slot(b, slots, f"{name}_plane", I64)), place) for name in names]
        with b.loop(0, rows) as row:
            bias = b.splat(b.load_scalar(self.slot(b, slots, "bias"), b.add(first, row)))
            planes = [b.at(value, row, self.slot(b, slots, f"{name}_plane", I64)) for name, value in zip(names, maps, strict=True)]
            with b.loop(0, width) as vector:
                own = b.at(b.at(sums, row, width * isa.lanes), vector, isa.lanes)
                pixels = join_tiles(b, from_points(b, [b.load_vector(b.at(own, point * pitch)) for point in range(POINTS)], bias))
                output = b.at(outputs, b.add(first_output, vector), OUTPUT_FIELDS, I32)
                whole, begin, *ends = (b.load_index(output, field) for field in range(OUTPUT_FIELDS))
                with b.if_else(b.icmp_signed("!=", whole, ir.Constant(I64, 0)), likely=True) as (together, apart):
                    with together:
                        for part, value in enumerate(pixels):
                            offset = b.add(begin, ir.Constant(I64, part * isa.lanes))
                            target, *operands = (b.at(plane, offset) for plane in planes)
                            added = [b.load_vector(operand) for operand in operands]
                            b.store_vector(emit_epilogue(b, self.epilogue, value, added.__getitem__), target)
                    with apart:
                        for value, start, end in zip(pixels, ends[:-1], ends[1:], strict=True):
                            with b.loop(start, end) as piece:
                                offset, inside, store = emit_fields(b, pieces, piece, PIECE_FIELDS)
                                target, *operands = (b.at(plane, offset) for plane in planes)
                                added = [b.masked_load(operand, b.lane_mask(store), b.splat(0.0)) for operand in operands]
                                emit_store(b, emit_epilogue(b, self.epilogue, value, added.__getitem__), target, inside, store)
        b.ret_void()
        return b.function


def sum_pitch(rows: int, vectors: int, lanes: int) -> int:
    """Elements from one point's sums to the next, of chunks of up to ``vectors``."""
    return rows * vectors * lanes + LINE


def scratch_elements(point_pitch: int, rows: int, vectors: int, lanes: int) -> int:
    """What a thread's scratch must hold: the points of a window, then the sums of a chunk and a band; vectors may end behind."""
    return POINTS * point_pitch + POINTS * sum_pitch(rows, vectors, lanes) + LINE


