"""The Winograd kernels: 3 × 3 convolutions of stride 1 with a quarter of the multiplications, and only the kept columns.

With windows and filters at 36 points (``winograd_transforms.py``) the convolution is 36 separate matrix products over channels. The
filter transform never mixes channels, so a column of a band that is zero in all nine taps is zero at all points: one list of
kept columns serves all 36 products, and what sparsity saves multiplies with what Winograd saves. Lanes run over
tiles, weights are broadcast, as in the band kernel. A *strip* is one to a few vectors of tiles that share each
broadcast weight; a *group* is some bands that use the tiles of a point in turn:

    for point:                                       36
        for band of the group:
            sums[row][vector] = bias[row] at point (1, 1), else 0
            for column of the band:
                sums[row][vector] += weight[point][column][row] · tiles[vector][point][column]
    for band of the group: target = epilogue(output transform of sums)

These pieces make two plans. Where strips are many, one call does whole strips, each thread with tiles of its own
(``WinogradStrip``). Where they are few, a first call transforms the input (``WinogradInput``) and a second one shares out
strips × groups (``WinogradProducts``), so that threads have enough to do and every weight is read but once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import F32, I32, I64, POINTER, VOID, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.winograd_transforms import (
    BIAS_POINT,
    END_ROW,
    ENDS,
    FIRST_ROW,
    OUTPUT_FIELDS,
    POINTS,
    RUNS,
    STORE,
    TARGET,
    TILE,
    WHOLE,
    WINDOW_FIELDS,
    emit_input_transform,
    emit_output_transform,
)

LINE = 16           # elements of a cache line; as a gap it keeps the streams of 36 points in different cache sets
UNROLL = 2          # columns a turn: the lists of columns have a multiple of this
AHEAD = 128         # columns of weights to prefetch: where strips are few, each weight comes from memory
INPUT_ITEM = 3      # fields: vector, first channel, end of channels
PRODUCTS_ITEM = 3   # fields: first vector, vectors, group
STRIP_ITEM = 2      # fields: first vector, vectors
MAXIMUM_OPERANDS = 2

INPUT_SLOTS = ("source", "source_plane", "source_row", "windows", "vector_pitch", "point_pitch", "items")
OUTPUT_SLOTS = ("vector_pitch", "point_pitch", "items", "groups", "starts", "columns", "weights", "bias",
                "scratch", "scratch_bytes", "outputs", "channels", "target", "target_plane", "target_row", "rest", "rest_end",
                "operand0", "operand0_plane", "operand1", "operand1_plane")


@dataclass(frozen=True)
class WinogradInput(Kernel):
    """Transforms windows into ``tiles`` [vector][point][channel][lane]; an item is some channels of one vector."""

    SLOTS: ClassVar[tuple[str, ...]] = (*INPUT_SLOTS, "tiles")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        transform = emit_input_transform(module, isa, f"{self.symbol}_input")
        b, slots, begin, end, _ = self.entry(module, isa)
        load_item = item_loader(self, b, slots, INPUT_ITEM)
        tiles = self.slot(b, slots, "tiles")
        with b.loop(begin, end) as index:
            vector, first, last = load_item(index)
            emit_transform_call(self, b, slots, transform, vector,
                                b.at(tiles, vector, self.slot(b, slots, "vector_pitch", I64)), first, last)
        b.ret_void()


@dataclass(frozen=True)
class WinogradProducts(Kernel):
    """From transformed ``tiles`` to the target; an item is one strip and one group of bands of ``rows`` rows.

    Strips have up to ``vectors`` vectors. ``starts`` says where the bands' lists begin in ``columns``, which
    holds channel · lanes; ``groups`` are pairs of first and end band; ``weights`` are [group][point][column][row];
    ``bias`` is ``rows`` zeros, then the bias of all rows.
    """

    rows: int
    vectors: int
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = (*OUTPUT_SLOTS, "tiles")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        widths = emit_groups(self, module, isa, self.rows, self.vectors, self.epilogue)
        b, slots, begin, end, thread = self.entry(module, isa)
        load_item = item_loader(self, b, slots, PRODUCTS_ITEM)
        tiles, groups = self.slot(b, slots, "tiles"), self.slot(b, slots, "groups")
        sums = thread_scratch(self, b, slots, thread)
        with b.loop(begin, end) as index:
            first, width, group = load_item(index)
            strip = b.at(tiles, first, self.slot(b, slots, "vector_pitch", I64))
            with_width(b, width, widths, lambda emit_width: b.call(
                emit_width, [slots, strip, first, b.at(groups, group, 2, I32), sums]))
        b.ret_void()


@dataclass(frozen=True)
class WinogradStrip(Kernel):
    """From source to target; an item is one strip with all its bands, its tiles lie in the thread's scratch."""

    rows: int
    vectors: int
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys((*INPUT_SLOTS, *OUTPUT_SLOTS, "source_channels", "group_count")))

    def emit(self, module: ir.Module, isa: Isa) -> None:
        transform = emit_input_transform(module, isa, f"{self.symbol}_input")
        widths = emit_groups(self, module, isa, self.rows, self.vectors, self.epilogue)
        b, slots, begin, end, thread = self.entry(module, isa)
        load_item = item_loader(self, b, slots, STRIP_ITEM)
        groups, group_count = self.slot(b, slots, "groups"), self.slot(b, slots, "group_count", I64)
        pitch, channels = self.slot(b, slots, "vector_pitch", I64), self.slot(b, slots, "source_channels", I64)
        tiles = thread_scratch(self, b, slots, thread)
        sums = b.at(tiles, self.vectors, pitch)
        with b.loop(begin, end) as index:
            first, width = load_item(index)
            with b.loop(0, width) as vector:
                emit_transform_call(self, b, slots, transform, b.add(first, vector), b.at(tiles, vector, pitch),
                                    ir.Constant(I64, 0), channels)
            with b.loop(0, group_count) as group:
                with_width(b, width, widths, lambda emit_width, first=first, group=group: b.call(
                    emit_width, [slots, tiles, first, b.at(groups, group, 2, I32), sums]))
        b.ret_void()


