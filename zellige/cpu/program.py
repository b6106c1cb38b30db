"""A plan in native memory: addresses in place of names, a share of every call for every thread.

Tables and weights are copied once into one block (``Tables``), which all programs of a plan share: on cache lines, in the
order of their use, in huge pages where the system has them. Each program has an arena of its own.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping

import numpy as np

from zellige.cpu.calls import Call, External, Place, Plan, Scratch, Slot
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.launch import NativeCall, NativeProgram
from zellige.cpu.layout import LINE, round_up
from zellige.cpu.memory import plan_memory
from zellige.cpu.pool import Pool

SLACK = 16384          # bytes at both ends of the arena that kernels may read
SMALL_CALL = 6000      # cycles that are not worth sharing
HUGE_PAGE = 2 << 20


class Memory:
    """Private zeroed memory that begins on a page; in huge pages where it is large and the system has them."""

    def __init__(self, size: int) -> None:
        try:
            self._pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"the system does not give {size >> 20} MiB at once ({error.strerror})") from error
        if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
            self._pages.madvise(mmap.MADV_HUGEPAGE)
        self.bytes = np.frombuffer(self._pages, np.uint8)
        self.address = self.bytes.ctypes.data


class Tables:
    """All arrays of a plan in one block; afterwards the plan's own arrays are views of it.

    ``nbytes`` counts all of them, ``weight_bytes`` the packed weights and biases, without indices.
    """

    def __init__(self, plan: Plan) -> None:
        users: dict[int, list[tuple[Call, str]]] = {}
        sizes: dict[int, int] = {}
        for call in plan.calls:
            for name, slot in call.slots.items():
                if isinstance(slot, np.ndarray):
                    users.setdefault(id(slot), []).append((call, name))
                    sizes[id(slot)] = round_up(slot.nbytes, 4 * LINE)
        self.nbytes = sum(sizes.values())
        arrays = [places[0][0].slots[places[0][1]] for places in users.values()]
        self.weight_bytes = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray) and array.dtype == np.float32)
        del arrays
        self.memory = Memory(self.nbytes + SLACK)  # kernels prefetch, and load bias vectors, past the end
        offset = 0
        for key, places in users.items():  # an array goes as soon as its copy is there: not all of them exist twice at once
            self._move(places, offset)
            offset += sizes[key]

    def _move(self, places: list[tuple[Call, str]], offset: int) -> None:
        """Copy the array that stands in all these places into the block, and put the copy in its stead."""
        call, name = places[0]
        array = call.slots[name]
        assert isinstance(array, np.ndarray)
        view = self.memory.bytes[offset:offset + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        for call, name in places:
            call.slots[name] = view


class Program:
    """One plan, ready to run on a pool of threads; on the calling thread alone if none of its calls is worth sharing.

    ``live_bytes`` is the most that activations take at a time.
    """

    def __init__(self, plan: Plan, tables: Tables, code: Mapping[Kernel, int], pool: Pool) -> None:
        pool = pool if any(call.cycles >= SMALL_CALL for call in plan.calls) else Pool(1)
        self.plan, self.tables, self.pool = plan, tables, pool
        arena = plan_memory(plan.calls, plan.buffers)
        self.arena = Memory(4 * arena.elements + 2 * SLACK)
        slots = [slot for call in plan.calls for slot in call.slots.values()]
        scratch = max((slot.elements for slot in slots if isinstance(slot, Scratch)), default=0)
        self.scratch = Memory(4 * scratch * pool.threads + SLACK)
        self._offsets, self.live_bytes = arena.offsets, 4 * arena.live
        count = sum(len(call.kernel.SLOTS) * (plan.parts if call.meets_caller else 1) for call in plan.calls)
        self._slots = np.zeros(max(1, count), np.int64)
        self._patches: dict[External, list[tuple[int, int]]] = {}
        boundaries = np.stack([shares(call.costs, pool.threads) for call in plan.calls])
        barriers = needed_barriers(plan.calls, boundaries)
        self._calls: list[NativeCall] = []
        end = 0
        for part in range(plan.parts):  # calls that don't meet the caller have the same slots in every part
            for number, (call, ends, barrier) in enumerate(zip(plan.calls, boundaries, barriers, strict=True)):
                if part and not call.meets_caller:
                    self._calls.append(self._calls[number])
                    continue
                self._calls.append(NativeCall(code[call.kernel], self._slots.ctypes.data + 8 * end, ends, bool(barrier)))
                for name in call.kernel.SLOTS:
                    self._slots[end] = self._resolve(call.slots.get(name, 0), end, part)
                    end += 1
        self._native = NativeProgram(self._calls, pool.threads)
        self._writable = ctypes.cast(self._slots.ctypes.data, ctypes.POINTER(ctypes.c_int64))

    def _resolve(self, slot: Slot, position: int, part: int) -> int:
        if isinstance(slot, Place):
            return self.arena.address + SLACK + 4 * (self._offsets[slot.buffer] + slot.offset)
        if isinstance(slot, np.ndarray):
            return slot.ctypes.data
        if isinstance(slot, Scratch):
            return self.scratch.address
        if isinstance(slot, External):
            self._patches.setdefault(slot, []).append((position, part))
            return 0
        return slot

    def patches(self, kind: str, index: int, size: int = 0) -> tuple[tuple[int, int], ...]:
        """The slots that hold addresses in one of the caller's arrays, which has ``size`` bytes; and how far in, for each."""
        step = size // self.plan.parts
        return tuple((position, part * step) for position, part in self._patches.get(External(kind, index), ()))

    def bind(self, patches: tuple[tuple[int, int], ...], address: int) -> None:
        """Write the address of one of the caller's arrays into its slots."""
        for position, offset in patches:
            self._writable[position] = address + offset

    def run(self) -> None:
        self.pool.launch(self._native)

    def run_timed(self) -> np.ndarray:
        """Run once; the times in nanoseconds at the start and after every call. Shape (calls of all parts of the batch + 1)."""
        timed = NativeProgram(self._calls, self.pool.threads, timed=True)
        self.pool.launch(timed)
        return timed.times


