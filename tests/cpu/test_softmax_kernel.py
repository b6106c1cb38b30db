import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel
from maps import Value, layout_of, numbers

from zellige.cpu.kernels.softmax import ACROSS, ALONG, SoftmaxKernel
from zellige.cpu.layout import Dense, Margins, planes
from zellige.cpu.tables.softmax import softmax_work


def run(source, target_layout, dimension, logarithm=False, isa=NATIVE[0], guarded=False):
    """The result as an array, after checking what lies around it."""
    lanes, work = softmax_work(source.layout, target_layout, dimension, isa.lanes)
    target = Value.blank(target_layout)
    slots = work.tables | {"source": source.slot, "target": target.slot}
    run_kernel(SoftmaxKernel(lanes, logarithm, guarded), slots, work.items, isa, ["source"] * guarded)
    target.check_row_margins()
    return target.view(), lanes


def reference(array, dimension, logarithm):
    with np.errstate(invalid="ignore"):
        shifted = array.astype(np.float64) - array.max(axis=dimension, keepdims=True)
        total = np.exp(shifted).sum(axis=dimension, keepdims=True)
        return shifted - np.log(total) if logarithm else np.exp(shifted) / total


def check(result, array, dimension, logarithm):
    """A softmax is right to some ulp in all its digits; its logarithm near 0 as far as the numbers' own spacing allows."""
    expected = reference(array, dimension, logarithm)
    rtol, atol = (5e-7, 1e-6) if logarithm else (5e-6, 1e-44)
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol)


@st.composite
def problems(draw):
    """A shape and one of its dimensions."""
    rank = draw(st.integers(1, 5))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(rank))
    if draw(st.booleans()):
        shape = (*shape[:-1], draw(st.integers(1, 70)))
    return shape, draw(st.integers(0, rank - 1))


@pytest.mark.parametrize("logarithm", [False, True])
@given(data=st.data())
def test_any_dimension_of_any_shape(logarithm, data):
    shape, dimension = data.draw(problems())
    isa, scale = data.draw(st.sampled_from(NATIVE)), data.draw(st.sampled_from([1.0, 20.0]))
    array = numbers(1, shape, special=data.draw(st.booleans())) * np.float32(scale)
    source = Value.of(layout_of(data.draw, shape), array)
    result, _ = run(source, layout_of(data.draw, shape), dimension, logarithm, isa)
    check(result, array, dimension, logarithm)


@pytest.mark.parametrize("logarithm", [False, True])
@given(data=st.data())
def test_guarded_sources_are_read_no_further_than_their_elements(logarithm, data):
    shape, dimension = data.draw(problems())
    isa = data.draw(st.sampled_from(NATIVE))
    array = numbers(2, shape)
    result, _ = run(Value.of(Dense(shape), array), layout_of(data.draw, shape), dimension, logarithm, isa, guarded=True)
    check(result, array, dimension, logarithm)


@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize("dimension", [0, 1])
def test_numbers_that_are_not_finite(dimension, logarithm):
    rows = np.array([[np.nan, 0, 1], [np.inf, 0, 1], [-np.inf, 0, 1], [-np.inf] * 3, [1e38, -1e38, 0]], np.float32)
    array = rows.T.copy() if dimension == 0 else rows
    result, _ = run(Value.of(Dense(array.shape), array), Dense(array.shape), dimension, logarithm)
    check(result, array, dimension, logarithm)
    lost = np.isnan(result).all(axis=dimension)
    assert lost.tolist() == [True, True, False, True, False]
    assert np.isnan(result).any(axis=dimension).tolist() == lost.tolist()


def test_lanes_run_along_what_follows_one_another():
    """Pixels fill the lanes of a softmax over channels, classes those of a classifier's."""
    cases = ((Dense((3, 1000)), 1, (ALONG, 3, 63)), (Dense((3, 1000, 1, 1)), 1, (ALONG, 3, 63)),
             (planes(1, 21, 10, 14, Margins(1, 1, 1, 1)), 1, (ACROSS, 10, 21)), (planes(2, 3, 8, 40), 3, (ALONG, 48, 3)),
             (planes(2, 3, 8, 40), 2, (ACROSS, 18, 8)))
    for layout, dimension, (lanes, items, steps) in cases:
        variant, work = softmax_work(layout, layout, dimension)
        assert (variant, work.items, work.tables["step_count"]) == (lanes, items, steps)


def test_assembly_for_every_instruction_set():
    for lanes in (ALONG, ACROSS):
        for logarithm in (False, True):
            for guarded in (False, True):
                check_assembly(SoftmaxKernel(lanes, logarithm, guarded))
