"""A benchmark within a budget of time: sections that time nothing side by side, then those that do, one after another.

Each is guarded, so that none takes the rest along. Everything that touches the GPU is a job in a process (``gpu_workers.py``).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Thread
from typing import Any

from gpu_record import Record, say
from gpu_workers import Heard, Work, Workers, unheard


@dataclass(frozen=True)
class Run:
    """What a section is given: where facts go, who does its jobs, and until when. ``rank``: the lower it is, the sooner its jobs
    are done where other sections want theirs done too."""

    record: Record
    workers: Workers
    end: float
    rank: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        return self.record.facts

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def write(self) -> None:
        self.record.write()

    def each(self, work: Work, jobs: Sequence[Any], patience: float, heard: Heard = unheard) -> Iterator[tuple[Any, Any, str]]:
        """Job, result and what went wrong, in order; how many were left undone is said."""
        done = 0
        for answer in self.workers.each(work, jobs, patience, self.end, self.rank, heard):
            done += 1
            yield answer
        if done < len(jobs):
            say(f"   {len(jobs) - done} of {len(jobs)} jobs left undone: out of time")

    def one(self, work: Work, job: Any, patience: float) -> Any:
        """The result of a single job. ``RuntimeError`` where there is none."""
        for _, found, reason in self.each(work, [job], patience):
            if not reason:
                return found
            raise RuntimeError(f"{job}: {reason}")
        raise RuntimeError(f"{job}: out of time")


Section = Callable[[Run], object]

WORTH_STARTING = 1 / 3
"""Of the seconds that a section should have."""


def ends(seconds: Sequence[float], begin: float, budget: float) -> list[float]:
    """When parts must end that should take so many seconds, one after another.

    What one does not use is the next one's, what it should have nobody takes from it. A budget of more than their sum is shared out
    in proportion; where it is less, the last ones go short.
    """
    stretch = max(1.0, budget / sum(seconds)) if seconds else 1.0
    return [begin + min(budget, stretch * passed) for passed in accumulate(seconds)]


def side_by_side(record: Record, workers: Workers, sections: Mapping[str, Section], end: float) -> None:
    """All at once, each in a thread; the first have their jobs done first."""
    threads = [Thread(target=guarded, args=(Run(record, workers, end, rank), name, section), name=name)
               for rank, (name, section) in enumerate(sections.items())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def one_by_one(record: Record, workers: Workers, sections: Mapping[str, tuple[Section, float]], last: Sequence[float]) -> None:
    """One after another, each until its end, unless most of what it should have is gone."""
    for end, (name, (section, seconds)) in zip(last, sections.items(), strict=True):
        run = Run(record, workers, end)
        if run.left < WORTH_STARTING * seconds:
            say(f"== {name}: left out, {max(0.0, run.left):.0f} s are left for it, and it should have {seconds:.0f}")
        else:
            say(f"== {name} ({run.left:.0f} s)")
            guarded(run, name, section)


def guarded(run: Run, name: str, section: Section) -> None:
    """A section, what it found, and how long it took."""
    begin = time.monotonic()
    try:
        found = section(run)
    except Exception:
        found = {"error": traceback.format_exc()}
        say(found["error"])
    run.record.put(name, found)
    say(f"-- {name}: {time.monotonic() - begin:.1f} s")
