"""Sums and means over any dimensions: global average pooling, and every other reduction.

A few results accumulate at once, so that additions don't wait for one another. All of them read along one list of steps,
each from an origin of its own. Lanes run over a *reduced* dimension, and are added up at the end, for as many results
as there are lanes at once; or over a *kept* one, and are results themselves.

    for item in items:                            a group of origins
        for chunk of the steps:
            for step of the chunk:
                sums[origin] += source[origin + step]
            totals[origin] += sums[origin]
        target = epilogue(totals / divisor)

Chunks keep rounding small: it grows with the length of a chunk and the number of chunks, not with their product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I64, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import Fields, emit_fields, emit_store

REDUCED, KEPT = "reduced", "kept"
TARGET_FIELDS = 3   # target, inside, store
STEP_FIELDS = 2     # source offset, inside
KEPT_VECTORS = 4    # of an item
CHUNK = 64          # steps


@dataclass(frozen=True)
class ReduceKernel(Kernel):
    """One variant: which dimension ``lanes`` run over, whether the source is ``guarded`` (lanes outside of the map may lie
    outside of memory), an epilogue of activations.

    An item is, with ``reduced`` lanes, a vector of the target (``TARGET_FIELDS``) and the origin of each of its lanes; with
    ``kept`` ones ``KEPT_VECTORS`` vectors of the target, each with its origin.
    """

    lanes: str
    guarded: bool = False
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = ("source", "target", "items", "steps", "step_count", "divisor")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        source, target, items, steps = (self.slot(b, slots, name) for name in self.SLOTS[:4])
        count = self.slot(b, slots, "step_count", I64)
        divisor = b.splat(b.load_scalar(self.slot(b, slots, "divisor")))
        with b.loop(begin, end) as item:
            vectors, origins = self._item(b, items, item)
            masks = [b.lane_mask(inside) for _, inside, _ in vectors] if self.lanes == KEPT and self.guarded else []
            sums = self._emit_sums(b, [b.at(source, origin) for origin in origins], masks, steps, count)
            results = [transposed_sum(b, sums)] if self.lanes == REDUCED else sums
            for (place, inside, store), value in zip(vectors, results, strict=True):
                value = emit_epilogue(b, self.epilogue, b.fdiv(value, divisor), _no_operand)
                emit_store(b, value, b.at(target, place), inside, store)
        b.ret_void()

    def _item(self, b: Emitter, items: ir.Value, item: ir.Value) -> tuple[list[Fields], Fields]:
        """The vectors of the target that an item makes, and the origins that it reads from."""
        if self.lanes == REDUCED:
            fields = emit_fields(b, items, item, TARGET_FIELDS + b.isa.lanes)
            return [fields[:TARGET_FIELDS]], fields[TARGET_FIELDS:]
        fields = emit_fields(b, items, item, KEPT_VECTORS * (TARGET_FIELDS + 1))
        rows = [fields[row::KEPT_VECTORS] for row in range(KEPT_VECTORS)]
        return [row[:TARGET_FIELDS] for row in rows], [row[TARGET_FIELDS] for row in rows]

    def _emit_sums(self, b: Emitter, origins: list[ir.Value], masks: list[ir.Value], steps: ir.Value,
                   count: ir.Value) -> list[ir.Value]:
        """A vector of sums for each origin, over all steps; ``masks`` are the origins' own, if they have any."""
        zero = b.splat(0.0)
        totals = [b.variable(zero) for _ in origins]
        with b.loop(0, count, CHUNK) as first:
            sums = [b.variable(zero) for _ in origins]
            beyond = b.add(first, ir.Constant(I64, CHUNK))
            last = b.select(b.icmp_signed("<", beyond, count), beyond, count)
            with b.loop(first, last) as step:
                offset, inside = emit_fields(b, steps, step, STEP_FIELDS)
                each = [b.lane_mask(inside) if self.lanes == REDUCED else None] * len(origins)
                for place, origin, mask in zip(sums, origins, masks or each, strict=True):
                    self._accumulate(b, place, b.at(origin, offset), mask)
            for total, place in zip(totals, sums, strict=True):
                b.store(b.fadd(b.load(total, typ=b.vector), b.load(place, typ=b.vector)), total)
        return [b.load(total, typ=b.vector) for total in totals]

    def _accumulate(self, b: Emitter, place: ir.Value, pointer: ir.Value, mask: ir.Value | None) -> None:
        before = b.load(place, typ=b.vector)
        if mask is None:
            after = b.fadd(before, b.load_vector(pointer))
        elif self.guarded:
            after = b.fadd(before, b.masked_load(pointer, mask, b.splat(0.0)))
        else:
            after = b.select(mask, b.fadd(before, b.load_vector(pointer)), before)
        b.store(after, place)


def transposed_sum(b: Emitter, vectors: list[ir.Value]) -> ir.Value:
    """As many vectors as lanes → one vector whose lane i is the sum of vector i's lanes."""
    lanes, distance = len(vectors), 1
    while len(vectors) > 1:
        near = [lane if not lane & distance else lanes + (lane ^ distance) for lane in range(lanes)]
        far = [lane ^ distance if not lane & distance else lanes + lane for lane in range(lanes)]
        vectors = [b.fadd(b.shuffle(left, right, near), b.shuffle(left, right, far))
                   for left, right in zip(vectors[::2], vectors[1::2], strict=True)]
        distance *= 2
    return vectors[0]


def _no_operand(number: int) -> ir.Value:
    raise ValueError("a reduction's epilogue adds no values")
