"""Histograms hold what was seen, however it came; scales that follow from them are as good as those of brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import QuantizationError
from zellige.graph.fixed_point import MOST, to_steps
from zellige.passes.histogram import BINS, CALIBRATIONS, CANDIDATES, OCTAVES, TINY, Histogram, power_of_two
from zellige.passes.scales import Scheme

SEEDS = st.integers(0, 2**16)


def numbers(seed: int, size: int = 4000) -> np.ndarray:
    """Normal or with heavy tails, all or only positive, some of them zero, of any magnitude."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(size) if random.random() < 0.5 else random.standard_t(3, size)
    x = np.maximum(x, 0) if random.random() < 0.5 else x
    return x * 10.0 ** random.uniform(-6, 6)


def seen(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


@given(SEEDS)
def test_order_and_portions_do_not_matter(seed):
    x = numbers(seed)
    random = np.random.default_rng(seed)
    cuts = np.sort(random.integers(0, x.size, 5))
    one, other = seen(x), seen(*np.split(random.permutation(x), cuts))
    assert (one.range, one.largest, one.zeros, one.total) == (other.range, other.largest, other.zeros, other.total)
    np.testing.assert_array_equal(one.counts, other.counts)
    assert one.total == x.size and one.largest == np.abs(x).max() and one.zeros == np.count_nonzero(x == 0)


@given(SEEDS)
def test_bins_hold_what_falls_into_them(seed):
    x = np.abs(numbers(seed, 300))
    histogram = seen(x)
    width = histogram.range / BINS
    for place in np.flatnonzero(histogram.counts):
        inside = (x >= place * width) & (x < (place + 1) * width) & (x > 0)
        assert histogram.counts[place] == np.count_nonzero(inside)


@given(SEEDS, st.floats(50, 100))
def test_percentiles(seed, share):
    """At least that share does not exceed it, and with a bin less it would not be so."""
    x = np.abs(numbers(seed))
    histogram = seen(x)
    found = histogram.percentile(share)
    assert np.mean(x <= found) >= share / 100 - 1e-12
    assert np.mean(x < found - histogram.range / BINS) < share / 100 or found <= histogram.range / BINS
    assert histogram.percentile(100.0) == histogram.largest


def brute_force_error(x: np.ndarray, scale: float) -> float:
    return float(np.sum((np.abs(x) - to_steps(np.abs(x), scale) * scale) ** 2))


@given(SEEDS, st.booleans())
def test_least_squared_error_as_brute_force_finds_it(seed, powers):
    """The scale found is as good on the numbers themselves as the best of all candidates, within what bins blur: 2 %."""
    x = numbers(seed)
    histogram = seen(x)
    if powers:
        candidates = power_of_two(histogram.largest / MOST) / 2.0 ** np.arange(OCTAVES)
    else:
        candidates = histogram.largest / MOST * np.arange(3, CANDIDATES + 1) / CANDIDATES
    best = min(brute_force_error(x, scale) for scale in candidates)
    found = CALIBRATIONS["mse"](histogram, 0.0, powers)
    assert any(np.isclose(found, candidates, rtol=1e-12))
    assert brute_force_error(x, found) <= 1.02 * best
    assert brute_force_error(x, found) <= 1.02 * brute_force_error(x, CALIBRATIONS["minmax"](histogram, 0.0, powers))


@given(SEEDS, st.booleans())
def test_nothing_seen_saturates_with_minmax(seed, powers):
    x = numbers(seed)
    scale = Scheme("minmax", powers_of_two=powers).scale(seen(x))
    most = int(np.abs(to_steps(x, scale)).max())
    assert np.all(np.abs(x - to_steps(x, scale) * scale) <= scale * (0.5 + 1e-9))
    assert 63 <= most <= MOST if powers else most == MOST


def test_heavy_tails_are_cut():
    """What calibration is for: one number far away."""
    x = np.concatenate([np.random.default_rng(0).standard_normal(100_000), [20.0]])
    scales = {how: Scheme(how, 99.9).scale(seen(x)) for how in CALIBRATIONS}
    assert scales["minmax"] == 20 / MOST
    assert scales["percentile"] < 4 / MOST and scales["mse"] < 16 / MOST


def test_zeros_and_what_counts_as_such():
    histogram = seen(np.zeros(5), np.array([TINY / 2, -5e-324]))
    assert (histogram.largest, histogram.total, histogram.zeros) == (0.0, 7, 7)
    assert Scheme().scale(histogram) == 1.0
    assert Scheme("minmax").scale(seen(np.array([TINY]))) == TINY / MOST
    assert Scheme("mse").scale(seen(np.array([TINY]))) > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_must_be_finite(bad):
    with pytest.raises(QuantizationError, match="finite"):
        Histogram().add(np.array([1.0, bad]))


@given(st.floats(1e-30, 1e30))
def test_powers_of_two_from_above(x):
    found = power_of_two(x)
    assert np.frexp(found)[0] == 0.5 and found / 2 < x <= found
