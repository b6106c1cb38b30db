"""Columns in fours: they hold what they should, and few are enough; against all ways to arrange them where there are few."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zellige.patterns.fours import EMPTY, arrange, fewest, worth_packing


def shuffled(random: np.random.Generator, lines: int, columns: int) -> NDArray[np.bool_]:
    """Marks of which each line has two in every four, in an order that was forgotten."""
    keep = np.argsort(random.random((lines, -(-columns // 4), 4)), axis=-1) < 2
    marks = np.zeros((lines, columns), bool)
    marks[:, random.permutation(columns)] = keep.reshape(lines, -1)[:, :columns]
    return marks


def check(marks: NDArray[np.bool_], fours: NDArray[np.int64]) -> None:
    assert fours.shape[1] == 4 and len(fours) >= fewest(marks)
    assert sorted(fours[fours != EMPTY].tolist()) == np.flatnonzero(marks.any(0)).tolist()
    for four in fours:
        places = four[four != EMPTY]
        assert len(places) and (four[: len(places)] == places).all() and marks[:, places].sum(1).max() <= 2


def fewest_slowly(columns: list[int], marks: NDArray[np.bool_]) -> int:
    if not columns:
        return 0
    first, *others = columns
    fits = [three for size in range(4) for three in combinations(others, size) if marks[:, [first, *three]].sum(1).max() <= 2]
    return 1 + min(fewest_slowly([column for column in others if column not in three], marks) for three in fits)


@given(st.integers(1, 4), st.integers(0, 7), st.sampled_from([0.3, 0.5, 0.8]), st.integers(0, 2**32 - 1))
def test_few_columns_take_as_few_fours_as_can_be_if_no_bound_forbids(lines: int, columns: int, density: float, seed: int) -> None:
    marks = np.random.default_rng(seed).random((lines, columns)) < density
    fours = arrange(marks)
    check(marks, fours)
    least = fewest_slowly(np.flatnonzero(marks.any(0)).tolist(), marks)
    assert least <= len(fours) and (len(fours) == least or least > fewest(marks))


@given(st.integers(1, 140), st.integers(1, 150), st.sampled_from([0.1, 0.4, 0.5, 0.9, 1.0]), st.integers(0, 2**32 - 1))
def test_any_marks_are_arranged(lines: int, columns: int, density: float, seed: int) -> None:
    marks = np.random.default_rng(seed).random((lines, columns)) < density
    fours = arrange(marks)
    check(marks, fours)
    assert 2 * len(fours) <= columns + 1 and np.array_equal(fours, arrange(marks))


@given(st.integers(1, 140), st.integers(1, 150), st.floats(0, 0.3), st.integers(0, 2**32 - 1))
def test_neighbours_are_found_again_though_columns_vanished(lines: int, columns: int, gone: float, seed: int) -> None:
    """In no more fours than there were."""
    random = np.random.default_rng(seed)
    keep = np.argsort(random.random((lines, -(-columns // 4), 4)), axis=-1) < 2
    marks = keep.reshape(lines, -1)[:, :columns] & (random.random(columns) >= gone)
    fours = arrange(marks)
    check(marks, fours)
    assert len(fours) <= -(-columns // 4) and worth_packing(marks, fours)


@pytest.mark.parametrize("lines", [32, 64, 128])
@pytest.mark.parametrize("columns", [62, 381, 768])
@pytest.mark.parametrize("zeros", [0.0, 1e-3])
def test_a_forgotten_order_is_found_again(lines: int, columns: int, zeros: float) -> None:
    """Where tiles are not low, as few fours as pruning drew, though some weights happen to be zero."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        marks = shuffled(random, lines, columns) & (random.random((lines, columns)) >= zeros)
        fours = arrange(marks)
        check(marks, fours)
        assert len(fours) == -(-columns // 4)


@pytest.mark.parametrize("lines", [1, 2, 4, 8, 16, 24])
def test_low_tiles_take_some_more_fours(lines: int) -> None:
    """Few lines tell columns apart badly."""
    marks = shuffled(np.random.default_rng(0), lines, 384)
    fours = arrange(marks)
    check(marks, fours)
    assert len(fours) <= 1.3 * 96 and worth_packing(marks, fours)


def test_what_is_not_worth_packing() -> None:
    """Half of the weights at random are 2:4 in no order; of a fifth, three columns and more share a four."""
    random = np.random.default_rng(0).random((128, 128))
    for kept, worth in ((0.9, False), (0.5, False), (0.2, True)):
        marks = random < kept
        assert worth_packing(marks, arrange(marks)) == worth
