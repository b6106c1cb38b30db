"""The pieces that the Winograd kernels are made of: the products of one band at one point, and the outputs of one band.

A *strip* is one to a few vectors of tiles that share each broadcast weight. Its sums wait in the thread's scratch, as
[point][vector][row][lane], until all points of the band are done.

A last vector whose runs fill no more than a half or a quarter of it is *shared*: it holds each tile 2 or 4 times, side by side, and
takes as many rows of the band at once. It is a strip of its own. Small tiles have two lanes side by side to be in, no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import llvmlite.ir as ir

from zellige.cpu.emitter import F32, I8, I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import broadcasts
from zellige.cpu.kernels.winograd_pooling import POOL, emit_pooled_row
from zellige.cpu.kernels.winograd_runs import (
    ENDS,
    WHOLE,
    OutputFields,
    Tiling,
    join_runs,
    load_field,
    load_run,
    run_mask,
    split_runs,
    store_run,
)
from zellige.cpu.kernels.winograd_transforms import emit_output_transform, transpose_tiles

LINE = 16           # elements of a cache line; as a gap it keeps the streams of all points in different cache sets
UNROLL = 2          # columns a turn: the lists of columns have a multiple of this
SHARES = (4, 2)     # rows that a vector may take at once

OUTPUT_SLOTS = ("outputs", "channels", "bias", "target", "target_plane", "target_row", "rest", "rest_end",
                "operand0", "operand0_plane", "operand1", "operand1_plane")


def sum_pitch(rows: int, vectors: int, lanes: int) -> int:
    """Elements from one point's sums to the next, of strips of up to ``vectors``."""
    return rows * vectors * lanes + LINE


def thread_scratch(kernel: Kernel, b: Emitter, slots: ir.Value, thread: ir.Value) -> ir.Value:
    """The part of the scratch memory that belongs to this thread."""
    return b.at(kernel.slot(b, slots, "scratch"), thread, kernel.slot(b, slots, "scratch_bytes", I64), I8)


def load_fields(b: Emitter, table: ir.Value, row: ir.Value, fields: int) -> list[ir.Value]:
    """All fields of a row of a table of 32-bit integers."""
    return [b.load_index(b.at(table, row, fields, I32), field) for field in range(fields)]


def shares(tile: int) -> list[int]:
    """How many rows a shared vector may take at once: no more than it has runs in lanes side by side."""
    return [share for share in SHARES if share <= tile]


def strip_kinds(vectors: int, tile: int) -> dict[int, tuple[int, int]]:
    """All kinds of strips: of 1 … ``vectors`` vectors each, and then of one that is shared. Kind → (vectors, rows at once)."""
    plain = {width: (width, 1) for width in range(1, vectors + 1)}
    return plain | {vectors + share: (1, share) for share in shares(tile)}


def call_kind(b: Emitter, kind: ir.Value, kinds: dict[int, ir.Function], arguments: Sequence[ir.Value]) -> None:
    """Call the one of the functions that was made for this kind of strips."""
    for number, function in kinds.items():
        with b.if_then(b.icmp_signed("==", kind, ir.Constant(I64, number))):
            b.call(function, arguments)


