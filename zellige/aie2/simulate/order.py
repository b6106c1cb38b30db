"""What must come after what: vector clocks (Fidge; Mattern) of everybody who acts, and races found by them (as FastTrack does).

Every process counts its own time, in stamps that it gave to others, and knows how far it has seen of everybody else's. It sees
what they did by their releases of locks that it acquires, by words of streams that reach it, by tasks that the sequence starts or
awaits. Nothing else puts two accesses in an order, whatever the clock of the simulation says.
"""

from __future__ import annotations

from bisect import bisect

import numpy as np

from zellige.aie2.simulate.memory import Memory, Words
from zellige.errors import RaceError, SimulationError

Stamp = np.ndarray | None
"""A process's knowledge when it gave it away; ``None`` is that of somebody who has seen nothing."""

NOBODY = 0
"""The writer of words that nothing has written."""


class Order:
    """The clocks of all processes, and what they did to memories. A process acts by its number."""

    def __init__(self, most: int) -> None:
        self.seen = np.zeros((most, most), np.int32)
        """[process][of whom]"""
        self._names = ["nobody"]
        self._tasks: list[tuple[list[int], list[str]]] = [([], [])]
        self._histories: dict[int, History] = {}

    def enter(self, name: str) -> int:
        """The number of a new process."""
        self._names.append(name)
        self._tasks.append(([], []))
        self.seen[len(self._names) - 1, len(self._names) - 1] = 1
        return len(self._names) - 1

    def begin(self, process: int, task: str) -> None:
        """What a process does from now on belongs to that task: for messages."""
        times, tasks = self._tasks[process]
        times.append(self.now(process))
        tasks.append(task)

    def watch(self, memory: Memory, written: bool) -> None:
        """Look for races in a memory. ``written``: it holds something from the beginning."""
        self._histories[id(memory)] = History(memory, 1 if written else NOBODY)

    def now(self, process: int) -> int:
        return int(self.seen[process, process])

    def knows(self, process: int, other: int) -> int:
        """Until when a process has seen what another did."""
        return int(self.seen[process, other])

    def stamp(self, process: int) -> Stamp:
        """What a process has done and seen: for others to join. What it does afterwards isn't in it."""
        found = self.seen[process].copy()
        self.seen[process, process] += 1
        return found

    def join(self, process: int, stamp: Stamp) -> None:
        """The process now comes after what is in the stamp."""
        if stamp is not None:
            np.maximum(self.seen[process], stamp, out=self.seen[process])

    def read(self, process: int, memory: Memory, words: Words) -> None:
        """Raises ``RaceError`` if somebody writes the words meanwhile, ``SimulationError`` if nobody ever has."""
        history = self._histories.get(id(memory))
        if history is None:
            return
        writers = words.take(history.writers)
        if not writers.all():
            place = history.memory.place(words.at(int(np.argmin(writers))))
            raise SimulationError(f"{self.who(process)} reads {place}, which nothing has written")
        self._check(process, "reads", history, words, writers)
        words.put(history.reads_of(process), self.now(process))

    def write(self, process: int, memory: Memory, words: Words) -> None:
        """Raises ``RaceError`` if somebody reads or writes the words meanwhile."""
        history = self._histories.get(id(memory))
        if history is None:
            return
        self._check(process, "writes", history, words, words.take(history.writers))
        for reader, times in history.reads.items():
            late = words.take(times) > self.seen[process, reader]
            if late.any():
                self._refuse(process, "writes", history, words, int(np.argmax(late)), reader, "reads", times)
        words.put(history.writers, process)
        words.put(history.written, self.now(process))

    def who(self, process: int, time: int | None = None) -> str:
        """A process, and the task that it was at."""
        times, tasks = self._tasks[process]
        at = bisect(times, self.now(process) if time is None else time)
        return self._names[process] + (f" (task {tasks[at - 1]})" if at else "")

    def _check(self, process: int, does: str, history: History, words: Words, writers: np.ndarray) -> None:
        late = words.take(history.written) > self.seen[process][writers]
        if late.any():
            at = int(np.argmax(late))
            self._refuse(process, does, history, words, at, int(writers[at]), "writes", history.written)

    def _refuse(self, process: int, does: str, history: History, words: Words, at: int, other: int, did: str,
                times: np.ndarray) -> None:  # fmt: skip
        word = words.at(at)
        raise RaceError(f"race: {self.who(process)} {does} {history.memory.place(word)}, which {self.who(other, int(times[word]))} "
                        f"{did} meanwhile: no lock, stream or task puts the two in an order")


class History:
    """Of every word of a memory: who wrote it last and when, and when everybody last read it."""

    def __init__(self, memory: Memory, writer: int) -> None:
        self.memory = memory
        self.writers = np.full(memory.words.size, writer, np.int16)
        self.written = np.zeros(memory.words.size, np.int32)
        self.reads: dict[int, np.ndarray] = {}

    def reads_of(self, process: int) -> np.ndarray:
        if process not in self.reads:
            self.reads[process] = np.zeros(self.writers.size, np.int32)
        return self.reads[process]


class Unwatched(Order):
    """No order at all: for programs that are known to have no races, when only their time is asked for."""

    def __init__(self) -> None:
        super().__init__(0)

    def enter(self, name: str) -> int:
        return 0

    def begin(self, process: int, task: str) -> None:
        pass

    def watch(self, memory: Memory, written: bool) -> None:
        pass

    def now(self, process: int) -> int:
        return 0

    def knows(self, process: int, other: int) -> int:
        return 0

    def stamp(self, process: int) -> Stamp:
        return None

    def join(self, process: int, stamp: Stamp) -> None:
        pass
