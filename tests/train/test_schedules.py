"""The arithmetic of schedules, held to what the papers say."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from zellige.train.schedule import RATES, cubic_share, cut_at, learning_rate, regrown_share, removals, stages_up_to


@given(st.integers(1, 5000), st.floats(0.0, 1.0))
def test_removals_rise_to_the_goal(goal: int, rate: float) -> None:
    gone = removals(goal, rate)
    assert gone[-1] == goal
    for before, after in zip([0, *gone], gone, strict=False):
        assert after - before == max(1, math.floor(rate * (goal - before)))


def test_five_percent_of_the_rest() -> None:
    assert removals(1000, 0.05)[:3] == [50, 97, 142]
    assert removals(10, 0.05) == list(range(1, 11))


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_cubic_rises(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 0 <= cubic_share(low) <= cubic_share(high) <= 1
    assert abs(cubic_share(low) - (1 - (1 - low) ** 3)) <= 1e-6


@given(st.integers(1, 60), st.integers(1, 200))
def test_cuts_are_spread_over_the_steps(cuts: int, last: int) -> None:
    made = [cut_at(step, cuts, last) for step in range(last + 2)]
    assert made[0] == (1 if last else cuts) and made[last] == made[last + 1] == cuts
    steps = [after - before for before, after in itertools.pairwise(made)]
    assert min(steps) >= 0 and max(steps) <= max(1, math.ceil((cuts - 1) / last) + 1)


def test_stages() -> None:
    assert stages_up_to(0.9)[-3:] == [0.8, 0.85, 0.9]
    assert stages_up_to(0.1) == [0.1]


@given(st.integers(1, 1000), st.sampled_from(sorted(RATES)), st.floats(0, 0.9))
def test_learning_rates(steps: int, kind: str, warmup: float) -> None:
    rates = [learning_rate(step, steps, 2.0, kind, warmup) for step in range(steps)]
    assert all(0 < rate <= 2.0 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)


def test_rigl_exchanges_less_and_less() -> None:
    shares = [regrown_share(step, 100, 0.3) for step in range(0, 140, 10)]
    assert shares == sorted(shares, reverse=True) and shares[0] == 0.3 and shares[-1] < 1e-12
