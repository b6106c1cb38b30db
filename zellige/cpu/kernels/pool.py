"""Pooling: the maximum or the average of a window around every pixel.

Lanes run over output pixels. A window is a list of taps, each an offset into the source plane. Vectors whose windows all lie
inside of the map share one list; one at the edge has a list of its own, with the lanes for which each tap counts, so that what
lies in the margins is never used. Windows that differ from pixel to pixel (adaptive pooling) are the same thing: their taps
count for some lanes only.

    for item in items:                       a range of vectors of one plane
        for vector of the item:
            for tap of the vector's list:
                total = combine(total, source[vector + tap], where the tap counts)
            target[vector] = epilogue(total, divided by the vector's divisors for an average)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I32, I64, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.copy import listed
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import alternate, emit_fields, emit_store

MAXIMUM, AVERAGE = "maximum", "average"
LISTED = 0          # the step of lanes that lie neither side by side nor two apart
ITEM_FIELDS = 6     # first vector, end of vectors, source, target, operand0, operand1
VECTOR_FIELDS = 8   # source, target, inside, store, first tap, end of taps, edge, divisors
TAP_FIELDS = 2      # offset, lanes for which the tap counts
INFINITY_BITS = 0x7F800000


@dataclass(frozen=True)
class PoolKernel(Kernel):
    """One variant: ``maximum`` or ``average``; the ``step`` in elements from lane to lane (1, 2, or ``LISTED``); the epilogue.

    Tables come from ``zellige.cpu.tables.pool``. The operands of the epilogue have rows and images as the target has them. The
    source must lie in the arena: some elements around a plane are read and not used.
    """

    reduction: str
    step: int
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = (
        "items", "vectors", "taps", "divisors", "indices", "source", "target", "operand0", "operand1")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        items, vectors, taps, divisors, indices, *values = (self.slot(b, slots, name) for name in self.SLOTS)
        with b.loop(begin, end) as index:
            first, last, *offsets = emit_fields(b, items, index, ITEM_FIELDS)
            source, target, *operands = (b.at(value, offset) for value, offset in zip(values, offsets, strict=True))
            with b.loop(first, last) as vector:
                place, goal, inside, store, first_tap, last_tap, edge, divisor = emit_fields(b, vectors, vector, VECTOR_FIELDS)
                lanes = b.at(indices, vector, isa.lanes, I32)
                total = self._emit_window(b, b.at(source, place), lanes, taps, first_tap, last_tap, edge)
                if self.reduction == AVERAGE:
                    total = b.fdiv(total, b.load_vector(b.at(divisors, divisor, isa.lanes)))
                additions = [b.at(operand, goal) for operand in operands]
                value = emit_epilogue(b, self.epilogue, total, lambda number: b.load_vector(additions[number]))
                emit_store(b, value, b.at(target, goal), inside, store)
        b.ret_void()

    def _emit_window(self, b: Emitter, source: ir.Value, indices: ir.Value, taps: ir.Value, first: ir.Value, last: ir.Value,
                     edge: ir.Value) -> ir.Value:
        """The total over one vector's taps."""
        total = REDUCTIONS[self.reduction](b)

        def add(tap: ir.Value, masked: bool) -> None:
            offset, counts = emit_fields(b, taps, tap, TAP_FIELDS)
            value = self._load(b, b.at(source, offset), indices)
            total.add(b.select(b.lane_mask(counts), value, b.splat(total.START)) if masked else value)

        with b.if_else(b.icmp_signed("==", edge, ir.Constant(I64, 0)), likely=True) as (inner, outer):
            with inner, b.loop(first, last) as tap:
                add(tap, masked=False)
            with outer, b.loop(first, last) as tap:
                add(tap, masked=True)
        return total.value()

    def _load(self, b: Emitter, pointer: ir.Value, indices: ir.Value) -> ir.Value:
        """The source's pixels for all lanes, ``step`` elements apart or listed."""
        if self.step == LISTED:
            return listed(b, pointer, indices)
        if self.step == 1:
            return b.load_vector(pointer)
        return alternate(b, b.load_vector(pointer), b.load_vector(b.at(pointer, b.isa.lanes - 1)))


class Sum:
    """The sum of a window, tap by tap."""

    START: ClassVar[float] = 0.0

    def __init__(self, b: Emitter):
        self.b = b
        self.total = b.variable(b.splat(self.START))

    def add(self, value: ir.Value) -> None:
        self.b.store(self.b.fadd(self.b.load(self.total, typ=self.b.vector), value), self.total)

    def value(self) -> ir.Value:
        return self.b.load(self.total, typ=self.b.vector)


class Maximum:
    """The largest of a window, NaN if one is. The maximum itself loses NaN, in one short instruction; the largest bit pattern,
    signs aside, tells in the end whether there was one: finite numbers and infinity lie below all NaN."""

    START: ClassVar[float] = float("-inf")

    def __init__(self, b: Emitter):
        self.b = b
        self.bits = ir.VectorType(I32, b.isa.lanes)
        self.total = b.variable(b.splat(self.START))
        self.largest = b.variable(self._integers(0))

    def add(self, value: ir.Value) -> None:
        b = self.b
        b.store(b.maximum(b.load(self.total, typ=b.vector), value), self.total)
        magnitude = b.and_(b.bitcast(value, self.bits), self._integers(0x7FFFFFFF))
        largest = b.load(self.largest, typ=self.bits)
        b.store(b.select(b.icmp_signed(">", magnitude, largest), magnitude, largest), self.largest)

    def value(self) -> ir.Value:
        b = self.b
        nan = b.icmp_signed(">", b.load(self.largest, typ=self.bits), self._integers(INFINITY_BITS))
        return b.select(nan, b.splat(float("nan")), b.load(self.total, typ=b.vector))

    def _integers(self, value: int) -> ir.Value:
        return ir.Constant(self.bits, [value] * self.b.isa.lanes)


REDUCTIONS: dict[str, type[Sum] | type[Maximum]] = {MAXIMUM: Maximum, AVERAGE: Sum}
