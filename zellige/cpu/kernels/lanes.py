"""Loading and storing vectors of pixels, of which some lanes lie outside of the map, and numbers for all lanes."""

from __future__ import annotations

from collections.abc import Iterator

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


def broadcasts(b: Emitter, numbers: ir.Value, count: int) -> Iterator[ir.Value]:
    """``numbers[0 … count − 1]``, one after another, each in all lanes: from memory, or from vectors that they fill.

    NEON multiplies by one lane of a vector for nothing, so four weights cost it one load.
    """
    lanes = b.isa.lanes
    if count % lanes:
        for number in range(count):
            yield b.splat(b.load_scalar(numbers, number))
    else:
        for first in range(0, count, lanes):
            together = b.load_vector(b.at(numbers, first))
            for lane in range(lanes):
                yield b.shuffle(together, together, [lane] * lanes)
