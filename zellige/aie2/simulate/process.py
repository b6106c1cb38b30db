"""Events in time, and what lives by them: channels, cores and the host's sequence are *processes*, locks are what they wait for.

A process is a generator that yields how many cycles go by until it goes on, or ``None`` if somebody else will wake it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any

from zellige.aie2.device import LOCK_MOST
from zellige.aie2.simulate.order import Order, Stamp
from zellige.errors import SimulationError

Routine = Generator["float | None", None, None]


class Events:
    """What happens next: what is due now, in the order in which it was asked for; then what is due later, in the order of time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due_now: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0

    def after(self, cycles: float, action: Callable[[], None]) -> None:
        if cycles:
            self._asked += 1
            heappush(self._later, (self.now + cycles, self._asked, action))
        else:
            self._due_now.append(action)

    def run(self) -> None:
        """Until nothing is due any more."""
        now, later = self._due_now, self._later
        while now or later:
            while now:
                now.popleft()()
            if later:
                self.now, _, action = heappop(later)
                action()


class Process:
    """Somebody who acts in time. ``waits`` is what it waits for, if it does: a lock, or what its class says.

    ``number`` is its own, for ``order``.
    """

    def __init__(self, name: str, events: Events, order: Order) -> None:
        self.name = name
        self.events = events
        self.order = order
        self.number = order.enter(name)
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
    """A counter, and the processes that wait for it, first come, first served.

    Who acquires it comes after the release that let it: the n-th acquisition after the n-th release, not counting those that the
    initial value allows.
    """

    def __init__(self, name: str, value: int, order: Order) -> None:
        self.name = name
        self.waiting: deque[Process] = deque()
        self._order = order
        self._released: deque[Stamp] = deque([None] * value)

    @property
    def value(self) -> int:
        return len(self._released)

    def acquire(self, by: Process) -> bool:
        """Take 1 if there is any; else wait in line, and have it when woken. Whether it could be had at once."""
        if self._released:
            self._order.join(by.number, self._released.popleft())
            return True
        self.waiting.append(by)
        by.waits = self
        return False

    def release(self, by: Process) -> None:
        stamp = self._order.stamp(by.number)
        if self.waiting:
            first = self.waiting.popleft()
            self._order.join(first.number, stamp)
            first.wake()
        elif self.value == LOCK_MOST:
            raise SimulationError(f"{by.name} releases the lock {self.name}, which is at {LOCK_MOST} already")
        else:
            self._released.append(stamp)
