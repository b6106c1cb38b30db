"""What a kernel is to the rest of the compiler.

A kernel family is a frozen dataclass: its fields choose a variant, ``emit`` writes that variant as LLVM IR. Variants are few, since
everything about a layer that does not change the inner loop (sizes, offsets, pitches, weights) is data: it comes in
through the slots of a call. Every kernel is one function

    void symbol(ptr slots, i64 begin, i64 end, i64 thread)

that does the work items ``begin … end - 1`` of a call. Slots are 8 bytes each: pointers or 64-bit integers, in the order
of ``SLOTS``. Items of one call write to different places, so any split over threads gives the same bits.
"""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import I64, POINTER, Emitter
from zellige.cpu.isa import Isa

ENTRY_ARGUMENTS = (POINTER, I64, I64, I64)


@dataclass(frozen=True)
class Kernel(ABC):
    """The base of all kernel families."""

    SLOTS: ClassVar[tuple[str, ...]] = ()

    @property
    def symbol(self) -> str:
        """A linker name that differs between variants: the family, then a digest of the fields."""
        fields = repr(dataclasses.astuple(self))
        return f"{type(self).__name__.lower()}_{hashlib.sha256(fields.encode()).hexdigest()[:12]}"

    @abstractmethod
    def emit(self, module: ir.Module, isa: Isa) -> None:
        """Write the kernel's functions into a module."""

    def entry(self, module: ir.Module, isa: Isa) -> tuple[Emitter, ir.Value, ir.Value, ir.Value, ir.Value]:
        """Begin the entry function: its builder, the slots, ``begin``, ``end`` and ``thread``."""
        builder = Emitter(module, isa, self.symbol, ENTRY_ARGUMENTS)
        slots, begin, end, thread = builder.function.args
        for argument, name in zip(builder.function.args, ("slots", "begin", "end", "thread"), strict=True):
            argument.name = name
        return builder, slots, begin, end, thread

    def slot(self, builder: Emitter, slots: ir.Value, name: str, kind: ir.Type = POINTER) -> ir.Value:
        """Load the slot called ``name``."""
        return builder.slot(slots, self.SLOTS.index(name), kind)


def emit_module(kernels: list[Kernel], isa: Isa) -> str:
    """The LLVM IR of several kernels, as text."""
    module = ir.Module()
    for kernel in kernels:
        kernel.emit(module, isa)
    text = str(module)
    _dismantle(module)
    return text


def _dismantle(module: ir.Module) -> None:
    """Let go of a module's parts, which refer to one another: Python would find out late, when all kernels lie in memory at once,
    and could give little of it back."""
    for function in module.functions:
        for block in function.blocks:
            for instruction in block.instructions:
                instruction.operands = []
                if isinstance(instruction, ir.PhiInstr):
                    instruction.incomings.clear()
            block.instructions.clear()
            block.terminator = None
        function.blocks.clear()
        function.args = ()
    module.globals.clear()
