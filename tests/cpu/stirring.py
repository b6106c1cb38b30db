"""A program that mixes numbers: what a thread reads, others wrote in the call before.

So a barrier that lets one thread through too early changes the result.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir
import numpy as np

from zellige.cpu.emitter import I64
from zellige.cpu.host import host_isa
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel, emit_module
from zellige.cpu.launch import NativeCall, NativeProgram
from zellige.cpu.pool import Pool
from zellige.cpu.toolchain import Library, compile_ir, load_object

MULTIPLIERS = (1, 3, 7)


@dataclass(frozen=True)
class Stir(Kernel):
    """target[i] = source[(factor · i + shift) mod count] · 3 + i"""

    factor: int

    SLOTS: ClassVar[tuple[str, ...]] = ("source", "target", "shift", "count")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        source, target = (self.slot(b, slots, name) for name in ("source", "target"))
        shift, count = (self.slot(b, slots, name, I64) for name in ("shift", "count"))
        with b.loop(begin, end) as i:
            place = b.urem(b.add(b.mul(i, ir.Constant(I64, self.factor)), shift), count)
            value = b.load(b.at(source, place, element=I64), typ=I64)
            b.store(b.add(b.mul(value, ir.Constant(I64, 3)), i), b.at(target, i, element=I64))
        b.ret_void()


@functools.cache
def library() -> Library:
    isa = host_isa()
    return load_object(compile_ir(emit_module([Stir(factor) for factor in MULTIPLIERS], isa), isa), "stir")


class Stirring:
    """A program of ``Stir`` calls, back and forth between two arrays, and what numpy makes of the same."""

    def __init__(self, count: int, steps: list[tuple[int, int]], boundaries: list[np.ndarray], timed: bool = False):
        self.steps = steps
        self.arrays = [np.arange(count, dtype=np.int64), np.zeros(count, np.int64)]
        self.slots = np.array([[self.arrays[number % 2].ctypes.data, self.arrays[1 - number % 2].ctypes.data, shift, count]
                               for number, (_, shift) in enumerate(steps)], np.int64).reshape(-1, 4)
        calls = [NativeCall(library().address(Stir(factor).symbol), self.slots[number].ctypes.data, boundaries[number])
                 for number, (factor, _) in enumerate(steps)]
        self.program = NativeProgram(calls, len(boundaries[0]) - 1 if boundaries else 1, timed)
        self.expected = [array.copy() for array in self.arrays]

    def follow(self) -> None:
        """Do in numpy what one launch does."""
        items = np.arange(len(self.arrays[0]))
        for number, (factor, shift) in enumerate(self.steps):
            source, target = self.expected[number % 2], self.expected[1 - number % 2]
            target[:] = source[(factor * items + shift) % len(items)] * 3 + items

    def check(self) -> None:
        for array, expected in zip(self.arrays, self.expected, strict=True):
            np.testing.assert_array_equal(array, expected)


def even(count: int, threads: int) -> np.ndarray:
    return np.arange(threads + 1) * count // threads


def stirring(threads: int, count: int = 64, calls: int = 5, timed: bool = False) -> Stirring:
    steps = [(MULTIPLIERS[number % 3], number) for number in range(calls)]
    return Stirring(count, steps, [even(count, threads)] * calls, timed)


POOLS = functools.cache(Pool)
"""Pools that tests share, by their number of threads."""
