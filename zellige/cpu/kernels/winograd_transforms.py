"""The code that takes vectors of tiles to their points and back, for any of the transforms of ``winograd_points.py``.

A vector holds one pixel, or point, of as many tiles as it has lanes. Its tiles come in *runs* of neighbours in a row, each
at a place of its own (``winograd_runs.py``). As many vectors of neighbouring pixels as a tile has columns, m, hold one row of
all tiles; going from there to tiles, and back, transposes the m × m numbers in every m neighbouring lanes, without a gather.
"""

from __future__ import annotations

import llvmlite.ir as ir

from zellige.cpu.emitter import I1, I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.winograd_points import TAPS, Side, Transform
from zellige.cpu.kernels.winograd_runs import EDGES, WHOLE, Tiling, WindowFields, join_runs, load_field, load_run, run_mask


def transpose_tiles(b: Emitter, vectors: list[ir.Value]) -> list[ir.Value]:
    """Transpose the m × m numbers in every m neighbouring lanes of m vectors: of 2 in one round of two instructions, of 4 in two
    rounds of four, as unpack instructions do it."""
    lanes, count = b.isa.lanes, len(vectors)

    def unpack(left: ir.Value, right: ir.Value, chosen: tuple[int, ...]) -> ir.Value:
        return b.shuffle(left, right, [first + lane for first in range(0, lanes, count) for lane in chosen])

    if count == 2:
        return [unpack(vectors[0], vectors[1], (place, lanes + place)) for place in range(count)]
    transposed = []
    for singles in ((0, lanes, 1, lanes + 1), (2, lanes + 2, 3, lanes + 3)):
        upper, lower = unpack(vectors[0], vectors[1], singles), unpack(vectors[2], vectors[3], singles)
        for pairs in ((0, 1, lanes, lanes + 1), (2, 3, lanes + 2, lanes + 3)):
            transposed.append(unpack(upper, lower, pairs))
    return transposed


def emit_input_transform(module: ir.Module, isa: Isa, name: str, tiling: Tiling) -> ir.Function:
    """``input(source, plane, row, window, tiles, point_pitch, first, end)``: one vector of tiles, some channels.

    ``window`` is the vector's row of the table of windows; ``tiles`` takes [point][channel][lane], ``point_pitch`` elements from
    one point to the next. Pixels that may not be read count as zeros: padding that has no place in the source, and what lies
    outside of the padded map, so that nothing of it can reach a tile which is partly inside. Where that is no more than the edges
    of windows they are read all the same, and cleared once they lie in vectors of tiles, which takes four masks only.
    """
    b = Emitter(module, isa, name, [POINTER, I64, I64, POINTER, POINTER, I64, I64, I64], internal=True)
    source, plane, row, window, tiles, point_pitch, first, end = b.function.args
    fields, transform, lanes = WindowFields(tiling.runs), tiling.transform, tiling.width(isa.lanes)
    origins = [b.at(source, b.load_index(window, fields.source(run))) for run in range(tiling.runs)]

    def emit_channels(masks: dict[tuple[int, int, int], ir.Value], edges: dict[tuple[int, int], ir.Value]) -> None:
        with b.loop(first, end) as channel:
            places = [b.at(origin, channel, plane) for origin in origins]
            rows = []
            for window_row in range(transform.window):
                # Windows overlap by two columns: a second load, a tile further on, gives each tile the columns that it lacks.
                left, right = (transpose_tiles(b, join_runs(b, [
                    load_run(b, b.at(place, tiling.tile * load), lanes, masks.get((run, window_row, load)))
                    for run, place in enumerate(places)], tiling)) for load in (0, 1))
                pixels = left + right[:TAPS - 1]
                for place in (0, transform.window - 1):
                    if (1, place) in edges:
                        pixels[place] = b.select(edges[1, place], pixels[place], b.splat(0.0))
                if (0, window_row) in edges:
                    pixels = [b.select(edges[0, window_row], pixel, b.splat(0.0)) for pixel in pixels]
                rows.append(transform.to_points(b, pixels))
                places = [b.at(place, row) for place in places]
            target = b.at(tiles, channel, isa.lanes)
            for column in range(transform.window):
                for value in transform.to_points(b, [values[column] for values in rows]):
                    b.store(value, target, align=isa.vector_bytes)
                    target = b.at(target, point_pitch)

    kind = b.load_index(window, WHOLE)
    with b.if_else(b.icmp_signed("==", kind, ir.Constant(I64, 1))) as (whole, partial):
        with whole:
            emit_channels({}, {})
        with partial, b.if_else(b.icmp_signed("==", kind, ir.Constant(I64, EDGES))) as (edges, any_lanes):
            with edges:
                sides = [(axis, place) for axis in (0, 1) for place in (0, transform.window - 1)]
                emit_channels({}, {side: b.lane_mask(load_field(b, window, fields.edge(number)))
                                   for number, side in enumerate(sides)})
            with any_lanes:
                emit_channels(_emit_window_masks(b, window, tiling), {})
    b.ret_void()
    return b.function


def _emit_window_masks(b: Emitter, window: ir.Value, tiling: Tiling) -> dict[tuple[int, int, int], ir.Value]:
    """The readable lanes of (run, row of the window, load)."""
    masks, fields, lanes = {}, WindowFields(tiling.runs), tiling.width(b.isa.lanes)
    for run in range(tiling.runs):
        rows = load_field(b, window, fields.rows(run))
        for load in (0, 1):
            bits = load_field(b, window, fields.lanes(run, load))
            for window_row in range(tiling.transform.window):
                readable = b.trunc(b.lshr(rows, ir.Constant(I32, window_row)), I1)
                masks[run, window_row, load] = run_mask(b, b.select(readable, bits, ir.Constant(I32, 0)), lanes)
    return masks


def emit_output_transform(b: Emitter, transform: Transform, sums: ir.Value, pitch: int, bias: ir.Value) -> list[list[ir.Value]]:
    """The pixels of a tile, row by row, of one channel, with a lane a tile; ``sums`` holds [point][lane], ``pitch`` apart.

    ``bias``, a vector, is added to every pixel.
    """
    points = [b.load(b.at(sums, point, pitch), typ=b.vector, align=b.isa.vector_bytes) for point in range(transform.points)]
    window = transform.window
    columns = [transform.from_points(b, points[first:first + window]) for first in range(0, transform.points, window)]
    rows = [transform.from_points(b, [column[row] for column in columns]) for row in range(transform.tile)]
    return [[b.fadd(pixel, bias) for pixel in row] for row in rows]


def emit_filter_transform(module: ir.Module, isa: Isa, name: str, filter_to_points: Side, rows: int, columns: int) -> ir.Function:
    """``filters(halves, count, weights, pitch)``: weights at the points of one x, from filters transformed along x already.

    ``halves`` are [turn][tap along y][column][row], ``columns`` a turn; ``weights`` become [point][column][row], ``pitch``
    elements from point to point; ``count`` columns in all.
    """
    b = Emitter(module, isa, name, [POINTER, I64, POINTER, I64], internal=True)
    halves, count, weights, pitch = b.function.args
    turn_length = columns * rows
    with b.loop(0, count, columns) as turn:
        source, target = b.at(halves, turn, TAPS * rows), b.at(weights, turn, rows)
        for part in range(0, turn_length, isa.lanes):
            taps = [b.load_vector(b.at(source, tap * turn_length + part)) for tap in range(TAPS)]
            for point, value in enumerate(filter_to_points(b, taps)):
                b.store_vector(value, b.at(b.at(target, point, pitch), part))
    b.ret_void()
    return b.function

