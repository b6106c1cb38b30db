"""A list of kernel calls as native memory, in the form that the launch code reads (see ``runtime.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORD_BYTES = 8
HEADER_WORDS, CALL_WORDS = 2, 4


@dataclass(frozen=True)
class NativeCall:
    """One call with its addresses.

    ``function`` is the address of a kernel; ``slots`` the address of its slots; ``boundaries`` the threads + 1 ends of the
    threads' shares of items, int64. With ``barrier`` the next call waits until all threads are done with this one.
    """

    function: int
    slots: int
    boundaries: np.ndarray
    barrier: bool = True


class NativeProgram:
    """Calls in order, for a fixed number of threads.

    It owns its words and boundaries; slots, and what they point to, the caller must keep. With ``timed``, thread 0 notes the
    time after every call and its barrier: ``times`` holds nanoseconds, one more than there are calls, the first the start.
    """

    def __init__(self, calls: Sequence[NativeCall], threads: int, timed: bool = False):
        self.threads = threads
        self.times = np.zeros(len(calls) + 1 if timed else 0, np.int64)
        self.boundaries = np.zeros((len(calls), threads + 1), np.int64)
        self.words = np.zeros(HEADER_WORDS + CALL_WORDS * len(calls), np.uint64)
        self.words[:HEADER_WORDS] = len(calls), self.times.ctypes.data if timed else 0
        for number, call in enumerate(calls):
            self.boundaries[number] = _checked(call.boundaries, threads, number)
            place = self.boundaries.ctypes.data + number * (threads + 1) * WORD_BYTES
            barrier = call.barrier or number == len(calls) - 1  # the last one keeps the program in place until all have read it
            start = HEADER_WORDS + CALL_WORDS * number
            self.words[start:start + CALL_WORDS] = call.function, call.slots, place, barrier
        self.address = self.words.ctypes.data

    def __len__(self) -> int:
        return len(self.boundaries)


def _checked(boundaries: np.ndarray, threads: int, number: int) -> np.ndarray:
    if np.shape(boundaries) != (threads + 1,) or np.any(np.diff(boundaries) < 0):
        raise ValueError(f"call {number} needs {threads + 1} boundaries in ascending order, has {np.asarray(boundaries)}")
    return boundaries
