"""Device time of calls that are repeated: captured in a graph, replayed in turn, events around every replay.

A graph holds one call for each of several inputs, so that no call finds its own input in the L2 cache if the inputs
together are larger, and no gap between launches counts. Contestants take turns, so that clocks that drift drift for all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import TypeVar

import torch

from zellige.errors import in_one_line

Name = TypeVar("Name", bound=Hashable)
Check = Callable[[torch.Tensor], None]
"""What raises where a result is wrong."""

CAPTURE_MODE = "thread_local"
"""Of graphs: what other threads do on the GPU meanwhile, allocations too, does not end a capture."""

MOST_SAID = 200
"""Letters of what a contestant that failed had to say."""


def cudnn_search() -> AbstractContextManager[None]:
    """Inside, cuDNN times its algorithms for every convolution that is new to it, and keeps the fastest."""
    found: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=True)
    return found


class Repeated:
    """Calls captured in one graph. What they read and what they return stays alive as long as this does: a graph knows addresses
    alone, and would go on reading memory that has been given back."""

    def __init__(self, calls: Sequence[Callable[[], torch.Tensor]]):
        self.calls = tuple(calls)
        self.count = len(calls)
        self.graph = torch.cuda.CUDAGraph()
        with cudnn_search():
            calls[0]()  # compiles, plans and loads what a capture may not
            torch.cuda.synchronize()
            with torch.cuda.graph(self.graph, capture_error_mode=CAPTURE_MODE):
                self.results = [call() for call in calls]

    def replay(self) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        self.graph.replay()
        stop.record()
        return start, stop


def race(contestants: Mapping[Name, Repeated], rounds: int, warmup: int = 1) -> dict[Name, list[float]]:
    """Seconds that one call of each contestant took on the device, round by round."""
    laps: dict[Name, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in contestants}
    for _ in range(warmup + rounds):
        for name, contestant in contestants.items():
            laps[name].append(contestant.replay())
    torch.cuda.synchronize()
    return {name: [start.elapsed_time(stop) * 1e-3 / contestants[name].count for start, stop in laps[name][warmup:]]
            for name in contestants}


def prove(contestant: Repeated, check: Check) -> None:
    """Have ``check`` look at the result of a contestant's first call. Places that it doesn't write are no numbers then, whatever
    others left there."""
    result = contestant.results[0].detach()
    result.fill_(torch.nan)
    contestant.replay()
    check(result)


def heat_of(prepare: Callable[[], Repeated], rounds: int, check: Check | None) -> float:
    """Median seconds of one contestant, which lives no longer than this, nor if it fails."""
    contestant = prepare()
    if check is not None:
        prove(contestant, check)
    return median(race({"": contestant}, rounds)[""])


def fastest(contestants: Mapping[Name, Callable[[], Repeated]], heat: int = 3, final: int = 9, finalists: int = 3,
            check: Check | None = None) -> tuple[dict[Name, float], dict[Name, str]]:
    """Median seconds of the contestants that came through the heat, fastest first, and why others failed.

    Each is captured by itself and let go after its heat: together they might not fit the memory. ``check``: what raises where the
    result of a first call is wrong; who made that does not run on.
    """
    heats: dict[Name, float] = {}
    failed: dict[Name, str] = {}
    for name, prepare in contestants.items():
        try:
            heats[name] = heat_of(prepare, heat, check)
        except Exception as error:
            failed[name] = in_one_line(error)[:MOST_SAID]
    ready: dict[Name, Repeated] = {}
    for name in sorted(heats, key=heats.__getitem__)[:finalists]:
        try:
            ready[name] = contestants[name]()
        except Exception as error:  # alone it fitted the memory
            failed[name] = in_one_line(error)[:MOST_SAID]
    times = {name: median(laps) for name, laps in race(ready, final).items()}
    return dict(sorted(times.items(), key=lambda pair: pair[1])), failed
