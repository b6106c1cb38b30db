"""Copies: pixels from one layout to another, and zeros into margins.

Everything that only moves numbers is a copy: staging of a convolution's source (padding written out, one plane for each
phase of a stride), the network's own input and output, padding, slices, transposes, nearest-neighbour interpolation. A vector
of the target takes its lanes from neighbouring elements, from every second one, or from a list of places, whatever its row of
the table says.

    for item in items:                    a range of vectors, and where it begins on both sides
        for vector of the item:
            target[vector] = the source's lanes where inside, ``fill`` where filled, else 0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import F32, I32, I64, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import alternate, emit_fields, emit_store

ITEM_FIELDS = 4     # first vector, end of vectors, offset of the source, offset of the target
VECTOR_FIELDS = 6   # source, target, inside, store, filled, step
LISTED = 0          # the step of a vector whose lanes are listed in ``indices``, at row ``source``


@dataclass(frozen=True)
class CopyKernel(Kernel):
    """Tables come from ``zellige.cpu.tables.windows`` and ``relayout``. ``fill`` is the bit pattern of an f32 number.

    Nothing is read but the elements that are copied, and nothing is written but the lanes to store: the source may be
    the caller's own input, the target the caller's own output.
    """

    SLOTS: ClassVar[tuple[str, ...]] = ("items", "vectors", "indices", "source", "target", "fill")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        items, vectors, indices, source, target = (self.slot(b, slots, name) for name in self.SLOTS[:-1])
        emit_copies(b, (items, vectors, indices), source, target, self.slot(b, slots, "fill", I64), begin, end)
        b.ret_void()


def emit_copies(b: Emitter, tables: tuple[ir.Value, ir.Value, ir.Value], source: ir.Value, target: ir.Value, fill: ir.Value,
                begin: ir.Value, end: ir.Value) -> None:
    """The items ``begin … end - 1`` of the tables items, vectors and indices."""
    items, vectors, indices = tables
    filling = b.splat(b.bitcast(b.trunc(fill, I32), F32))
    everything = ir.Constant(I64, (1 << b.isa.lanes) - 1)
    with b.loop(begin, end) as index:
        first, last, source_offset, target_offset = emit_fields(b, items, index, ITEM_FIELDS)
        here, there = b.at(source, source_offset), b.at(target, target_offset)
        with b.loop(first, last) as vector:
            place, goal, inside, store, filled, step = emit_fields(b, vectors, vector, VECTOR_FIELDS)
            lanes = b.variable(b.splat(0.0))
            with b.if_then(b.icmp_signed("==", step, ir.Constant(I64, 1)), likely=True):
                b.store(neighbours(b, b.at(here, place), inside), lanes)
            with b.if_then(b.icmp_signed("==", step, ir.Constant(I64, 2))):
                b.store(every_second(b, b.at(here, place), inside), lanes)
            with b.if_then(b.icmp_signed("==", step, ir.Constant(I64, LISTED))):
                b.store(listed(b, here, b.at(indices, place, b.isa.lanes, I32)), lanes)
            rest = b.select(b.lane_mask(filled), filling, b.splat(0.0))
            value = b.select(b.lane_mask(inside), b.load(lanes, typ=b.vector), rest)
            emit_store(b, value, b.at(there, goal), everything, store)


def neighbours(b: Emitter, pointer: ir.Value, inside: ir.Value) -> ir.Value:
    """The elements 0, 1, 2, …; those not ``inside`` are not read, and 0."""
    lanes = b.variable(b.splat(0.0))
    with b.if_else(_all(b, inside), likely=True) as (whole, partial):
        with whole:
            b.store(b.load_vector(pointer), lanes)
        with partial:
            b.store(b.masked_load(pointer, b.lane_mask(inside), b.splat(0.0)), lanes)
    return b.load(lanes, typ=b.vector)


def every_second(b: Emitter, pointer: ir.Value, inside: ir.Value) -> ir.Value:
    """The elements 0, 2, 4, …; those not ``inside`` are not read, and 0."""
    count = b.isa.lanes
    spread_low = [lane // 2 if lane % 2 == 0 else count for lane in range(count)]
    spread_high = [(lane + count - 1) // 2 if lane % 2 else count for lane in range(count)]
    end = b.at(pointer, count - 1)
    lanes = b.variable(b.splat(0.0))
    with b.if_else(_all(b, inside), likely=True) as (whole, partial):
        with whole:
            b.store(alternate(b, b.load_vector(pointer), b.load_vector(end)), lanes)
        with partial:
            mask, none = b.lane_mask(inside), ir.Constant(b.lane_bits, [0] * count)
            low = b.masked_load(pointer, b.shuffle(mask, none, spread_low), b.splat(0.0))
            high = b.masked_load(end, b.shuffle(mask, none, spread_high), b.splat(0.0))
            b.store(alternate(b, low, high), lanes)
    return b.load(lanes, typ=b.vector)


def listed(b: Emitter, source: ir.Value, indices: ir.Value) -> ir.Value:
    """The elements that a list names, one for every lane; each must be readable."""
    value = ir.Constant(b.vector, ir.Undefined)
    for lane in range(b.isa.lanes):
        number = b.load_scalar(source, b.load_index(indices, lane))
        value = b.insert_element(value, number, ir.Constant(I32, lane))
    return value


def _all(b: Emitter, inside: ir.Value) -> ir.Value:
    return b.icmp_signed("==", inside, ir.Constant(I64, (1 << b.isa.lanes) - 1))


@dataclass(frozen=True)
class FillKernel(Kernel):
    """Writes zeros: every item is a place, at which each of ``runs`` (begin, length) is cleared."""

    SLOTS: ClassVar[tuple[str, ...]] = ("items", "runs", "run_count", "target")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        items, runs, target = (self.slot(b, slots, name) for name in ("items", "runs", "target"))
        count = self.slot(b, slots, "run_count", I64)
        width = ir.Constant(I64, isa.lanes)
        with b.loop(begin, end) as index:
            place = b.at(target, b.load_index(items, index))
            with b.loop(0, count) as run:
                start, length = emit_fields(b, runs, run, 2)
                pointer = b.at(place, start)
                whole = b.mul(b.udiv(length, width), width)
                with b.loop(0, whole, isa.lanes) as element:
                    b.store_vector(b.splat(0.0), b.at(pointer, element))
                rest = b.sub(b.shl(ir.Constant(I64, 1), b.sub(length, whole)), ir.Constant(I64, 1))
                b.masked_store(b.splat(0.0), b.at(pointer, whole), b.lane_mask(rest))
        b.ret_void()