# What the kernels share


def sum_pitch(rows: int, vectors: int, lanes: int) -> int:
    """Elements from one point's sums to the next."""
    return rows * vectors * lanes + LINE


def item_loader(kernel: Kernel, b: Emitter, slots: ir.Value, fields: int) -> Callable[[ir.Value], list[ir.Value]]:
    items = kernel.slot(b, slots, "items")
    return lambda index: [b.load_index(b.at(items, index, fields, I32), field) for field in range(fields)]


def thread_scratch(kernel: Kernel, b: Emitter, slots: ir.Value, thread: ir.Value) -> ir.Value:
    """The part of the scratch memory that belongs to this thread."""
    return b.at(kernel.slot(b, slots, "scratch"), thread, kernel.slot(b, slots, "scratch_bytes", I64), ir.IntType(8))


def emit_transform_call(kernel: Kernel, b: Emitter, slots: ir.Value, transform: ir.Function, vector: ir.Value,
                        tiles: ir.Value, first: ir.Value, end: ir.Value) -> None:
    """Transform some channels of one vector of the table of windows."""
    plane, row, pitch = (kernel.slot(b, slots, name, I64) for name in ("source_plane", "source_row", "point_pitch"))
    window = b.at(kernel.slot(b, slots, "windows"), vector, WINDOW_FIELDS, I32)
    b.call(transform, [kernel.slot(b, slots, "source"), plane, row, window, tiles, pitch, first, end])


def with_width(b: Emitter, width: ir.Value, widths: dict[int, ir.Function], emit: Callable[[ir.Function], None]) -> None:
    """Emit one case for every width of a strip."""
    for count, function in widths.items():
        with b.if_then(b.icmp_signed("==", width, ir.Constant(I64, count))):
            emit(function)


def emit_groups(kernel: Kernel, module: ir.Module, isa: Isa, rows: int, vectors: int,
                epilogue: Epilogue) -> dict[int, ir.Function]:
    """The function that does one group of bands, for strips of each width."""
    outputs = emit_outputs(kernel, module, isa, rows, epilogue)
    return {width: emit_group(kernel, module, isa, rows, width, outputs) for width in range(1, vectors + 1)}


