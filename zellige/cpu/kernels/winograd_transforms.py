"""The transforms of Winograd's F(4×4, 3×3), as matrices and as code on vectors of tiles.

The output map is cut into *tiles* of 4 × 4 pixels; a tile depends on a *window* of 6 × 6 input pixels. One linear
transform turns a window into values at 36 *points*, another turns each 3 × 3 filter into 36 weights; sums of their products
go back to 4 × 4 pixels through a third (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). One
dimension has the points 0, ±√½, ±√2 and infinity; two dimensions apply the matrices from both sides. Point (x, y) has number
6 · x + y.

Points decide how exact the sums are: these lose half as much as the usual 0, ±1, ±2 and infinity, for the same work. Powers of
points are what amplifies rounding, and none of these is larger than 2√2, or smaller than its inverse (Barabasz and others,
"Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020). The values at ±√2 are
halved, which is exact and makes the matrices mirror images of themselves.

A vector holds one pixel, or point, of as many tiles as it has lanes. Its tiles come in *runs* of neighbours in a row, each
at a place of its own (``winograd_runs.py``). Four vectors of neighbouring pixels hold one row of all tiles; going from
there to tiles, and back, transposes the 4 × 4 numbers in each 128-bit quarter, without a gather. A map of 14 × 14 fills one
vector of 16 tiles.
"""

from __future__ import annotations

import llvmlite.ir as ir
import numpy as np

from zellige.cpu.emitter import I1, I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.winograd_runs import (
    EDGES,
    TILE,
    WHOLE,
    WindowFields,
    join_runs,
    load_field,
    load_run,
    run_lanes,
    run_mask,
)

TAPS, WINDOW = 3, 6
POINTS = WINDOW * WINDOW
NEAR, FAR = 0.5**0.5, 2.0**0.5     # points; each is the other's inverse

FILTER_TRANSFORM = np.array([[1, 0, 0], [2 / 3, FAR / 3, 1 / 3], [2 / 3, -FAR / 3, 1 / 3],
                             [1 / 3, FAR / 3, 2 / 3], [1 / 3, -FAR / 3, 2 / 3], [0, 0, 1]])
"""Three taps along one side of a filter to six points."""


def to_points(b: Emitter, d: list[ir.Value]) -> list[ir.Value]:
    """Six pixels along one side of a window to six points."""
    near_even, near_odd = b.multiply_add(2.0, d[2], b.fneg(d[4])), b.multiply_add(2.0, d[1], b.fneg(d[3]))
    far_even, far_odd = b.multiply_add(-0.5, d[2], d[4]), b.multiply_add(-0.5, d[1], d[3])
    return [b.multiply_add(-2.5, d[2], b.fadd(d[0], d[4])),
            b.multiply_add(NEAR, near_odd, near_even), b.multiply_add(-NEAR, near_odd, near_even),
            b.multiply_add(FAR, far_odd, far_even), b.multiply_add(-FAR, far_odd, far_even),
            b.multiply_add(-2.5, d[3], b.fadd(d[1], d[5]))]


def from_points(b: Emitter, m: list[ir.Value]) -> list[ir.Value]:
    """Six points to four pixels along one side of a tile."""
    near, near_step = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    far, far_step = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [b.multiply_add(0.5, far, b.fadd(near, m[0])), b.fmul(b.splat(NEAR), b.fadd(near_step, far_step)),
            b.multiply_add(0.5, near, far), b.multiply_add(FAR, far_step, b.multiply_add(NEAR / 2, near_step, m[5]))]


def transpose_quarters(b: Emitter, vectors: list[ir.Value]) -> list[ir.Value]:
    """Transpose the 4 × 4 numbers in each 128-bit quarter of four vectors, in two rounds of unpack instructions."""
    lanes = b.isa.lanes

    def unpack(left: ir.Value, right: ir.Value, chosen: tuple[int, ...]) -> ir.Value:
        return b.shuffle(left, right, [quarter + lane for quarter in range(0, lanes, 4) for lane in chosen])

    transposed = []
    for singles in ((0, lanes, 1, lanes + 1), (2, lanes + 2, 3, lanes + 3)):
        upper, lower = unpack(vectors[0], vectors[1], singles), unpack(vectors[2], vectors[3], singles)
        for pairs in ((0, 1, lanes, lanes + 1), (2, 3, lanes + 2, lanes + 3)):
            transposed.append(unpack(upper, lower, pairs))
    return transposed


