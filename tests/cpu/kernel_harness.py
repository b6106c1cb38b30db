"""Runs one kernel, natively or emulated, on guarded memory: a write outside of a buffer, or a read outside of one without
slack, fails the test.

Arena values (f32 arrays) get readable slack on both sides, as in the real arena, full of NaN and checked for writes.
Tables and *external* arrays end, and in a second run begin, at a page that can't be touched.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import re
from collections.abc import Callable, Collection, Mapping

import numpy as np
from emulator import Memory, kernel_server

from zellige.cpu.host import runs_here
from zellige.cpu.isa import ISAS, Isa
from zellige.cpu.kernels.kernel import Kernel, emit_module
from zellige.cpu.toolchain import IMPORTS, Library, assembly, compile_ir, load_object

PAGE = mmap.PAGESIZE
SLACK = 4096
CANARY = np.uint32(0x7FC5A5A5)  # a quiet NaN

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

NATIVE = [isa for isa in ISAS.values() if runs_here(isa)]
"""The instruction sets that this machine runs."""


@functools.cache
def native(kernel: Kernel, isa: Isa) -> tuple[Callable[..., None], Library]:
    """The kernel as a function that ctypes can call, and the library that keeps its code alive."""
    library = load_object(compile_ir(emit_module([kernel], isa), isa), kernel.symbol)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    return prototype(library.address(kernel.symbol)), library


@functools.cache
def kernel_assembly(kernel: Kernel, isa: Isa) -> str:
    """The kernel's assembly, for any instruction set."""
    return assembly(emit_module([kernel], isa), isa, native=False)


class Guarded:
    """A copy of an array between two pages that can't be touched, with ``slack`` bytes of canaries on both sides."""

    def __init__(self, array: np.ndarray, slack: int, at_end: bool):
        body = array.nbytes + 2 * slack
        pages = -(-max(body, 1) // PAGE) * PAGE
        self._memory = mmap.mmap(-1, pages + 2 * PAGE)
        whole = np.frombuffer(self._memory, np.uint8)
        base = whole.ctypes.data
        for guard in (base, base + PAGE + pages):
            assert _libc.mprotect(guard, PAGE, 0) == 0, "mprotect failed"
        start = PAGE + (pages - body if at_end else 0)
        end = start + slack + array.nbytes
        self.body = whole[start:start + body]
        self.slack = [zone.view(np.uint32) for zone in (whole[start:start + slack], whole[end:start + body])]
        for zone in self.slack:
            zone[:] = CANARY
        self.array = whole[start + slack:end].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.address = self.array.ctypes.data if array.size else base + start + slack

    def check(self, name: str) -> None:
        for zone, side in zip(self.slack, ("before", "after"), strict=True):
            assert (zone == CANARY).all(), f"wrote {side} the buffer of slot {name!r}"


Slot = np.ndarray | tuple[np.ndarray, int] | int


def run_kernel(kernel: Kernel, slots: Mapping[str, Slot], items: int, isa: Isa = NATIVE[0],
               external: Collection[str] = (), changed: Collection[str] = ()) -> None:
    """Run all items; f32 arrays, and tables that are ``changed``, are changed in place, as the kernel changes them.

    A slot is an array, an array and the element that the slot points to, or an integer; one that is not given is a
    null pointer. The items run in uneven ``shares``.
    """
    results = [_run(kernel, slots, items, isa, external, changed, at_end) for at_end in (True, False)]
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name], err_msg=f"slot {name!r} differs between two runs")
        np.copyto(_array(slots[name]), array)


def shares(items: int) -> list[tuple[int, int]]:
    """Uneven shares of the items, the last first."""
    return list(itertools.pairwise(sorted({0, items // 3, items // 2, items})))[::-1]


def _array(slot: Slot) -> np.ndarray:
    return slot[0] if isinstance(slot, tuple) else np.asarray(slot)


def _run(kernel: Kernel, slots: Mapping[str, Slot], items: int, isa: Isa, external: Collection[str],
         changed: Collection[str], at_end: bool) -> dict[str, np.ndarray]:
    unknown = set(slots) - set(kernel.SLOTS)
    assert not unknown, f"{kernel} has no slots {unknown}"
    block = np.zeros(max(1, len(kernel.SLOTS)), np.int64)
    guarded: dict[str, Guarded] = {}
    emulated: list[Memory | int] = [0] * len(kernel.SLOTS)
    for name, slot in slots.items():
        number = kernel.SLOTS.index(name)
        if isinstance(slot, int):
            block[number] = emulated[number] = slot
            continue
        array, offset = slot if isinstance(slot, tuple) else (slot, 0)
        slack = SLACK if array.dtype == np.float32 and name not in external else 0
        guarded[name] = Guarded(array, slack, at_end)
        block[number] = guarded[name].address + offset * array.itemsize
        emulated[number] = Memory(guarded[name].body, slack + offset * array.itemsize, at_end)
    ranges = shares(items)
    if isa in NATIVE:
        function, _ = native(kernel, isa)
        for begin, end in ranges:
            function(block.ctypes.data, begin, end, 0)
    else:
        kernel_server().run(kernel, emulated, ranges)
    for name, buffer in guarded.items():
        buffer.check(name)
        if buffer.array.dtype != np.float32 and name not in changed:
            message = f"the kernel wrote into table {name!r}"
            np.testing.assert_array_equal(buffer.array, _array(slots[name]), err_msg=message)
    return {name: buffer.array.copy() for name, buffer in guarded.items()}


def check_assembly(kernel: Kernel) -> None:
    """The kernel compiles for every instruction set and calls nothing but its own functions and what code may import."""
    for isa in ISAS.values():
        text = kernel_assembly(kernel, isa)
        assert f"{kernel.symbol}:" in text
        calls = re.findall(r"^\s+(?:callq?|bl)\s+(\S+)", text, re.MULTILINE)
        allowed = (kernel.symbol, f".L{kernel.symbol}", *IMPORTS)
        foreign = [name for name in calls if not name.startswith(allowed)]
        assert not foreign, f"{kernel} calls {foreign} on {isa.name}"
