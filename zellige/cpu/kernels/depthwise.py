"""The depthwise kernel: convolutions in which every output channel reads one input channel.

Each weight meets each pixel once, so the layer is bound by loads. The filter of a channel is held in registers, its taps are
read from the source's own planes, margins and all, and a vector that was loaded serves all rows of outputs that it is a tap
of: seven rows of a 3 × 3 filter take 27 loads in place of 63. At a horizontal stride of 2 a tap takes each second element of
two vectors, which its neighbour shares; no plane is staged.

    for item in items:                        a range of tiles of one output channel
        for tile of the item:                 vectors below one another
            for row of the source under the tile, for kx:
                x = source[tile, row, kx]
                for each vector of which that is a tap:
                    sums[vector] += filter[row − vector's own][kx] · x
            target[vector] = epilogue(sums[vector])
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I64, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import alternate, emit_fields

ITEM_FIELDS = 4     # first tile, end of tiles, output channel, input channel
TILE_FIELDS = 5     # source, target, inside, store: of the first vector, as in zellige.cpu.tables.vectors; vectors
STEPS = (1, 2)      # horizontal strides


@dataclass(frozen=True)
class DepthwiseKernel(Kernel):
    """One variant: the filter's height and width, how far apart its taps lie, the stride, the vectors of its tiles, the epilogue.

    All pairs are vertical, then horizontal. ``source_row`` and ``target_row`` are the elements from one row to the next;
    ``weights`` are [output][tap]. Tables come from ``zellige.cpu.tables.depthwise``.
    """

    size: tuple[int, int]
    dilation: tuple[int, int]
    step: tuple[int, int]
    tiles: tuple[int, ...] = (1,)
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = (
        "source", "target", "items", "tiles", "weights", "bias", "source_row", "target_row", "source_plane", "target_plane",
        "operand0", "operand0_plane", "operand1", "operand1_plane")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        source, target, items, tiles, weights, bias = (self.slot(b, slots, name) for name in self.SLOTS[:6])
        source_row, target_row, source_plane, target_plane = (self.slot(b, slots, name, I64) for name in self.SLOTS[6:10])
        count = self.size[0] * self.size[1]
        with b.loop(begin, end) as index:
            first, last, output, channel = emit_fields(b, items, index, ITEM_FIELDS)
            here = b.at(source, channel, source_plane)
            outputs = [b.at(target, output, target_plane)]
            outputs += [b.at(self.slot(b, slots, f"operand{number}"), output, self.slot(b, slots, f"operand{number}_plane", I64))
                        for number in range(operand_count(self.epilogue))]
            numbers = b.at(weights, output, count)
            taps = [b.splat(b.load_scalar(numbers, tap)) for tap in range(count)]
            start = b.splat(b.load_scalar(bias, output))
            with b.loop(first, last) as tile:
                place, goal, inside, store, vectors = emit_fields(b, tiles, tile, TILE_FIELDS)
                goals = [b.at(plane, goal) for plane in outputs]
                for shape in self.tiles:
                    with b.if_then(b.icmp_signed("==", vectors, ir.Constant(I64, shape))):
                        self._emit_tile(b, shape, b.at(here, place), source_row, goals, target_row, taps, start, (inside, store))
        b.ret_void()

    def _emit_tile(self, b: Emitter, vectors: int, source: ir.Value, source_row: ir.Value, goals: list[ir.Value],
                   target_row: ir.Value, taps: list[ir.Value], start: ir.Value, lanes: tuple[ir.Value, ir.Value]) -> None:
        """One tile, through the epilogue into the target; behind the end of rows there are tiles of zeros alone."""
        inside, store = lanes
        whole = b.icmp_signed("==", store, ir.Constant(I64, (1 << b.isa.lanes) - 1))
        with b.if_else(b.icmp_signed("!=", inside, ir.Constant(I64, 0)), likely=True) as (pixels, blank):
            with pixels:
                places = [[b.at(goal, vector, target_row) for goal in goals] for vector in range(vectors)]
                values = []
                for (_, *operands), total in zip(places, self._emit_sums(b, vectors, source, source_row, taps, start), strict=True):
                    added = [b.load_vector(operand) for operand in operands]
                    value = emit_epilogue(b, self.epilogue, total, added.__getitem__)
                    values.append(b.select(b.lane_mask(inside), value, b.splat(0.0)))
                with b.if_else(whole, likely=True) as (all_lanes, some_lanes):
                    with all_lanes:
                        for value, (place, *_) in zip(values, places, strict=True):
                            b.store_vector(value, place)
                    with some_lanes:
                        for value, (place, *_) in zip(values, places, strict=True):
                            b.masked_store(value, place, b.lane_mask(store))
            with blank:
                for vector in range(vectors):
                    b.masked_store(b.splat(0.0), b.at(goals[0], vector, target_row), b.lane_mask(store))

    def _emit_sums(self, b: Emitter, vectors: int, source: ir.Value, source_row: ir.Value, taps: list[ir.Value],
                   start: ir.Value) -> list[ir.Value]:
        """What the filter gives for the vectors of one tile."""
        height, width = self.size
        sums = [start] * vectors
        uses: dict[int, list[tuple[int, int]]] = {}
        for vector in range(vectors):
            for y in range(height):
                uses.setdefault(vector * self.step[0] + y * self.dilation[0], []).append((vector, y))
        for row in sorted(uses):
            for x, value in enumerate(self._emit_row(b, b.at(source, row, source_row))):
                for vector, y in uses[row]:
                    sums[vector] = b.multiply_add(value, taps[y * width + x], sums[vector])
        return sums

    def _emit_row(self, b: Emitter, row: ir.Value) -> Iterator[ir.Value]:
        """The vectors of all taps of a row, from left to right."""
        width, apart, lanes = self.size[1], self.dilation[1], b.isa.lanes
        if self.step[1] == 1:
            for x in range(width):
                yield b.load_vector(b.at(row, x * apart))
            return
        for x in range(0, width, 2 if apart == 1 else 1):
            low = b.load_vector(b.at(row, x * apart))
            if apart == 1 and x + 1 < width:  # the neighbour takes the elements between
                high = b.load_vector(b.at(row, x + lanes))
                yield b.shuffle(low, high, list(range(0, 2 * lanes, 2)))
                yield b.shuffle(low, high, list(range(1, 2 * lanes, 2)))
            else:
                yield alternate(b, low, b.load_vector(b.at(row, x * apart + lanes - 1)))
