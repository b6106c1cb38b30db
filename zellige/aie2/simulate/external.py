"""External memory: all transfers of shims share its bandwidth evenly, each up to what its channel can do.

As all get the same share, one number tells how far everybody is: the words that a transfer which began at the beginning would have
moved by now.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from zellige.aie2.device import WORD, Device
from zellige.aie2.simulate.process import Events
from zellige.aie2.simulate.timeline import Lane


class External:
    """Words a cycle: of one channel at most, and of all together (``None``: as many as the channels)."""

    def __init__(self, device: Device, events: Events, lane: Lane) -> None:
        self.channel = min(1.0, device.shim_bytes / device.clock / WORD)
        self.together = None if device.ddr_bytes is None else device.ddr_bytes / device.clock / WORD
        self._lane = lane
        """Busy while memory, not the channels, is the limit."""
        self._events = events
        self._progress = 0.0
        self._since = 0.0
        self._ends: list[tuple[float, int, Callable[[], None]]] = []
        self._version = 0

    def move(self, words: int, done: Callable[[], None]) -> None:
        """Move so many words, and call ``done`` when they are."""
        self._catch_up()
        self._version += 1
        heappush(self._ends, (self._progress + words, self._version, done))
        self._plan()

    def _rate(self) -> float:
        return self.channel if self.together is None else min(self.channel, self.together / len(self._ends))

    def _catch_up(self) -> None:
        now = self._events.now
        if self._ends:
            rate = self._rate()
            self._progress += (now - self._since) * rate
            if rate < self.channel:
                self._lane.busy(self._since, now)
        self._since = now

    def _plan(self) -> None:
        """Ask for the event at which the next transfer ends, if none comes or goes before."""
        self._version += 1
        if self._ends:
            version = self._version
            self._events.after(max(0.0, self._ends[0][0] - self._progress) / self._rate(), lambda: self._end(version))

    def _end(self, version: int) -> None:
        if version != self._version:
            return
        self._catch_up()
        end, _, done = heappop(self._ends)
        self._progress = end
        self._plan()
        done()
