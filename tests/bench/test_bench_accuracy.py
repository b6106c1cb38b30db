"""The ruler by which every engine is judged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stand_in import tiny_network

from zellige.bench.accuracy import Reference, largest_relative_error, reference_answer


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.integers(0, 7), st.floats(-1, 1))
def test_one_wrong_number_shows(values: list[float], index: int, offset: float) -> None:
    true = np.array([*values, 1.0])
    ours = true.copy()
    ours[index % len(true)] += offset
    expected = np.abs(ours - true).max() / np.abs(true).max()
    assert largest_relative_error([ours], [true]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "ours", [[], [np.zeros(3)], [np.array([np.nan, 1.0])], [np.array([np.inf, 1.0])], [np.ones(2), np.ones(2)]]
)
def test_what_cant_be_compared_is_infinitely_wrong(ours: list[np.ndarray]) -> None:
    assert largest_relative_error(ours, [np.ones(2)]) == float("inf")


def test_zeros_are_compared_absolutely() -> None:
    assert largest_relative_error([np.zeros(2)], [np.zeros(2)]) == 0
    assert largest_relative_error([np.full(2, 1e-9)], [np.zeros(2)]) == float("inf")


def test_the_reference_is_float64_and_leaves_the_model_alone() -> None:
    model = tiny_network()
    answer = reference_answer(model, (torch.randn(2, 3, 16, 16),))
    assert [array.dtype for array in answer] == [np.float64]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_what_is_allowed_follows_what_torch_itself_loses() -> None:
    assert Reference((), torch_error=1e-7).allowed(1e-4) == 1e-4
    assert Reference((), torch_error=5e-5).allowed(1e-4) == pytest.approx(5e-4)
    found = Reference.of(tiny_network(), (torch.randn(1, 3, 16, 16),))
    assert 0 < found.torch_error < 1e-5
