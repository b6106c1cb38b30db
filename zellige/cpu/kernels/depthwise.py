"""The depthwise kernel: convolutions in which every output channel reads one input channel.

Each weight meets each pixel once, so the layer is bound by loads. The filter of a channel is held in registers and its taps
are read from the source's own planes, margins and all; at a stride of 2 every tap takes each second element of two vectors, and
no plane is staged.

    for item in items:                        a range of vectors of one output channel
        for vector of the item:
            sums[ky] += filter[ky][kx] · source[vector + ky · row_step + kx]
            target[vector] = epilogue(bias + sum of the sums)

A chain of additions for each row of the filter, joined in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I64, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import alternate, emit_fields, emit_store

ITEM_FIELDS = 4     # first vector, end of vectors, output channel, input channel
VECTOR_FIELDS = 4   # source, target, inside, store: zellige.cpu.tables.vectors
STEPS = (1, 2)      # horizontal strides


@dataclass(frozen=True)
class DepthwiseKernel(Kernel):
    """One variant: the filter's height and width, how far apart its taps lie in a row, the horizontal stride, the epilogue.

    ``row_step`` is the distance in the source from one row of taps to the next; ``weights`` are [output][tap]. Tables come from
    ``zellige.cpu.tables.depthwise``.
    """

    size: tuple[int, int]
    dilation: int
    step: int
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = (
        "source", "target", "items", "vectors", "weights", "bias", "row_step", "source_plane", "target_plane",
        "operand0", "operand0_plane", "operand1", "operand1_plane")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        source, target, items, vectors, weights, bias = (self.slot(b, slots, name) for name in self.SLOTS[:6])
        row_step, source_plane, target_plane = (self.slot(b, slots, name, I64) for name in self.SLOTS[6:9])
        height, width = self.size
        with b.loop(begin, end) as index:
            first, last, output, channel = emit_fields(b, items, index, ITEM_FIELDS)
            here, there = b.at(source, channel, source_plane), b.at(target, output, target_plane)
            additions = [b.at(self.slot(b, slots, f"operand{number}"), output, self.slot(b, slots, f"operand{number}_plane", I64))
                         for number in range(operand_count(self.epilogue))]
            numbers = b.at(weights, output, height * width)
            taps = [b.splat(b.load_scalar(numbers, tap)) for tap in range(height * width)]
            start = b.splat(b.load_scalar(bias, output))
            with b.loop(first, last) as vector:
                place, goal, inside, store = emit_fields(b, vectors, vector, VECTOR_FIELDS)
                rows = [b.at(b.at(here, place), y, row_step) for y in range(height)]
                total = self._emit_sum(b, rows, taps, start)
                value = emit_epilogue(b, self.epilogue, total, lambda number: b.load_vector(b.at(additions[number], goal)))
                emit_store(b, value, b.at(there, goal), inside, store)
        b.ret_void()

    def _emit_sum(self, b: Emitter, rows: list[ir.Value], taps: list[ir.Value], start: ir.Value) -> ir.Value:
        """What the filter gives for one vector of output pixels."""
        width = self.size[1]
        sums = []
        for y, row in enumerate(rows):
            total = start if y == 0 else b.splat(0.0)
            for x in range(width):
                total = b.multiply_add(self._load(b, b.at(row, x * self.dilation)), taps[y * width + x], total)
            sums.append(total)
        while len(sums) > 1:
            sums = [b.fadd(left, right) for left, right in zip(sums[::2], sums[1::2], strict=False)] + sums[len(sums) & ~1:]
        return sums[0]

    def _load(self, b: Emitter, pointer: ir.Value) -> ir.Value:
        if self.step == 1:
            return b.load_vector(pointer)
        return alternate(b, b.load_vector(pointer), b.load_vector(b.at(pointer, b.isa.lanes - 1)))
