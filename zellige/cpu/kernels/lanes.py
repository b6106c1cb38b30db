"""Loading and storing vectors of pixels, of which some lanes lie outside of the map."""

from __future__ import annotations

import llvmlite.ir as ir

from zellige.cpu.emitter import I32, I64, Emitter

Fields = list[ir.Value]


def emit_fields(b: Emitter, table: ir.Value, row: ir.Value, count: int) -> Fields:
    """The fields of one row of a table of 32-bit integers, as 64 bits."""
    place = b.at(table, row, count, I32)
    return [b.load_index(place, field) for field in range(count)]


def emit_store(b: Emitter, value: ir.Value, pointer: ir.Value, inside: ir.Value, store: ir.Value) -> None:
    """Write the lanes of ``store``; those that are not ``inside`` become 0. Both are integers with one bit a lane.

    Nearly all vectors are written whole, so these take a branch of their own: stores with a mask are slow where masks are no
    part of the instruction set: microcode on some processors with AVX2, a branch a lane on NEON.
    """
    value = b.select(b.lane_mask(inside), value, b.splat(0.0))
    with b.if_else(b.icmp_signed("==", store, ir.Constant(I64, (1 << b.isa.lanes) - 1)), likely=True) as (all_lanes, some_lanes):
        with all_lanes:
            b.store_vector(value, pointer)
        with some_lanes:
            b.masked_store(value, pointer, b.lane_mask(store))


def alternate(b: Emitter, low: ir.Value, high: ir.Value) -> ir.Value:
    """The elements 0, 2, 4, … of the vectors at element 0 and at element lanes − 1: none behind the last of them is needed."""
    count = b.isa.lanes
    return b.shuffle(low, high, [2 * lane if 2 * lane < count else 2 * lane + 1 for lane in range(count)])
