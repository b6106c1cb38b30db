import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel
from maps import Value, layout_of, numbers

from zellige.cpu.kernels.epilogue import activation
from zellige.cpu.kernels.reduce import KEPT, REDUCED, ReduceKernel
from zellige.cpu.layout import Dense, Margins, planes
from zellige.cpu.tables.reduce import reduce_work


def run(source, target_layout, dimensions, mean=False, epilogue=(), isa=NATIVE[0], guarded=False):
    """The result as an array, after checking what lies around it."""
    lanes, work = reduce_work(source.layout, target_layout, dimensions, mean, isa.lanes)
    target = Value.blank(target_layout)
    slots = work.tables | {"source": source.slot, "target": target.slot}
    external = ["divisor"] + ["source"] * guarded
    run_kernel(ReduceKernel(lanes, guarded, epilogue), slots, work.items, isa, external)
    target.check_row_margins()
    return target.view(), lanes


@st.composite
def reductions(draw):
    """A shape, and which of its dimensions go."""
    rank = draw(st.integers(1, 5))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(rank))
    if draw(st.booleans()):
        shape = (*shape[:-1], draw(st.integers(1, 70)))
    dimensions = draw(st.sets(st.integers(0, rank - 1), min_size=1))
    return shape, tuple(sorted(dimensions))


@pytest.mark.parametrize("mean", [False, True])
@given(data=st.data())
def test_any_dimensions_of_any_shape(mean, data):
    shape, dimensions = data.draw(reductions())
    keep, special, isa = data.draw(st.booleans()), data.draw(st.booleans()), data.draw(st.sampled_from(NATIVE))
    array = numbers(1, shape, special)
    oracle = np.mean if mean else np.sum
    with np.errstate(invalid="ignore"):
        expected = oracle(array.astype(np.float64), axis=dimensions, keepdims=keep)
    source = Value.of(layout_of(data.draw, shape), array)
    result, _ = run(source, layout_of(data.draw, expected.shape), dimensions, mean, isa=isa)
    largest = np.nansum(np.abs(array[np.isfinite(array)]))
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=4e-7 * max(8.0, largest))


@given(data=st.data())
def test_global_average_pooling(data):
    shape = tuple(data.draw(st.integers(1, most)) for most in (3, 40, 17, 40))
    isa, keep = data.draw(st.sampled_from(NATIVE)), data.draw(st.booleans())
    array = numbers(2, shape)
    expected = array.mean(axis=(2, 3), dtype=np.float64, keepdims=keep)
    source = Value.of(layout_of(data.draw, shape), array)
    source.buffer[source.buffer == 0] = np.nan  # margins may hold anything
    result, lanes = run(source, Dense(expected.shape), (2, 3), True, (activation("relu"),), isa)
    np.testing.assert_allclose(result, np.maximum(expected, 0), rtol=0, atol=1e-6)
    assert lanes == REDUCED or shape[2] * shape[3] == 1


def test_vectors_that_begin_in_a_margin():
    maps = planes(2, 3, 5, 14, row=17)
    array = numbers(5, maps.shape)
    result, lanes = run(Value.of(maps, array), planes(2, 1, 5, 14, row=17), (1,))
    assert lanes == KEPT
    np.testing.assert_allclose(result, array.sum(axis=1, dtype=np.float64, keepdims=True), rtol=0, atol=2e-6)


@given(data=st.data())
def test_guarded_sources_are_read_no_further_than_their_elements(data):
    shape, dimensions = data.draw(reductions())
    array = numbers(3, shape)
    isa = data.draw(st.sampled_from(NATIVE))
    expected = array.astype(np.float64).sum(axis=dimensions)
    result, _ = run(Value.of(Dense(shape), array), layout_of(data.draw, expected.shape), dimensions, isa=isa, guarded=True)
    np.testing.assert_allclose(result, expected, rtol=0, atol=4e-7 * max(8.0, np.abs(array).sum()))


def test_rounding_of_long_sums_stays_small():
    """A running sum of 2²⁰ numbers near 1 in 16 lanes would lose three digits."""
    array = (1 + 0.1 * numbers(4, (1, 1, 1024, 1024))).astype(np.float32)
    result, _ = run(Value.of(planes(1, 1, 1024, 1024), array), Dense((1, 1)), (2, 3), True)
    np.testing.assert_allclose(result, array.mean(axis=(2, 3), dtype=np.float64), rtol=2e-6)


def test_lanes_run_over_the_last_dimension():
    """Whole maps are walked over their margins where that is fewer vectors; channels keep pixels in lanes."""
    maps = planes(2, 40, 7, 7, Margins(1, 1, 1, 1))
    cases = (((2, 3), Dense((2, 40)), (REDUCED, 5, 4)), ((3,), Dense((2, 40, 7)), (REDUCED, 35, 1)),
             ((1,), planes(2, 1, 7, 7, row=8), (KEPT, 2, 40)))
    for dimensions, target, (lanes, items, steps) in cases:
        variant, work = reduce_work(maps, target, dimensions)
        assert (variant, work.items, work.tables["step_count"]) == (lanes, items, steps)


def test_assembly_for_every_instruction_set():
    for lanes in (REDUCED, KEPT):
        for guarded in (False, True):
            check_assembly(ReduceKernel(lanes, guarded, (activation("relu"),)))
