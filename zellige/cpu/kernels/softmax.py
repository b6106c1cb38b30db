"""Softmax and its logarithm over one dimension, in three passes: the largest, the sum of exponentials, the results.

Subtracting the largest number keeps every exponential at or below 1. Lanes run *along* the dimension, where it is the one
whose elements follow one another, and come together after a pass; or *across* it, over other dimensions.

    for item in items:                                an origin, or a vector of origins
        largest = max(source[origin + step] for step in steps)
        for step in steps:
            total += target[origin + step] = exp(source[origin + step] − largest)
        for step in steps:
            target[origin + step] /= total

A NaN or +∞ makes every result of its origin NaN, and so do numbers that are all −∞; other −∞ count as nothing (PyTorch's rules).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I64, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import Fields, emit_fields, emit_store
from zellige.cpu.kernels.vector_math import exp, log

ALONG, ACROSS = "along", "across"
FIELDS = 4          # target, inside, store, source
NOTHING = float("-inf")


@dataclass(frozen=True)
class SoftmaxKernel(Kernel):
    """One variant: which way ``lanes`` run, the ``logarithm`` of the softmax or itself, whether the source is ``guarded``
    (lanes outside of the map may lie outside of memory).

    Items and steps have ``FIELDS`` each: offsets are added, masks met. Tables come from ``zellige.cpu.tables.softmax``.
    """

    lanes: str
    logarithm: bool = False
    guarded: bool = False

    SLOTS: ClassVar[tuple[str, ...]] = ("source", "target", "items", "steps", "step_count")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        source, target, items, steps = (self.slot(b, slots, name) for name in self.SLOTS[:4])
        count = self.slot(b, slots, "step_count", I64)
        with b.loop(begin, end) as index:
            place, inside, store, origin = emit_fields(b, items, index, FIELDS)
            item = [b.at(target, place), inside, store, b.at(source, origin)]
            largest = self._emit_largest(b, item, steps, count)
            total = self._emit_exponentials(b, item, steps, count, largest)
            self._emit_results(b, item, steps, count, largest, total)
        b.ret_void()

    def _emit_largest(self, b: Emitter, item: Fields, steps: ir.Value, count: ir.Value) -> ir.Value:
        largest = b.variable(b.splat(NOTHING))
        b.store(b.splat(NOTHING), largest)
        with each_step(b, item, steps, count) as (_, inside, _, source):
            b.store(b.maximum(self._load(b, source, inside), b.load(largest, typ=b.vector)), largest)
        return self._over_lanes(b, b.load(largest, typ=b.vector), b.maximum)

    def _emit_exponentials(self, b: Emitter, item: Fields, steps: ir.Value, count: ir.Value, largest: ir.Value) -> ir.Value:
        """The sum of exponentials; the target keeps them, unless the logarithm is wanted."""
        total = b.variable(b.splat(0.0))
        b.store(b.splat(0.0), total)
        with each_step(b, item, steps, count) as (target, inside, store, source):
            power = exp(b, b.fsub(self._load(b, source, inside), largest))
            if not self.logarithm:
                emit_store(b, power, target, inside, store)
            b.store(b.fadd(b.load(total, typ=b.vector), power), total)
        return self._over_lanes(b, b.load(total, typ=b.vector), b.fadd)

    def _emit_results(self, b: Emitter, item: Fields, steps: ir.Value, count: ir.Value, largest: ir.Value,
                      total: ir.Value) -> None:
        if self.logarithm:
            total = log(b, total)
        with each_step(b, item, steps, count) as (target, inside, store, source):
            if self.logarithm:
                value = b.fsub(b.fsub(self._load(b, source, inside), largest), total)
            else:
                value = b.fdiv(b.load_vector(target), total)
            emit_store(b, value, target, inside, store)

    def _load(self, b: Emitter, pointer: ir.Value, inside: ir.Value) -> ir.Value:
        """A vector of the source; lanes outside count as nothing in all passes."""
        mask = b.lane_mask(inside)
        if self.guarded:
            return b.masked_load(pointer, mask, b.splat(NOTHING))
        return b.select(mask, b.load_vector(pointer), b.splat(NOTHING))

    def _over_lanes(self, b: Emitter, value: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        """What all lanes give together, in every lane, if they belong together."""
        distance = b.isa.lanes // 2 if self.lanes == ALONG else 0
        while distance:
            value = combine(value, b.shuffle(value, value, [lane ^ distance for lane in range(b.isa.lanes)]))
            distance //= 2
        return value


@contextmanager
def each_step(b: Emitter, item: Fields, steps: ir.Value, count: ir.Value) -> Iterator[Fields]:
    """A loop over the steps of an item: where the target is, the inside mask, the store mask, where the source is."""
    target, item_inside, item_store, source = item
    with b.loop(0, count) as step:
        place, inside, store, offset = emit_fields(b, steps, step, FIELDS)
        yield [b.at(target, place), b.and_(item_inside, inside), b.and_(item_store, store), b.at(source, offset)]