def emit_input_transform(module: ir.Module, isa: Isa, name: str, runs: int) -> ir.Function:
    """``input(source, plane, row, window, tiles, point_pitch, first, end)``: one vector of tiles, some channels.

    ``window`` is the vector's row of the table of windows; ``tiles`` takes [point][channel][lane], ``point_pitch`` elements from
    one point to the next. Pixels that may not be read count as zeros: padding that has no place in the source, and what lies
    outside of the padded map, so that nothing of it can reach a tile which is partly inside. Where that is no more than the edges
    of windows they are read all the same, and cleared once they lie in vectors of tiles, which takes four masks only.
    """
    b = Emitter(module, isa, name, [POINTER, I64, I64, POINTER, POINTER, I64, I64, I64], internal=True)
    source, plane, row, window, tiles, point_pitch, first, end = b.function.args
    fields = WindowFields(runs)
    origins = [b.at(source, b.load_index(window, fields.source(run))) for run in range(runs)]

    def emit_channels(masks: dict[tuple[int, int, int], ir.Value], edges: dict[tuple[int, int], ir.Value]) -> None:
        with b.loop(first, end) as channel:
            places = [b.at(origin, channel, plane) for origin in origins]
            rows = []
            for window_row in range(WINDOW):
                # Windows overlap by two columns: a second load, four columns on, gives each tile its columns 4 and 5.
                left, right = (transpose_quarters(b, join_runs(b, [
                    load_run(b, b.at(place, TILE * load), runs, masks.get((run, window_row, load)))
                    for run, place in enumerate(places)])) for load in (0, 1))
                pixels = left + right[:WINDOW - TILE]
                for place in (0, WINDOW - 1):
                    if (1, place) in edges:
                        pixels[place] = b.select(edges[1, place], pixels[place], b.splat(0.0))
                if (0, window_row) in edges:
                    pixels = [b.select(edges[0, window_row], pixel, b.splat(0.0)) for pixel in pixels]
                rows.append(to_points(b, pixels))
                places = [b.at(place, row) for place in places]
            target = b.at(tiles, channel, isa.lanes)
            for column in range(WINDOW):
                for value in to_points(b, [values[column] for values in rows]):
                    b.store(value, target, align=isa.vector_bytes)
                    target = b.at(target, point_pitch)

    kind = b.load_index(window, WHOLE)
    with b.if_else(b.icmp_signed("==", kind, ir.Constant(I64, 1))) as (whole, partial):
        with whole:
            emit_channels({}, {})
        with partial, b.if_else(b.icmp_signed("==", kind, ir.Constant(I64, EDGES))) as (edges, any_lanes):
            with edges:
                sides = [(axis, place) for axis in (0, 1) for place in (0, WINDOW - 1)]
                emit_channels({}, {side: b.lane_mask(load_field(b, window, fields.edge(number)))
                                   for number, side in enumerate(sides)})
            with any_lanes:
                emit_channels(_emit_window_masks(b, window, fields), {})
    b.ret_void()
    return b.function


def _emit_window_masks(b: Emitter, window: ir.Value, fields: WindowFields) -> dict[tuple[int, int, int], ir.Value]:
    """The readable lanes of (run, row of the window, load)."""
    masks, lanes = {}, run_lanes(b, fields.runs)
    for run in range(fields.runs):
        rows = load_field(b, window, fields.rows(run))
        for load in (0, 1):
            bits = load_field(b, window, fields.lanes(run, load))
            for window_row in range(WINDOW):
                readable = b.trunc(b.lshr(rows, ir.Constant(I32, window_row)), I1)
                masks[run, window_row, load] = run_mask(b, b.select(readable, bits, ir.Constant(I32, 0)), lanes)
    return masks


def emit_output_transform(b: Emitter, sums: ir.Value, pitch: int, bias: ir.Value) -> list[list[ir.Value]]:
    """The 4 × 4 pixels of one channel, with a lane a tile; ``sums`` holds [point][lane], ``pitch`` apart.

    ``bias``, a vector, is added to every pixel.
    """
    points = [b.load(b.at(sums, point, pitch), typ=b.vector, align=b.isa.vector_bytes) for point in range(POINTS)]
    columns = [from_points(b, points[first:first + WINDOW]) for first in range(0, POINTS, WINDOW)]
    rows = [from_points(b, [column[row] for column in columns]) for row in range(TILE)]
    return [[b.fadd(pixel, bias) for pixel in row] for row in rows]


def emit_filter_transform(module: ir.Module, isa: Isa, name: str, rows: int, columns: int) -> ir.Function:
    """``filters(halves, count, weights, pitch)``: weights at six points, from filters that are transformed along x already.

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


def filter_to_points(b: Emitter, g: list[ir.Value]) -> list[ir.Value]:
    """Three taps along one side of a filter to six points: ``FILTER_TRANSFORM``."""
    near = b.multiply_add(2 / 3, g[0], b.fmul(b.splat(1 / 3), g[2]))
    far = b.multiply_add(2 / 3, g[2], b.fmul(b.splat(1 / 3), g[0]))
    return [g[0], b.multiply_add(FAR / 3, g[1], near), b.multiply_add(-FAR / 3, g[1], near),
            b.multiply_add(FAR / 3, g[1], far), b.multiply_add(-FAR / 3, g[1], far), g[2]]