def emit_group(kernel: Kernel, module: ir.Module, isa: Isa, rows: int, vectors: int, outputs: ir.Function) -> ir.Function:
    """``group(slots, tiles, first vector, group, sums)``: the products of a strip and a group, then their outputs."""
    products = emit_products(module, isa, f"{kernel.symbol}_products{vectors}", rows, vectors)
    b = Emitter(module, isa, f"{kernel.symbol}_group{vectors}", [POINTER, POINTER, I64, POINTER, POINTER], internal=True)
    slots, tiles, first_vector, group, sums = b.function.args
    starts, columns, weights, bias, table = (
        kernel.slot(b, slots, name) for name in ("starts", "columns", "weights", "bias", "outputs"))
    vector_pitch, point_pitch = (kernel.slot(b, slots, name, I64) for name in ("vector_pitch", "point_pitch"))
    pitch = sum_pitch(rows, vectors, isa.lanes)
    first_band, end_band = b.load_index(group, 0), b.load_index(group, 1)
    first_column = b.load_index(starts, first_band)
    kept = b.sub(b.load_index(starts, end_band), first_column)
    group_weights = b.at(weights, first_column, POINTS * rows)
    with b.loop(0, POINTS) as point:
        point_weights = b.at(group_weights, b.mul(point, kept), rows)
        takes_bias = b.icmp_signed("==", point, ir.Constant(I64, BIAS_POINT))
        with b.loop(first_band, end_band) as band:
            start = b.load_index(starts, band)
            count = b.sub(b.load_index(starts, b.add(band, ir.Constant(I64, 1))), start)
            begin = b.select(takes_bias, b.add(band, ir.Constant(I64, 1)), ir.Constant(I64, 0))
            place = b.add(b.mul(b.sub(band, first_band), ir.Constant(I64, POINTS)), point)
            b.call(products, [b.at(tiles, point, point_pitch), vector_pitch, b.at(point_weights, b.sub(start, first_column), rows),
                              b.at(columns, start, element=I32), count, b.at(bias, begin, rows), b.at(sums, place, pitch)])
    with b.loop(first_band, end_band) as band, b.loop(0, vectors) as vector:
        place = b.at(sums, b.sub(band, first_band), POINTS * pitch)
        b.call(outputs, [slots, b.at(place, vector, rows * isa.lanes), ir.Constant(I64, pitch),
                         b.at(table, b.add(first_vector, vector), OUTPUT_FIELDS, I32), band])
    b.ret_void()
    return b.function


def emit_products(module: ir.Module, isa: Isa, name: str, rows: int, vectors: int) -> ir.Function:
    """``products(tiles, vector_pitch, weights, columns, count, start, sums)``: the kept columns of a band at a point."""
    b = Emitter(module, isa, name, [POINTER, I64, POINTER, POINTER, I64, POINTER, POINTER], internal=True)
    tiles, vector_pitch, weights, columns, count, start, sums = b.function.args
    streams = [b.at(tiles, vector, vector_pitch) for vector in range(vectors)]
    places = [(row, vector) for row in range(rows) for vector in range(vectors)]
    # One vector of tiles has too few sums to hide the latency of their additions: it keeps two of each.
    copies = UNROLL if vectors == 1 else 1
    first = [b.splat(b.load_scalar(start, row)) for row in range(rows)]
    totals = [{(row, vector): b.variable(b.splat(0.0) if copy else first[row]) for row, vector in places}
              for copy in range(copies)]
    with b.loop(0, count, UNROLL) as turn:
        turn_weights = b.at(weights, turn, rows)
        emit_prefetch(b, b.at(turn_weights, AHEAD * rows))
        for step in range(UNROLL):
            offset = b.load_index(columns, b.add(turn, ir.Constant(I64, step)))
            x = [b.load(b.at(stream, offset), typ=b.vector, align=isa.vector_bytes) for stream in streams]
            for row in range(rows):
                weight = b.splat(b.load_scalar(turn_weights, step * rows + row))
                for vector in range(vectors):
                    place = totals[step % copies][row, vector]
                    b.store(b.multiply_add(x[vector], weight, b.load(place, typ=b.vector)), place)
    for row, vector in places:
        total, *rest = (b.load(copy[row, vector], typ=b.vector) for copy in totals)
        for copy in rest:
            total = b.fadd(total, copy)
        b.store(total, b.at(sums, (vector * rows + row) * isa.lanes), align=isa.vector_bytes)
    b.ret_void()
    return b.function