def emit_products(module: ir.Module, isa: Isa, name: str, rows: int, vectors: int, share: int) -> ir.Function:
    """``products(tiles, vector_pitch, weights, columns, count, sums, ahead)``: a band's kept columns at a point.

    ``tiles`` are [channel][lane], of each vector of the strip; ``weights`` are [column][row]; ``columns`` hold channel · lanes.
    The weights that come next are fetched from ``ahead`` on, a turn's worth in every turn. ``share`` rows are taken at once.
    """
    b = Emitter(module, isa, name, [POINTER, I64, POINTER, POINTER, I64, POINTER, POINTER], internal=True)
    tiles, vector_pitch, weights, columns, count, sums, ahead = b.function.args
    streams = [b.at(tiles, vector, vector_pitch) for vector in range(vectors)]
    places = [(part, vector) for part in range(rows // share) for vector in range(vectors)]
    # One vector of tiles has too few sums to hide the latency of their additions: it keeps two of each.
    copies = UNROLL if vectors == 1 else 1
    totals = [{place: b.variable(b.splat(0.0)) for place in places} for _ in range(copies)]
    with b.loop(0, count, UNROLL) as turn:
        turn_weights = b.at(weights, turn, rows)
        b.prefetch(b.at(ahead, turn, rows))
        for step in range(UNROLL):
            offset = b.load_index(columns, b.add(turn, ir.Constant(I64, step)))
            x = [b.load(b.at(stream, offset), typ=b.vector, align=isa.vector_bytes) for stream in streams]
            for part, weight in enumerate(repeats(b, b.at(turn_weights, step * rows), rows, share)):
                for vector in range(vectors):
                    place = totals[step % copies][part, vector]
                    b.store(b.multiply_add(x[vector], weight, b.load(place, typ=b.vector)), place)
    for part, vector in places:
        total, *rest = (b.load(copy[part, vector], typ=b.vector) for copy in totals)
        for copy in rest:
            total = b.fadd(total, copy)
        for row in range(share):
            own = b.shuffle(total, total, [lane - lane % share + row for lane in range(isa.lanes)]) if share > 1 else total
            b.store(own, b.at(sums, (vector * rows + part * share + row) * isa.lanes), align=isa.vector_bytes)
    b.ret_void()
    return b.function


def repeats(b: Emitter, numbers: ir.Value, count: int, share: int) -> Iterator[ir.Value]:
    """``numbers[0 … count − 1]``, ``share`` of them after another, again and again in all lanes."""
    if share == 1:
        yield from broadcasts(b, numbers, count)
        return
    for first in range(0, count, share):
        together = b.load(b.at(numbers, first), typ=ir.VectorType(F32, share), align=4)
        yield b.shuffle(together, together, [lane % share for lane in range(b.isa.lanes)])


def emit_outputs(kernel: Kernel, module: ir.Module, isa: Isa, rows: int, vectors: int, tiling: Tiling,
                 epilogue: Epilogue, pooled: bool) -> ir.Function:
    """``outputs(slots, band, sums, first vector, width)``: a band of one strip, with its bias and the epilogue, to the target.

    Only pixels of the map are written, and zeros after the end of its rows. Operands of the epilogue have the rows and
    images of the target. ``pooled`` outputs are the largest of each 2 × 2 pixels; their epilogue has no operands.
    """
    together = POOL if pooled else 1
    b = Emitter(module, isa, f"{kernel.symbol}_outputs", [POINTER, I64, POINTER, I64, I64], internal=True)
    slots, band, sums, first_vector, width = b.function.args
    names = ("target", *(f"operand{number}" for number in range(operand_count(epilogue))))
    planes = [kernel.slot(b, slots, f"{name}_plane", I64) for name in names]
    step, table = kernel.slot(b, slots, "target_row", I64), kernel.slot(b, slots, "outputs")
    runs, lanes = tiling.runs, tiling.width(isa.lanes) // together
    fields = OutputFields(runs, tiling.tile // together)
    first_row = b.mul(band, ir.Constant(I64, rows))
    left = b.sub(kernel.slot(b, slots, "channels", I64), first_row)
    count = b.select(b.icmp_signed("<", left, ir.Constant(I64, rows)), left, ir.Constant(I64, rows))
    bias = b.at(kernel.slot(b, slots, "bias"), first_row)
    maps = [b.at(kernel.slot(b, slots, name), first_row, plane) for name, plane in zip(names, planes, strict=True)]

    def emit_channels(output: ir.Value, vector_sums: ir.Value, partial: bool) -> None:
        offsets = [b.load_index(output, fields.target(run)) for run in range(runs)]
        with b.loop(0, count) as channel:
            images = [b.at(place, channel, plane) for place, plane in zip(maps, planes, strict=True)]
            places = [[b.at(image, offset) for offset in offsets] for image in images]
            pixels = emit_output_transform(b, tiling.transform, b.at(vector_sums, channel, isa.lanes),
                                           sum_pitch(rows, vectors, isa.lanes), b.splat(b.load_scalar(bias, channel)))
            for row in range(fields.rows):
                masks = [run_mask(b, load_field(b, output, fields.store(run, row)), lanes) if partial else None
                         for run in range(runs)]
                if pooled:
                    emit_pooled_row(b, tiling, epilogue, pixels[POOL * row:POOL * (row + 1)], places[0], masks)
                else:
                    emit_row(b, tiling, epilogue, transpose_tiles(b, pixels[row]), places, masks)
                places = [[b.at(place, step) for place in value] for value in places]
            if partial:
                with b.if_then(b.icmp_signed("!=", b.load_index(output, ENDS), ir.Constant(I64, 0))):
                    emit_rests(kernel, b, slots, output, fields, [b.at(images[0], offset) for offset in offsets])

    with b.loop(0, width) as vector:
        output = b.at(table, b.add(first_vector, vector), fields.count, I32)
        vector_sums = b.at(sums, vector, rows * isa.lanes)
        with b.if_else(b.icmp_signed("!=", b.load_index(output, WHOLE), ir.Constant(I64, 0))) as (whole, partial):
            with whole:
                emit_channels(output, vector_sums, partial=False)
            with partial:
                emit_channels(output, vector_sums, partial=True)
    b.ret_void()
    return b.function


def emit_row(b: Emitter, tiling: Tiling, epilogue: Epilogue, values: list[ir.Value], places: list[list[ir.Value]],
             masks: list[ir.Value | None]) -> None:
    """One row of pixels of all tiles: ``places`` are where each run lies in the target, and in the epilogue's operands."""
    lanes = tiling.width(b.isa.lanes)
    operands = [join_runs(b, [load_run(b, place, lanes, mask) for place, mask in zip(operand, masks, strict=True)], tiling)
                for operand in places[1:]]
    results = [emit_epilogue(b, epilogue, value, [operand[index] for operand in operands].__getitem__)
               for index, value in enumerate(values)]
    for value, place, mask in zip(split_runs(b, results, tiling), places[0], masks, strict=True):
        store_run(b, value, place, mask)


def emit_rests(kernel: Kernel, b: Emitter, slots: ir.Value, output: ir.Value, fields: OutputFields, places: list[ir.Value]) -> None:
    """Zeros from the end of the map's rows to the next row, by the runs that end them: they pad the next row's left too."""
    step, begin, end = (kernel.slot(b, slots, name, I64) for name in ("target_row", "rest", "rest_end"))
    for run, place in enumerate(places):
        with b.loop(b.load_index(output, fields.first_row(run)), b.load_index(output, fields.end_row(run))) as row:
            rest = b.at(place, row, step)
            with b.loop(begin, end) as column:
                b.store(ir.Constant(F32, 0.0), b.at(rest, column), align=4)
