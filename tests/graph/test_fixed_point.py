"""Fixed-point arithmetic is exact where it says so, and as close as its bits allow elsewhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import QuantizationError
from zellige.graph.fixed_point import INT32, INT64, LEAST, MOST, MULTIPLIER_BITS, PRECISION, half_up, rescaling, saturate, to_steps

ACCUMULATORS = st.integers(-(2**31) + 1, 2**31 - 1)
REALS = st.floats(-1e6, 1e6)


def rounded(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


@given(REALS)
def test_halves_are_rounded_up(x):
    assert half_up(np.asarray(x)) == rounded(Fraction(x))
    assert half_up(np.asarray(math.floor(x) + 0.5)) == math.floor(x) + 1


@given(REALS, st.floats(1e-3, 1e3))
def test_real_numbers_in_steps(x, scale):
    assert to_steps(np.asarray(x), scale) == min(max(rounded(Fraction(x / scale)), LEAST), MOST)


def test_what_saturates_and_what_is_refused():
    assert to_steps(np.array([np.inf, -np.inf, 1e300]), 1e-3).tolist() == [127, -128, 127]
    assert saturate(np.array([-1000, -3, 5, 1000]), 0, 6).tolist() == [0, 0, 5, 6]
    with pytest.raises(QuantizationError, match="NaN"):
        to_steps(np.array([0.0, np.nan]), 1.0)


@given(st.lists(st.tuples(st.integers(-(2**21), 2**21), st.integers(-22, 4)), min_size=1, max_size=2), st.booleans())
def test_powers_of_two_are_exact(pairs, narrow):
    """With one rounding of the whole sum; one term needs a shift alone, if its steps are no coarser than the result's."""
    terms, exponents = zip(*pairs, strict=True)
    terms = [term >> max(0, e - min(exponents) - 7) for term, e in pairs]
    found = rescaling([2.0**e for e in exponents], [abs(term) for term in terms], INT32 if narrow else INT64)
    exact = sum(Fraction(term) * Fraction(2) ** e for term, e in zip(terms, exponents, strict=True))
    assert found([np.asarray(term) for term in terms]) == rounded(exact)
    assert int(found.shift) == max(0, -min(exponents))
    assert len(pairs) == 2 or exponents[0] > 0 or int(found.multipliers[0]) == 1


@given(st.lists(st.tuples(ACCUMULATORS, st.floats(2.0**-30, 16.0), st.sampled_from([1, -1])), min_size=1, max_size=2))
def test_free_ratios_are_as_close_as_their_bits(triples):
    ratios = [sign * ratio for _, ratio, sign in triples]
    terms = [term for term, _, _ in triples]
    try:
        found = rescaling(ratios, [2**31 - 1] * len(terms))
    except QuantizationError:  # half a unit of the last of 29 bits or more, times 256 of a small step's terms, is over 1 / 8
        assert min(map(abs, ratios)) < max(map(abs, ratios)) * 2.0**-18
        return
    assert all(abs(int(m)) <= 2**MULTIPLIER_BITS for m in found.multipliers)
    exact = sum(Fraction(term) * Fraction(ratio) for term, ratio in zip(terms, ratios, strict=True))
    # each multiplier is off by half a unit of its last bit, of which the largest one has at least MULTIPLIER_BITS − 1
    slack = Fraction(sum(map(abs, terms))) * Fraction(max(map(abs, ratios))) / 2**MULTIPLIER_BITS
    came = int(found([np.asarray(term) for term in terms]))
    assert abs(came - exact) <= Fraction(1, 2) + slack
    sums = [term * int(m) for term, m in zip(terms, found.multipliers, strict=True)]
    assert abs(sum(sums)) <= found.bounds([np.abs(np.float64(term)) for term in terms]) <= 2.0**63


@given(st.integers(1, 2**31 - 1), st.floats(2.0**-30, 1.0), st.data())
def test_sums_are_held_to_32_bits(bound, ratio, data):
    """A multiplier has as many bits as they leave, or the rescaling is refused: never is it far off."""
    try:
        found = rescaling([ratio], [bound], INT32)
    except QuantizationError:
        assert bound > 2**19, "eleven bits are left for the multiplier, and enough"
        return
    term = data.draw(st.integers(-min(bound, int(128 / ratio)), min(bound, int(128 / ratio))))
    total = term * int(found.multipliers[0]) + (1 << int(found.shift) >> 1)
    assert abs(total) <= 2**31 - 1 and int(found([np.asarray(term)])) == total >> int(found.shift)
    assert abs((total >> int(found.shift)) - Fraction(term) * Fraction(ratio)) <= Fraction(1, 2) + Fraction(PRECISION)


def test_a_term_beyond_what_32_bits_can_align():
    """Its last bits go, where they don't count; where they would, it is an error."""
    found = rescaling([2.0**-10, 2.0**-40], [2**25, 128], INT32)
    assert [int(m) for m in found.multipliers] == [1, 0]
    with pytest.raises(QuantizationError, match=r"of 32 bits can.t hold its terms, a step of which is 1, 0\.00195 steps of"):
        rescaling([1.0, 2.0**-9], [2**25, 128], INT32)


def test_ratios_by_channel_share_one_array():
    found = rescaling([np.array([0.5, 0.25, 3.0]), 1.0], [np.array([4, 4, 8]), 1])
    assert [m.tolist() for m in found.multipliers] == [[1, 1, 3], [2, 4, 1]]
    assert found.shift.tolist() == [1, 2, 0]
    assert found([np.array([1, 3, 5]), np.array([0, 0, -1])]).tolist() == [1, 1, 14]


def test_ratios_that_no_multiplier_can_say():
    with pytest.raises(QuantizationError, match="sums of 64 bits can't hold its terms"):
        rescaling([2.0**31], [128])
    assert int(rescaling([2.0**-80], [2**31 - 1])([np.asarray(2**31 - 1)])) == 0