def emit_prefetch(b: Emitter, pointer: ir.Value) -> None:
    """Ask for a line that will be read soon, and kept."""
    read, keep, data = (ir.Constant(I32, value) for value in (0, 3, 1))
    b.intrinsic("llvm.prefetch.p0", VOID, pointer, read, keep, data)


def emit_outputs(kernel: Kernel, module: ir.Module, isa: Isa, rows: int, epilogue: Epilogue) -> ir.Function:
    """``outputs(slots, sums, pitch, output, band)``: one vector of tiles, one band, through the epilogue to the target.

    ``output`` is the vector's row of the table of outputs. Only pixels of the map are written, and zeros after the end of
    its rows where the table asks for them. Operands of the epilogue have the rows and images of the target.
    """
    b = Emitter(module, isa, f"{kernel.symbol}_outputs", [POINTER, POINTER, I64, POINTER, I64], internal=True)
    slots, sums, pitch, output, band = b.function.args
    names = ("target", *(f"operand{number}" for number in range(operand_count(epilogue))))
    planes = [kernel.slot(b, slots, f"{name}_plane", I64) for name in names]
    step = kernel.slot(b, slots, "target_row", I64)
    first_row = b.mul(band, ir.Constant(I64, rows))
    left = b.sub(kernel.slot(b, slots, "channels", I64), first_row)
    count = b.select(b.icmp_signed("<", left, ir.Constant(I64, rows)), left, ir.Constant(I64, rows))
    offsets = [b.load_index(output, TARGET + run) for run in range(RUNS)]
    maps = [b.at(kernel.slot(b, slots, name), first_row, plane) for name, plane in zip(names, planes)]

    def emit_channels(partial: bool) -> None:
        with b.loop(0, count) as channel:
            images = [b.at(place, channel, plane) for place, plane in zip(maps, planes)]
            rows_of_runs = emit_output_transform(b, b.at(sums, channel, isa.lanes), pitch)
            for run, offset in enumerate(offsets):
                places = [b.at(image, offset) for image in images]
                for row in range(TILE):
                    mask = emit_mask(b, output, STORE + TILE * run + row) if partial else None
                    emit_store(b, epilogue, rows_of_runs[row][run], places, mask)
                    places = [b.at(place, step) for place in places]
            if partial:
                with b.if_then(b.icmp_signed("!=", b.load_index(output, ENDS), ir.Constant(I64, 0))):
                    emit_rests(kernel, b, slots, output, [b.at(images[0], offset) for offset in offsets])

    with b.if_else(b.icmp_signed("!=", b.load_index(output, WHOLE), ir.Constant(I64, 0))) as (whole, partial):
        with whole:
            emit_channels(partial=False)
        with partial:
            emit_channels(partial=True)
    b.ret_void()
    return b.function


def emit_mask(b: Emitter, table: ir.Value, field: int) -> ir.Value:
    return b.lane_mask(b.load(b.at(table, field, element=I32), typ=I32, align=4))


def emit_store(b: Emitter, epilogue: Epilogue, value: ir.Value, places: list[ir.Value], mask: ir.Value | None) -> None:
    """One row of pixels of a run: ``places`` are where it lies in the target and in the operands of the epilogue."""
    def load_operand(number: int) -> ir.Value:
        place = places[1 + number]
        return b.load_vector(place) if mask is None else b.masked_load(place, mask, b.splat(0.0))

    value = emit_epilogue(b, epilogue, value, load_operand)
    if mask is None:
        b.store_vector(value, places[0])
    else:
        b.masked_store(value, places[0], mask)


def emit_rests(kernel: Kernel, b: Emitter, slots: ir.Value, output: ir.Value, places: list[ir.Value]) -> None:
    """Zeros from the end of the map's rows to the next row, by the runs that end them: they pad the next row's left too."""
    step, begin, end = (kernel.slot(b, slots, name, I64) for name in ("target_row", "rest", "rest_end"))
    for run, place in enumerate(places):
        with b.loop(b.load_index(output, FIRST_ROW + run), b.load_index(output, END_ROW + run)) as row:
            rest = b.at(place, row, step)
            with b.loop(begin, end) as column:
                b.store(ir.Constant(F32, 0.0), b.at(rest, column), align=4)
