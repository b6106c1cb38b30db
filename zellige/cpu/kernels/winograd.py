"""The Winograd kernels: 3 × 3 convolutions of stride 1 with fewer multiplications, and only the kept columns.

With windows and filters at 36 points (``winograd_points.py``) the convolution is 36 separate matrix products over channels. The
filter transform never mixes channels, so a column of a band that is zero in all nine taps is zero at all points: one list of
kept columns serves all 36 products, and what sparsity saves multiplies with what Winograd saves. Small tiles have 16 points. Lanes
run over tiles, weights are broadcast, as in the band kernel. A *group* is some bands that use the tiles of a point in turn:

    for point:                                       36, or 16
        for band of the group:
            sums[row][vector] = 0
            for column of the band:
                sums[row][vector] += weight[point][column][row] · tiles[vector][point][column]
    for band of the group: target = epilogue(output transform of sums + bias)

Two plans are made of this. Where tiles are many, one call does whole strips (``WinogradStrip``); the weights were transformed when
the network was loaded, and stay in the cache from strip to strip. Where tiles are few, each weight is used but a few times, and
transformed weights are four times as many bytes to fetch: so the map is cut into parts of a few strips, and all groups of bands go
through one part before the next, doing half of the transform of their filters on the way (``WinogradGroup``). Filters of small
tiles are read as they are. In both, each thread transforms the tiles that it needs, into scratch memory of its own: to share them
was slower wherever two threads do not share a third-level cache, even for a single part that all of them transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.winograd_pieces import (
    OUTPUT_SLOTS,
    UNROLL,
    call_kind,
    emit_outputs,
    emit_products,
    load_fields,
    strip_kinds,
    sum_pitch,
    thread_scratch,
)
from zellige.cpu.kernels.winograd_points import TAPS
from zellige.cpu.kernels.winograd_runs import Tiling, WindowFields
from zellige.cpu.kernels.winograd_transforms import emit_filter_transform, emit_input_transform

GROUP_ITEM = 3      # fields: first strip, end of strips, group
STRIP = 3           # fields: first vector, vectors, kind (``strip_kinds``)
AHEAD = 128         # columns from the weights in use to those that are fetched

INPUT_SLOTS = ("source", "source_plane", "source_row", "source_channels", "windows", "vector_pitch", "point_pitch")
PRODUCT_SLOTS = ("vector_pitch", "point_pitch", "strips", "groups", "starts", "columns", "scratch", "scratch_bytes")


@dataclass(frozen=True)
class WinogradStrip(Kernel):
    """From source to target; an item is one of the ``strips``, of up to ``vectors``. Its tiles lie in the thread's scratch.

    ``starts`` says where the lists of the bands of ``rows`` rows begin in ``columns``, which hold channel · lanes;
    ``groups`` are pairs of first and end band; ``weights`` are [group][point][column][row].
    """

    rows: int
    vectors: int
    tiling: Tiling
    epilogue: Epilogue = ()
    pooled: bool = False

    SLOTS: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys(
        (*INPUT_SLOTS, *PRODUCT_SLOTS, *OUTPUT_SLOTS, "weights", "group_count")))

    def emit(self, module: ir.Module, isa: Isa) -> None:
        transform = emit_input_transform(module, isa, f"{self.symbol}_input", self.tiling)
        outputs = emit_outputs(self, module, isa, self.rows, self.vectors, self.tiling, self.epilogue, self.pooled)
        kinds = {kind: self._emit_group(module, isa, *shape, outputs)
                 for kind, shape in strip_kinds(self.vectors, self.tiling.tile).items()}
        b, slots, begin, end, thread = self.entry(module, isa)
        strips, groups = self.slot(b, slots, "strips"), self.slot(b, slots, "groups")
        pitch, group_count = (self.slot(b, slots, name, I64) for name in ("vector_pitch", "group_count"))
        tiles = thread_scratch(self, b, slots, thread)
        sums = b.at(tiles, self.vectors, pitch)
        with b.loop(begin, end) as index:
            first, width, kind = load_fields(b, strips, index, STRIP)
            emit_transforms(self, self.tiling, b, slots, transform, first, b.add(first, width), tiles)
            with b.loop(0, group_count) as group:
                call_kind(b, kind, kinds, [slots, tiles, first, b.at(groups, group, 2, I32), sums])
        b.ret_void()

    def _emit_group(self, module: ir.Module, isa: Isa, width: int, share: int, outputs: ir.Function) -> ir.Function:
        """``group(slots, tiles, first vector, group, sums)``: the products of a strip and a group, then their outputs."""
        products = emit_products(module, isa, f"{self.symbol}_products{width}x{share}", self.rows, width, share)
        b = Emitter(module, isa, f"{self.symbol}_group{width}x{share}", [POINTER, POINTER, I64, POINTER, POINTER], internal=True)
        slots, tiles, first_vector, group, sums = b.function.args
        starts, columns, all_weights = (self.slot(b, slots, name) for name in ("starts", "columns", "weights"))
        vector_pitch, point_pitch = (self.slot(b, slots, name, I64) for name in ("vector_pitch", "point_pitch"))
        pitch, points = sum_pitch(self.rows, self.vectors, isa.lanes), self.tiling.transform.points
        first_band, end_band = load_fields(b, group, ir.Constant(I64, 0), 2)
        first_column = b.load_index(starts, first_band)
        group_columns = b.sub(b.load_index(starts, end_band), first_column)
        group_weights = b.at(all_weights, first_column, points * self.rows)
        with b.loop(0, points) as point:
            point_weights = b.at(group_weights, b.mul(point, group_columns), self.rows)
            with b.loop(first_band, end_band) as band:
                start, count = emit_list(b, starts, band)
                weights = b.at(point_weights, b.sub(start, first_column), self.rows)
                place = b.add(b.mul(b.sub(band, first_band), ir.Constant(I64, points)), point)
                b.call(products, [b.at(tiles, point, point_pitch), vector_pitch, weights, b.at(columns, start, element=I32), count,
                                  b.at(sums, place, pitch), b.at(weights, AHEAD * self.rows)])
        with b.loop(first_band, end_band) as band:
            place = b.at(sums, b.sub(band, first_band), points * pitch)
            b.call(outputs, [slots, band, place, first_vector, ir.Constant(I64, width)])
        b.ret_void()
        return b.function


@dataclass(frozen=True)
class WinogradGroup(Kernel):
    """From source to target; an item is a group of bands and a range of ``strips``, whose tiles are made when it begins, unless the
    item before had the same.

    As ``WinogradStrip``, but filters that grow much come transformed along x alone, ``halves`` [group][point along x][turn of
    columns][tap along y][column][row]; the thread that needs them does the rest, the points of one x at a time.
    """

    rows: int
    vectors: int
    tiling: Tiling
    epilogue: Epilogue = ()
    pooled: bool = False

    SLOTS: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys(
        (*INPUT_SLOTS, *PRODUCT_SLOTS, *OUTPUT_SLOTS, "items", "most_vectors", "halves", "most_columns", "weights")))

    def emit(self, module: ir.Module, isa: Isa) -> None:
        transform = emit_input_transform(module, isa, f"{self.symbol}_input", self.tiling)
        outputs = emit_outputs(self, module, isa, self.rows, self.vectors, self.tiling, self.epilogue, self.pooled)
        window, points = self.tiling.transform.window, self.tiling.transform.points
        points_of_x = self._emit_points_of_x(module, isa)
        b, slots, begin, end, thread = self.entry(module, isa)
        items, strips, groups = (self.slot(b, slots, name) for name in ("items", "strips", "groups"))
        tiles = thread_scratch(self, b, slots, thread)
        weights = sums = b.at(tiles, self.slot(b, slots, "most_vectors", I64), self.slot(b, slots, "vector_pitch", I64))
        if self.tiling.transform.filter_to_points:
            sums = b.at(weights, self.slot(b, slots, "most_columns", I64), window * self.rows)
        pitch = sum_pitch(self.rows, self.vectors, isa.lanes)
        held = b.variable(ir.Constant(I64, -1))  # the first strip of those whose tiles are there
        with b.loop(begin, end) as index:
            first_strip, end_strip, group_number = load_fields(b, items, index, GROUP_ITEM)
            with b.if_then(b.icmp_signed("!=", b.load(held, typ=I64), first_strip)):
                first, _, _ = load_fields(b, strips, first_strip, STRIP)
                last, width, _ = load_fields(b, strips, b.sub(end_strip, ir.Constant(I64, 1)), STRIP)
                emit_transforms(self, self.tiling, b, slots, transform, first, b.add(last, width), tiles)
                b.store(first_strip, held)
            group = b.at(groups, group_number, 2, I32)
            with b.loop(0, window) as x:
                b.call(points_of_x, [slots, group, x, first_strip, end_strip, tiles, weights, sums])
            first_band, end_band = load_fields(b, group, ir.Constant(I64, 0), 2)
            band_sums = b.mul(b.sub(end_strip, first_strip), ir.Constant(I64, points))
            with b.loop(first_band, end_band) as band, b.loop(first_strip, end_strip) as strip:
                first_vector, width, _ = load_fields(b, strips, strip, STRIP)
                place = b.add(b.mul(b.sub(band, first_band), band_sums),
                              b.mul(b.sub(strip, first_strip), ir.Constant(I64, points)))
                b.call(outputs, [slots, band, b.at(sums, place, pitch), first_vector, width])
        b.ret_void()

    def _emit_points_of_x(self, module: ir.Module, isa: Isa) -> ir.Function:
        """``points(slots, group, x, first strip, end strip, tiles, weights, sums)``: a group at the points (x, 0), (x, 1), …

        If filters come by half, ``weights`` are the thread's own, [y][column][row]. While they are used, the next x's are fetched.
        """
        transform = self.tiling.transform
        window, points = transform.window, transform.points
        finish = transform.filter_to_points
        filters = emit_filter_transform(module, isa, f"{self.symbol}_filters", finish, self.rows, UNROLL) if finish else None
        one_point = self._emit_one_point(module, isa)
        b = Emitter(module, isa, f"{self.symbol}_points", [POINTER, POINTER, *[I64] * 3, *[POINTER] * 3], internal=True)
        slots, group, x, first_strip, end_strip, tiles, weights, sums = b.function.args
        starts = self.slot(b, slots, "starts")
        first_band, end_band = load_fields(b, group, ir.Constant(I64, 0), 2)
        first_column = b.load_index(starts, first_band)
        columns = b.sub(b.load_index(starts, end_band), first_column)
        name, values = ("halves", TAPS) if filters else ("weights", window)
        packed = b.at(self.slot(b, slots, name), b.add(b.mul(first_column, ir.Constant(I64, window)), b.mul(x, columns)),
                      values * self.rows)
        if filters:
            following = b.at(packed, columns, TAPS * self.rows)
            b.call(filters, [packed, columns, weights, b.mul(columns, ir.Constant(I64, self.rows))])
        else:
            weights, following = packed, b.at(packed, AHEAD, self.rows)
        band_sums = b.mul(b.sub(end_strip, first_strip), ir.Constant(I64, points))
        with b.loop(0, window) as y, b.loop(first_band, end_band) as band:
            point = b.add(b.mul(x, ir.Constant(I64, window)), y)
            column = b.add(b.mul(y, columns), b.sub(b.load_index(starts, band), first_column))
            place = b.add(b.mul(b.sub(band, first_band), band_sums), point)
            point_sums = b.at(sums, place, sum_pitch(self.rows, self.vectors, isa.lanes))
            b.call(one_point, [slots, band, first_strip, end_strip, b.at(tiles, point, self.slot(b, slots, "point_pitch", I64)),
                               b.at(weights, column, self.rows), point_sums, b.at(following, column, self.rows)])
        b.ret_void()
        return b.function

    def _emit_one_point(self, module: ir.Module, isa: Isa) -> ir.Function:
        """``one_point(slots, band, first strip, end strip, tiles, weights, sums, ahead)``: a band at a point, all strips."""
        kinds = {kind: emit_products(module, isa, f"{self.symbol}_products{width}x{share}", self.rows, width, share)
                 for kind, (width, share) in strip_kinds(self.vectors, self.tiling.tile).items()}
        b = Emitter(module, isa, f"{self.symbol}_point", [POINTER, *[I64] * 3, *[POINTER] * 4], internal=True)
        slots, band, first_strip, end_strip, tiles, weights, sums, ahead = b.function.args
        starts, all_columns, strips = (self.slot(b, slots, name) for name in ("starts", "columns", "strips"))
        vector_pitch = self.slot(b, slots, "vector_pitch", I64)
        range_vector, _, _ = load_fields(b, strips, first_strip, STRIP)
        start, count = emit_list(b, starts, band)
        columns = b.at(all_columns, start, element=I32)
        with b.loop(first_strip, end_strip) as strip:
            first_vector, _, kind = load_fields(b, strips, strip, STRIP)
            strip_tiles = b.at(tiles, b.sub(first_vector, range_vector), vector_pitch)
            place = b.mul(b.sub(strip, first_strip), ir.Constant(I64, self.tiling.transform.points))
            strip_sums = b.at(sums, place, sum_pitch(self.rows, self.vectors, isa.lanes))
            call_kind(b, kind, kinds, [strip_tiles, vector_pitch, weights, columns, count, strip_sums, ahead])
        b.ret_void()
        return b.function


def emit_transforms(kernel: Kernel, tiling: Tiling, b: Emitter, slots: ir.Value, transform: ir.Function, first: ir.Value,
                    end: ir.Value, tiles: ir.Value) -> None:
    """Transform the windows of some vectors, all channels, into ``tiles`` [vector][point][channel][lane]."""
    plane, row, channels, vector_pitch, point_pitch = (
        kernel.slot(b, slots, name, I64)
        for name in ("source_plane", "source_row", "source_channels", "vector_pitch", "point_pitch"))
    source, windows = kernel.slot(b, slots, "source"), kernel.slot(b, slots, "windows")
    with b.loop(first, end) as vector:
        window = b.at(windows, vector, WindowFields(tiling.runs).count, I32)
        b.call(transform, [source, plane, row, window, b.at(tiles, b.sub(vector, first), vector_pitch), point_pitch,
                           ir.Constant(I64, 0), channels])


def emit_list(b: Emitter, starts: ir.Value, band: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Where a band's list of columns begins, and how long it is."""
    start, end = (b.load_index(starts, place) for place in (band, b.add(band, ir.Constant(I64, 1))))
    return start, b.sub(end, start)
