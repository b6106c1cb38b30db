"""Resampling of maps: nearest and bilinear interpolation to any height and width.

One dimension after the other, as PyTorch rounds: a source row is first resampled to the target's width, into one of two buffers
of the thread, and target rows are then blended from the buffers. When a map grows, every resampled row serves several target
rows. Lanes of a row are picked one by one, since no pattern fits every ratio of widths; nothing else of the source is read.

    for item in items:                            a range of rows of one plane
        for row of the item:
            for fill of the row:                  the source rows that no buffer holds yet
                buffer[x] = (1 − share[x]) · source[lower[x]] + share[x] · source[upper[x]]
            target[row] = (1 − share[row]) · buffer[lower[row]] + share[row] · buffer[upper[row]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I8, I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import emit_fields, emit_store

ITEM_FIELDS = 4     # target, source, first row, end of rows
ROW_FIELDS = 5      # target, lower buffer, upper buffer, first fill, end of fills
FILL_FIELDS = 2     # source, buffer
VECTOR_FIELDS = 3   # target and buffer, inside, store
BUFFERS = 2


@dataclass(frozen=True)
class InterpolateKernel(Kernel):
    """``bilinear``, or nearest, which takes the lower element alone.

    Tables come from ``zellige.cpu.tables.interpolate``. ``scratch`` has ``scratch_bytes`` for every thread.
    """

    bilinear: bool

    SLOTS: ClassVar[tuple[str, ...]] = (
        "source", "target", "items", "rows", "row_shares", "fills", "vectors", "vector_count", "lower", "upper",
        "column_shares", "scratch", "scratch_bytes")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, thread = self.entry(module, isa)
        fill_row, blend_row = self._emit_fill(module, isa), self._emit_blend(module, isa)
        source, target, items, rows, fills = (self.slot(b, slots, name) for name in ("source", "target", "items", "rows", "fills"))
        buffers = b.at(self.slot(b, slots, "scratch"), thread, self.slot(b, slots, "scratch_bytes", I64), I8)
        with b.loop(begin, end) as item:
            plane, origin, first, last = emit_fields(b, items, item, ITEM_FIELDS)
            with b.loop(first, last) as row:
                place, lower, upper, first_fill, last_fill = emit_fields(b, rows, row, ROW_FIELDS)
                with b.loop(first_fill, last_fill) as fill:
                    offset, buffer = emit_fields(b, fills, fill, FILL_FIELDS)
                    b.call(fill_row, [slots, b.at(source, b.add(origin, offset)), b.at(buffers, buffer)])
                b.call(blend_row, [slots, row, b.at(buffers, lower), b.at(buffers, upper), b.at(target, b.add(plane, place))])
        b.ret_void()

    def _emit_fill(self, module: ir.Module, isa: Isa) -> ir.Function:
        """One source row at the target's width: ``fill(slots, source row, buffer)``."""
        b = Emitter(module, isa, f"{self.symbol}_fill", [POINTER, POINTER, POINTER], internal=True)
        slots, source, buffer = b.function.args
        lower, upper, shares = (self.slot(b, slots, name) for name in ("lower", "upper", "column_shares"))
        with b.loop(0, self.slot(b, slots, "vector_count", I64)) as vector:
            value = picked(b, source, b.at(lower, vector, isa.lanes, I32))
            if self.bilinear:
                value = blended(b, value, picked(b, source, b.at(upper, vector, isa.lanes, I32)),
                                b.load_vector(b.at(shares, vector, isa.lanes)))
            b.store_vector(value, b.at(buffer, vector, isa.lanes))
        b.ret_void()
        return b.function

    def _emit_blend(self, module: ir.Module, isa: Isa) -> ir.Function:
        """One target row: ``blend(slots, row, lower buffer, upper buffer, target row)``."""
        b = Emitter(module, isa, f"{self.symbol}_blend", [POINTER, I64, POINTER, POINTER, POINTER], internal=True)
        slots, row, lower, upper, target = b.function.args
        vectors, count = self.slot(b, slots, "vectors"), self.slot(b, slots, "vector_count", I64)
        share = b.splat(b.load_scalar(self.slot(b, slots, "row_shares"), row)) if self.bilinear else None
        with b.loop(0, count) as vector:
            place, inside, store = emit_fields(b, vectors, vector, VECTOR_FIELDS)
            value = b.load_vector(b.at(lower, place))
            if share is not None:
                value = blended(b, value, b.load_vector(b.at(upper, place)), share)
            emit_store(b, value, b.at(target, place), inside, store)
        b.ret_void()
        return b.function


def picked(b: Emitter, pointer: ir.Value, indices: ir.Value) -> ir.Value:
    """The elements that a list of indices, one a lane, names."""
    value = ir.Constant(b.vector, ir.Undefined)
    for lane in range(b.isa.lanes):
        element = b.load_scalar(pointer, b.load_index(indices, lane))
        value = b.insert_element(value, element, ir.Constant(I32, lane))
    return value


def blended(b: Emitter, lower: ir.Value, upper: ir.Value, share: ir.Value) -> ir.Value:
    """(1 − share) · lower + share · upper."""
    return b.multiply_add(share, upper, b.fmul(b.fsub(b.splat(1.0), share), lower))
