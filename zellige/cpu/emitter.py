"""The builder that every kernel is emitted with: LLVM's instructions plus the few idioms that kernels need.

All code is written for vectors of ``isa.lanes`` numbers; nothing here or in the kernels names an instruction set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import llvmlite.ir as ir

from zellige.cpu.isa import Isa

F32, I1, I8, I16, I32, I64 = ir.FloatType(), ir.IntType(1), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
VOID, POINTER = ir.VoidType(), ir.PointerType()
SLOT_BYTES = 8

Index: TypeAlias = ir.Value | int


def constant(value: Index) -> ir.Value:
    """A 64-bit integer, if it is not a value already."""
    return ir.Constant(I64, value) if isinstance(value, int) else value


class Emitter(ir.IRBuilder):
    """Builds one function. ``arguments`` are LLVM types; ``internal`` ones stay private to the module.

    Internal functions are never inlined: registers are then allocated for one inner loop at a time.
    """

    def __init__(self, module: ir.Module, isa: Isa, name: str, arguments: Sequence[ir.Type], internal: bool = False):
        function = ir.Function(module, ir.FunctionType(VOID, list(arguments)), name)
        function.attributes.add("nounwind")
        if internal:
            function.linkage = "internal"
            function.attributes.add("noinline")
        super().__init__(function.append_basic_block("entry"))
        self.isa = isa
        self.vector = ir.VectorType(F32, isa.lanes)
        self.lane_bits = ir.VectorType(I1, isa.lanes)

    # Memory

    def at(self, pointer: ir.Value, index: Index, stride: Index = 1, element: ir.Type = F32) -> ir.Value:
        """The address of ``pointer[index * stride]``."""
        if isinstance(index, int) and isinstance(stride, int):
            return pointer if index * stride == 0 else self.gep(pointer, [constant(index * stride)], source_etype=element)
        scaled = index if stride == 1 else self.mul(constant(index), constant(stride))
        return self.gep(pointer, [scaled], source_etype=element)

    def slot(self, arguments: ir.Value, number: int, kind: ir.Type = POINTER) -> ir.Value:
        """Slot ``number`` of a call's argument block: a pointer, or a 64-bit integer with ``kind=I64``."""
        return self.load(self.at(arguments, number, element=I64), typ=kind, align=SLOT_BYTES)

    def load_index(self, table: ir.Value, index: Index) -> ir.Value:
        """``table[index]`` of a table of 32-bit integers, as 64 bits."""
        return self.sext(self.load(self.at(table, index, element=I32), typ=I32, align=4), I64)

    def load_scalar(self, pointer: ir.Value, index: Index = 0) -> ir.Value:
        return self.load(self.at(pointer, index), typ=F32, align=4)

    def load_vector(self, pointer: ir.Value) -> ir.Value:
        return self.load(pointer, typ=self.vector, align=4)

    def store_vector(self, value: ir.Value, pointer: ir.Value) -> None:
        self.store(value, pointer, align=4)

    def masked_load(self, pointer: ir.Value, mask: ir.Value, otherwise: ir.Value) -> ir.Value:
        """Lanes outside the mask are not read (they may lie outside of memory) and take ``otherwise``."""
        return self.intrinsic(f"llvm.masked.load.v{self.isa.lanes}f32.p0", self.vector,
                              pointer, ir.Constant(I32, 4), mask, otherwise)

    def masked_store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value) -> None:
        self.intrinsic(f"llvm.masked.store.v{self.isa.lanes}f32.p0", VOID, value, pointer, ir.Constant(I32, 4), mask)

    def prefetch(self, pointer: ir.Value) -> None:
        """Fetch a cache line that will be read soon; the address may lie outside of memory."""
        read, keep, data = (ir.Constant(I32, value) for value in (0, 3, 1))
        self.intrinsic("llvm.prefetch.p0", VOID, pointer, read, keep, data)

    # Vectors

    def splat(self, value: ir.Value | float) -> ir.Value:
        """All lanes equal to one number."""
        if isinstance(value, (int, float)):
            return ir.Constant(self.vector, [float(value)] * self.isa.lanes)
        undefined = ir.Constant(self.vector, ir.Undefined)
        single = self.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(I32, self.isa.lanes), [0] * self.isa.lanes))

    def shuffle(self, left: ir.Value, right: ir.Value, lanes: Sequence[int]) -> ir.Value:
        return self.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))

    def lane_mask(self, bits: ir.Value) -> ir.Value:
        """The mask whose lane i is bit i of an integer."""
        narrow = ir.IntType(self.isa.lanes)
        trimmed = bits if bits.type == narrow else self.trunc(bits, narrow)
        return self.bitcast(trimmed, self.lane_bits)

    def multiply_add(self, x: ir.Value | float, y: ir.Value | float, z: ir.Value | float) -> ir.Value:
        """x · y + z, rounded once."""
        return self.elementwise("llvm.fma", x, y, z)

    def maximum(self, x: ir.Value | float, bound: ir.Value | float) -> ir.Value:
        """The larger, in one instruction. A NaN in ``x`` stays NaN, as PyTorch has it; one in ``bound`` is lost."""
        left, right = self._vector(x), self._vector(bound)
        return self.select(self.fcmp_ordered("<", left, right), right, left)

    def minimum(self, x: ir.Value | float, bound: ir.Value | float) -> ir.Value:
        """The smaller, in one instruction. A NaN in ``x`` stays NaN; one in ``bound`` is lost."""
        left, right = self._vector(x), self._vector(bound)
        return self.select(self.fcmp_ordered(">", left, right), right, left)

    def elementwise(self, name: str, *operands: ir.Value | float) -> ir.Value:
        """An LLVM intrinsic such as ``llvm.fma`` on vectors."""
        return self.intrinsic(f"{name}.v{self.isa.lanes}f32", self.vector, *map(self._vector, operands))

    def _vector(self, value: ir.Value | float) -> ir.Value:
        return self.splat(value) if isinstance(value, (int, float)) else value

    def intrinsic(self, name: str, result: ir.Type, *operands: ir.Value) -> ir.Value:
        if name not in self.module.globals:
            ir.Function(self.module, ir.FunctionType(result, [operand.type for operand in operands]), name)
        return self.call(self.module.globals[name], operands)

    # Control

    @contextmanager
    def loop(self, low: Index, high: Index, step: int = 1) -> Iterator[ir.Value]:
        """``with b.loop(low, high) as index:`` emits the body of ``for index in range(low, high, step)``."""
        before = self.block
        head, body, after = (self.append_basic_block(name) for name in ("head", "body", "after"))
        self.branch(head)
        self.position_at_end(head)
        index = self.phi(I64)
        index.add_incoming(constant(low), before)
        self.cbranch(self.icmp_signed("<", index, constant(high)), body, after)
        self.position_at_end(body)
        yield index
        index.add_incoming(self.add(index, constant(step)), self.block)
        self.branch(head)
        self.position_at_end(after)

    def variable(self, value: ir.Value) -> ir.Value:
        """A local that the optimiser turns into a register: for values that a loop carries along."""
        with self.goto_entry_block():
            place = self.alloca(value.type)
        self.store(value, place)
        return place
