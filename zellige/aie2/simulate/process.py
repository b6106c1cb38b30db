"""Events in time, and what lives by them: channels, cores and the host's sequence are *processes*, locks are what they wait for.

A process is a generator that yields how many cycles go by until it goes on, or ``None`` if somebody else will wake it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any

from zellige.aie2.device import LOCK_MOST
from zellige.errors import SimulationError

Routine = Generator["float | None", None, None]


class Events:
    """What happens next. What is due at the same time happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0

    def after(self, cycles: float, action: Callable[[], None]) -> None:
        self._asked += 1
        heappush(self._due, (self.now + cycles, self._asked, action))

    def run(self) -> None:
        """Until nothing is due any more."""
        due = self._due
        while due:
            self.now, _, action = heappop(due)
            action()


class Process:
    """Somebody who acts in time. ``waits`` is what it waits for, if it does: a lock, or what its class says."""

    def __init__(self, name: str, events: Events) -> None:
        self.name = name
        self.events = events
        self.waits: Any = None
        self._routine = self.routine()

    def routine(self) -> Routine:
        raise NotImplementedError

    def begin(self) -> None:
        self.events.after(0, self._go_on)

    def wake(self) -> None:
        self.waits = None
        self.events.after(0, self._go_on)

    def _go_on(self) -> None:
        cycles = next(self._routine, None)
        if cycles is not None:
            self.events.after(cycles, self._go_on)


class LockState:
    """A counter, and the processes that wait for it, first come, first served."""

    def __init__(self, name: str, value: int) -> None:
        self.name = name
        self.value = value
        self.waiting: deque[Process] = deque()

    def acquire(self, by: Process) -> Routine:
        if self.value:
            self.value -= 1
        else:
            self.waiting.append(by)
            by.waits = self
            yield None

    def release(self, by: Process) -> None:
        if self.waiting:
            self.waiting.popleft().wake()
        elif self.value == LOCK_MOST:
            raise SimulationError(f"{by.name} releases the lock {self.name}, which is at {LOCK_MOST} already")
        else:
            self.value += 1
