"""Arithmetic between values: sums, products, comparisons, per-channel scales, activations.

An operand is *full* (a vector for every vector of the target), *guarded* (the same, but lanes outside of the map may lie
outside of memory and are not read) or *scalar* (one number for a whole segment: per-channel constants, gates of
squeeze-and-excitation, 0-d constants).

    for item in items:                    a segment: a range of vectors, and where it begins in every value
        for vector of the segment:
            target[vector] = epilogue(operation(first[vector], second[vector], …))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.lanes import emit_fields, emit_store

FULL, GUARDED, SCALAR = "full", "guarded", "scalar"
OPERANDS = ("first", "second", "third", "fourth")
ITEM_FIELDS = 3     # first vector, end of vectors, offset of the target; then the offset of every operand and addition
VECTOR_FIELDS = 3   # target, inside, store; then the source of every operand and addition that is not scalar

OPERATIONS: dict[str, Callable[..., ir.Value]] = {
    "identity": lambda b, x: x,
    "add": lambda b, x, y: b.fadd(x, y),
    "subtract": lambda b, x, y: b.fsub(x, y),
    "multiply": lambda b, x, y: b.fmul(x, y),
    "divide": lambda b, x, y: b.fdiv(x, y),
    "maximum": lambda b, x, y: b.elementwise("llvm.maximum", x, y),
    "minimum": lambda b, x, y: b.elementwise("llvm.minimum", x, y),
    "scale_shift": lambda b, x, scale, shift: b.multiply_add(x, scale, shift),
    "prelu": lambda b, x, slope: b.select(b.fcmp_ordered(">", x, b.splat(0.0)), x, b.fmul(slope, x)),
    "where_greater": lambda b, left, right, x, y: b.select(b.fcmp_ordered(">", left, right), x, y),
    "where_greater_equal": lambda b, left, right, x, y: b.select(b.fcmp_ordered(">=", left, right), x, y),
    "where_equal": lambda b, left, right, x, y: b.select(b.fcmp_ordered("==", left, right), x, y),
    "where_not_equal": lambda b, left, right, x, y: b.select(b.fcmp_unordered("!=", left, right), x, y),
}


@dataclass(frozen=True)
class ElementwiseKernel(Kernel):
    """One variant: the operation (``OPERATIONS``), the kind of each operand, the epilogue (whose additions are full).

    Tables come from ``zellige.cpu.tables.elementwise``. An activation alone is ``identity`` with an epilogue.
    """

    operation: str
    operands: tuple[str, ...]
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = ("items", "vectors", "target", *OPERANDS, "operand0", "operand1")

    @property
    def inputs(self) -> dict[str, str]:
        """Every slot that is read, and its kind."""
        kinds = dict(zip(OPERANDS, self.operands, strict=False))
        return kinds | {f"operand{number}": FULL for number in range(operand_count(self.epilogue))}

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        items, vectors, target = (self.slot(b, slots, name) for name in ("items", "vectors", "target"))
        sources = {name: self.slot(b, slots, name) for name in self.inputs}
        with b.loop(begin, end) as index:
            first, last, offset, *offsets = emit_fields(b, items, index, ITEM_FIELDS + len(sources))
            segments = {name: b.at(sources[name], place) for name, place in zip(sources, offsets, strict=True)}
            scalars = [name for name, kind in self.inputs.items() if kind == SCALAR]
            numbers = {name: b.splat(b.load_scalar(segments[name])) for name in scalars}
            segment = b.at(target, offset)
            with b.loop(first, last) as vector:
                self._emit_vector(b, vectors, vector, segment, segments, numbers)
        b.ret_void()

    def _emit_vector(self, b: Emitter, vectors: ir.Value, vector: ir.Value, target: ir.Value,
                     segments: dict[str, ir.Value], numbers: dict[str, ir.Value]) -> None:
        listed = [name for name, kind in self.inputs.items() if kind != SCALAR]
        place, inside, store, *places = emit_fields(b, vectors, vector, VECTOR_FIELDS + len(listed))
        offsets = dict(zip(listed, places, strict=True))

        def operand(name: str) -> ir.Value:
            if name in numbers:
                return numbers[name]
            pointer = b.at(segments[name], offsets[name])
            if self.inputs[name] == GUARDED:
                return b.masked_load(pointer, b.lane_mask(inside), b.splat(0.0))
            return b.load_vector(pointer)

        value = OPERATIONS[self.operation](b, *map(operand, OPERANDS[:len(self.operands)]))
        value = emit_epilogue(b, self.epilogue, value, lambda number: operand(f"operand{number}"))
        emit_store(b, value, b.at(target, place), inside, store)
