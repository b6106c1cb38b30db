"""Pooling: the maximum or the average of a window around every pixel.

Lanes run over output pixels. A window is a list of taps, each an offset into the source plane. Vectors whose windows all lie
inside of the map share one list; one at the edge has a list of its own, with the lanes for which each tap counts, so that what
lies in the margins is never used. Windows that differ from pixel to pixel (adaptive pooling) are the same thing: their taps
count for some lanes only. Small windows of one size need no list: their taps are part of the code, see ``pool_windows``.

    for item in items:                       a range of vectors of one plane
        for vector of the item:
            for tap of the vector's list:    or all rows and columns of the window
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
from zellige.cpu.kernels.pool_windows import AVERAGE, MAXIMUM, START, emit_window

LISTED = 0          # the step of lanes that lie neither side by side nor two apart
ITEM_FIELDS = 6     # first vector, end of vectors, source, target, operand0, operand1
VECTOR_FIELDS = 5   # target, inside, store, edge, divisors; behind them
EDGE = 3
LIST_FIELDS = 3     # of taps in a list: source, first tap, end of taps
TAP_FIELDS = 2      # offset, lanes for which the tap counts
INFINITY_BITS = 0x7F800000


@dataclass(frozen=True)
class Windows:
    """How windows lie: ``step`` elements from lane to lane (1, 2, or ``LISTED``); rows × columns where they are part of the code.

    A vector of windows of such a ``size`` has these fields: for each row, where its first tap lies; the masks of
    rows at the first column, at the last; of columns.
    """

    step: int
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class PoolKernel(Kernel):
    """One variant: ``maximum`` or ``average``; how the windows lie; the epilogue.

    Tables come from ``zellige.cpu.tables.pool``. The operands of the epilogue have rows and images as the target has them. The
    source must lie in the arena: some elements around a plane are read and not used.
    """

    reduction: str
    windows: Windows
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
                fields = b.at(vectors, vector, self._fields, I32)
                edge, more = b.load_index(fields, EDGE), b.at(fields, VECTOR_FIELDS, element=I32)
                if self.windows.size:
                    total = self._emit_unrolled(b, source, more, self.windows.size, edge)
                else:
                    total = self._emit_listed(b, source, more, b.at(indices, vector, isa.lanes, I32), taps, edge)
                goal, inside, store, _, divisor = (b.load_index(fields, field) for field in range(VECTOR_FIELDS))
                if self.reduction == AVERAGE:
                    total = b.fdiv(total, b.load_vector(b.at(divisors, divisor, isa.lanes)))
                additions = [b.at(operand, goal) for operand in operands]
                value = emit_epilogue(b, self.epilogue, total, lambda number: b.load_vector(additions[number]))
                emit_store(b, value, b.at(target, goal), inside, store)
        b.ret_void()

    @property
    def _fields(self) -> int:
        height, width = self.windows.size or (0, 0)
        return VECTOR_FIELDS + (3 * height + width if self.windows.size else LIST_FIELDS)

    def _emit_unrolled(self, b: Emitter, source: ir.Value, fields: ir.Value, size: tuple[int, int], edge: ir.Value) -> ir.Value:
        """The total over one vector's windows of one size."""
        height, width = size
        rows = [b.at(source, b.load_index(fields, row)) for row in range(height)]
        total = b.variable(b.splat(START[self.reduction]))

        def mask(number: int) -> ir.Value:
            return b.lane_mask(b.load_index(fields, height + number))

        with b.if_else(b.icmp_signed("==", edge, ir.Constant(I64, 0))) as (inner, outer):
            with inner:
                b.store(emit_window(b, self.reduction, self.windows.step, width, rows, None), total)
            with outer:
                b.store(emit_window(b, self.reduction, self.windows.step, width, rows, mask), total)
        return b.load(total, typ=b.vector)

    def _emit_listed(self, b: Emitter, source: ir.Value, fields: ir.Value, indices: ir.Value, taps: ir.Value,
                     edge: ir.Value) -> ir.Value:
        """The total over one vector's list of taps."""
        place, first, last = (b.load_index(fields, field) for field in range(LIST_FIELDS))
        source = b.at(source, place)
        total = REDUCTIONS[self.reduction](b)

        def add(tap: ir.Value, masked: bool) -> None:
            offset, counts = emit_fields(b, taps, tap, TAP_FIELDS)
            value = self._load(b, b.at(source, offset), indices)
            total.add(b.select(b.lane_mask(counts), value, b.splat(START[self.reduction])) if masked else value)

        with b.if_else(b.icmp_signed("==", edge, ir.Constant(I64, 0)), likely=True) as (inner, outer):
            with inner, b.loop(first, last) as tap:
                add(tap, masked=False)
            with outer, b.loop(first, last) as tap:
                add(tap, masked=True)
        return total.value()

    def _load(self, b: Emitter, pointer: ir.Value, indices: ir.Value) -> ir.Value:
        """The source's pixels for all lanes, as far apart as the windows or listed."""
        if self.windows.step == LISTED:
            return listed(b, pointer, indices)
        if self.windows.step == 1:
            return b.load_vector(pointer)
        return alternate(b, b.load_vector(pointer), b.load_vector(b.at(pointer, b.isa.lanes - 1)))


class Sum:
    """The sum of a window, tap by tap."""

    def __init__(self, b: Emitter):
        self.b = b
        self.total = b.variable(b.splat(START[AVERAGE]))

    def add(self, value: ir.Value) -> None:
        self.b.store(self.b.fadd(self.b.load(self.total, typ=self.b.vector), value), self.total)

    def value(self) -> ir.Value:
        return self.b.load(self.total, typ=self.b.vector)


class Maximum:
    """The largest of a window, NaN if one is. The maximum itself loses NaN, in one short instruction; the largest bit pattern,
    signs aside, tells in the end whether there was one: finite numbers and infinity lie below all NaN."""

    def __init__(self, b: Emitter):
        self.b = b
        self.bits = ir.VectorType(I32, b.isa.lanes)
        self.total = b.variable(b.splat(START[MAXIMUM]))
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
