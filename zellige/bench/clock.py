"""The clock: engines take turns, round after round, so that a drifting machine treats them alike.

A turn is an idle gap (the threads of the engine before may still be spinning, and would steal cores), one discarded
call (caches and clocks settle), and at least three timed calls, of which the median counts. Every round starts with
another engine, and every second round goes the other way round. Speedups are ratios within one round; their median
over the rounds is reported, with quartiles.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[], object]
LEAST_ROUNDS = 15


@dataclass(frozen=True)
class Turn:
    """How one engine is timed within a round: gap in seconds, and calls."""

    idle_seconds: float = 0.030
    discarded_calls: int = 1
    least_calls: int = 3
    least_seconds: float = 0.005
    most_calls: int = 50


@dataclass(frozen=True)
class Timing:
    """What the clock saw of one engine: the median of each round, and every timed call, in milliseconds."""

    rounds: tuple[float, ...]
    calls: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.rounds)

    @property
    def min_ms(self) -> float:
        return min(self.calls)

    @property
    def p99_ms(self) -> float:
        """The time that 99 % of the calls did not exceed (the nearest rank)."""
        ranked = sorted(self.calls)
        return ranked[max(0, -(-len(ranked) * 99 // 100) - 1)]


@dataclass(frozen=True)
class Ratio:
    """A speedup: the median of the ratios within each round, and their quartiles."""

    median: float
    quartiles: tuple[float, float]


def order_of_round(names: Sequence[str], index: int) -> list[str]:
    """Who is called when: every round starts with another engine, every second one goes the other way round.

    >>> [order_of_round("abc", index) for index in range(3)]
    [['a', 'b', 'c'], ['b', 'a', 'c'], ['c', 'a', 'b']]
    """
    start = index % len(names)
    first, *others = [*names[start:], *names[:start]]
    return [first, *(reversed(others) if index % 2 else others)]


def run_rounds(
    calls: Mapping[str, Call],
    rounds: int = LEAST_ROUNDS,
    turn: Turn | None = None,
    after_round: Callable[[int], None] = lambda done: None,
    lap: Callable[[Call], float] | None = None,
) -> dict[str, Timing]:
    """Time every call in turn for that many rounds; ``after_round`` hears how many are done.

    ``lap`` makes a call and gives its milliseconds; by default, by the host's clock.
    """
    turn = turn or Turn()
    per_round: dict[str, list[float]] = {name: [] for name in calls}
    per_call: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for index in range(rounds):
            for name in order_of_round(list(calls), index):
                milliseconds = take_turn(calls[name], turn, lap or host_lap)
                per_round[name].append(statistics.median(milliseconds))
                per_call[name].extend(milliseconds)
            after_round(index + 1)
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(per_round[name]), tuple(per_call[name])) for name in calls}


def host_lap(call: Call) -> float:
    """Milliseconds of one call, by the host's clock."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) * 1e-6


def take_turn(call: Call, turn: Turn, lap: Callable[[Call], float] = host_lap) -> list[float]:
    """One engine's turn; returns the milliseconds of each timed call."""
    time.sleep(turn.idle_seconds)
    for _ in range(turn.discarded_calls):
        call()
    clock = time.perf_counter_ns
    milliseconds: list[float] = []
    begin = clock()
    while len(milliseconds) < turn.least_calls or (
        len(milliseconds) < turn.most_calls and clock() - begin < turn.least_seconds * 1e9
    ):
        milliseconds.append(lap(call))
    return milliseconds


def ratio(others: Sequence[Timing], ours: Timing) -> Ratio:
    """How many times faster ours is than the fastest of the others, round by round.

    >>> ratio([Timing((4.0, 6.0, 6.0), ()), Timing((5.0, 4.0, 8.0), ())], Timing((2.0, 2.0, 2.0), ()))
    Ratio(median=2.0, quartiles=(2.0, 2.5))
    """
    fastest = [min(times) for times in zip(*(other.rounds for other in others), strict=True)]
    ratios = [other / own for other, own in zip(fastest, ours.rounds, strict=True)]
    if len(ratios) == 1:
        return Ratio(ratios[0], (ratios[0], ratios[0]))
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, (lower, upper))
