"""The timeline: when each core and each channel was busy, and with which task."""

from __future__ import annotations

from array import array
from collections.abc import Iterator


class Lane:
    """Spans of one core or channel, in order; what lies between was waiting. Times are cycles."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: list[str] = []
        """Names that spans refer to."""
        self._starts, self._ends, self._tasks = array("d"), array("d"), array("l")

    def begin(self, task: str) -> None:
        """What is done from now on belongs to that task."""
        if not self.tasks or self.tasks[-1] != task:
            self.tasks.append(task)

    def busy(self, start: float, end: float) -> None:
        self._starts.append(start)
        self._ends.append(end)
        self._tasks.append(len(self.tasks) - 1)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[str, float, float]]:
        """Task, start and end of every span."""
        return ((self.tasks[task], start, end) for task, start, end in zip(self._tasks, self._starts, self._ends, strict=True))
