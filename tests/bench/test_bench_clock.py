"""The clock, held to a clock of our own: who runs when, what is timed, what is computed from it."""

import gc
import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.bench import clock
from zellige.bench.clock import Timing, Turn, order_of_round, ratio, run_rounds


class Machine:
    """Time that passes only when an engine works, or sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.log = 0, []
        monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(clock.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.log.append(("sleep", seconds))
        self.now += round(seconds * 1e9)

    def engine(self, name: str, milliseconds: list[float]):
        times = itertools.cycle(milliseconds)

        def call() -> None:
            self.log.append((name, gc.isenabled()))
            self.now += round(next(times) * 1e6)

        return call


def test_a_turn_is_a_gap_a_discarded_call_and_the_median_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    timings = run_rounds({"ours": machine.engine("ours", [99.0, 7.0, 50.0, 8.0])}, rounds=2)
    assert machine.log == [("sleep", 0.030), *[("ours", False)] * 4] * 2
    assert gc.isenabled()
    assert timings["ours"].rounds == (8.0, 8.0)
    assert timings["ours"].calls == (7.0, 50.0, 8.0) * 2
    assert (timings["ours"].median_ms, timings["ours"].min_ms, timings["ours"].p99_ms) == (8.0, 7.0, 50.0)


def test_short_calls_are_repeated_to_fill_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    timings = run_rounds({"a": machine.engine("a", [1.0]), "b": machine.engine("b", [0.01])}, rounds=1)
    assert len(timings["a"].calls) == 5
    assert len(timings["b"].calls) == Turn().most_calls


def test_rounds_interleave_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, done = Machine(monkeypatch), []
    calls = {name: machine.engine(name, [10.0]) for name in "abc"}
    run_rounds(calls, rounds=4, turn=Turn(idle_seconds=0), after_round=done.append)
    ran = [name for name, _ in machine.log if name != "sleep"]
    assert ran == [name for name in "abc" + "bac" + "cab" + "acb" for _ in range(4)]
    assert done == [1, 2, 3, 4]


def test_the_garbage_collector_comes_back_after_an_error() -> None:
    def fail() -> None:
        raise RuntimeError("engine")

    with pytest.raises(RuntimeError, match="engine"):
        run_rounds({"ours": fail}, rounds=1, turn=Turn(idle_seconds=0))
    assert gc.isenabled()


@given(st.integers(1, 7), st.integers(0, 30))
def test_everyone_runs_once_a_round_and_starts_in_turn(count: int, index: int) -> None:
    names = [str(number) for number in range(count)]
    order = order_of_round(names, index)
    assert sorted(order) == names
    assert order[0] == names[index % count]


times = st.floats(0.01, 1000.0)


@given(st.integers(2, 20).flatmap(lambda rounds: st.lists(st.tuples(times, times, times), min_size=rounds)))
def test_a_speedup_is_the_median_of_each_rounds_own_ratio(rounds: list[tuple[float, float, float]]) -> None:
    first, second, ours = (Timing(tuple(column), ()) for column in zip(*rounds, strict=True))
    found = ratio([first, second], ours)
    expected = [min(a, b) / own for a, b, own in rounds]
    assert found.median == pytest.approx(statistics.median(expected), rel=1e-12)
    assert min(expected) <= found.quartiles[0] <= found.median * (1 + 1e-12)
    assert found.median <= found.quartiles[1] * (1 + 1e-12) <= max(expected) * (1 + 1e-9)


def test_one_round_has_a_ratio_too() -> None:
    assert ratio([Timing((6.0,), ())], Timing((2.0,), ())).quartiles == (3.0, 3.0)