def shares(costs: np.ndarray, threads: int) -> np.ndarray:
    """Item boundaries: thread t does items ``shares[t] … shares[t + 1] - 1``, of about equal cost. Shape (threads + 1).

    >>> shares(np.array([4000, 4000, 8000]), 2)
    array([0, 2, 3])
    """
    total = np.concatenate([[0], np.cumsum(costs)])
    if threads == 1 or total[-1] < SMALL_CALL:
        return np.array([0] + [len(costs)] * threads)
    middle = (total[:-1] + total[1:]) / 2  # an item belongs to the share that its middle falls into
    ends = np.searchsorted(middle, total[-1] * np.arange(threads + 1) / threads)
    ends[-1] = len(costs)  # items at the end that cost nothing are done too
    return ends


def largest_share(call: Call, threads: int) -> float:
    """The part of a call's cycles that the busiest thread has."""
    done = np.concatenate([[0], np.cumsum(call.costs)])
    return float(np.diff(done[shares(call.costs, threads)]).max() / done[-1]) if done[-1] else 1.0


def needed_barriers(calls: list[Call], boundaries: np.ndarray) -> np.ndarray:
    """Which calls must be followed by a barrier: those of the plan, but none between phases that thread 0 does alone."""
    barriers = np.array([call.barrier for call in calls], bool)
    phase = np.cumsum(barriers) - barriers
    shared = np.zeros(phase[-1] + 2, bool)  # phases in which other threads have a share
    np.logical_or.at(shared, phase, boundaries[:, 1] != boundaries[:, -1])
    needed = barriers & (shared[phase] | shared[phase + 1])
    needed[-1] = True
    return needed
