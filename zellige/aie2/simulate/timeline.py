"""The timeline: when each core and each channel was busy, and with which task."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np


class Lane:
    """Spans of one core or channel, in order; what lies between was waiting. Times are cycles."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: list[str] = [""]
        """Names that spans refer to; the first is that of none."""
        self._starts, self._ends, self._tasks = array("d"), array("d"), array("q")

    def begin(self, task: str) -> None:
        """What is done from now on belongs to that task."""
        if self.tasks[-1] != task:
            self.tasks.append(task)

    def busy(self, start: float, end: float) -> None:
        self._starts.append(start)
        self._ends.append(end)
        self._tasks.append(len(self.tasks) - 1)

    @property
    def starts(self) -> np.ndarray:
        return np.frombuffer(self._starts, np.float64)

    @property
    def ends(self) -> np.ndarray:
        return np.frombuffer(self._ends, np.float64)

    @property
    def numbers(self) -> np.ndarray:
        """Of spans: which of ``tasks`` they belong to."""
        return np.frombuffer(self._tasks, np.int64)

    def busy_until(self, times: np.ndarray) -> np.ndarray:
        """Cycles of work before each of some times."""
        starts, ends = self.starts, self.ends
        done = np.concatenate([[0.0], np.cumsum(ends - starts)])
        begun = np.searchsorted(starts, times, side="right")
        last = np.where(begun > 0, begun - 1, 0)
        over = np.maximum(ends[last] - times, 0.0) if len(ends) else 0.0
        return np.asarray(np.where(begun > 0, done[begun] - over, 0.0))

    def last_ends(self) -> dict[str, float]:
        """When every task was done."""
        return {self.tasks[number]: end for number, end in zip(self._tasks, self._ends, strict=True)}

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[str, float, float]]:
        """Task, start and end of every span."""
        return ((self.tasks[task], start, end) for task, start, end in zip(self._tasks, self._starts, self._ends, strict=True))
