"""Orders of columns for 2:4: against all of them where there are few."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import InputError
from zellige.patterns.column_order import kept, order_columns


def kept_slowly(scores: np.ndarray) -> float:
    return sum(sum(sorted(row[first : first + 4])[2:]) for row in scores.tolist() for first in range(0, len(row), 4))


@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_what_is_kept(rows: int, groups: int, seed: int) -> None:
    scores = np.random.default_rng(seed).random((rows, 4 * groups))
    assert kept(scores) == pytest.approx(kept_slowly(scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_eight_columns_are_ordered_as_well_as_they_can_be(seed: int) -> None:
    scores = np.random.default_rng(seed).random((3, 8)) ** 3
    best = max(kept(scores[:, [0, *order]]) for order in permutations(range(1, 8)) if list(order[:3]) == sorted(order[:3]))
    assert kept(scores[:, order_columns(scores)]) == pytest.approx(best, abs=1e-12)


@given(st.integers(1, 20), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_an_order_is_never_worse_than_none(rows: int, groups: int, seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((rows, 4 * groups)) ** 2
    order = order_columns(scores, rounds=5, seed=seed)
    assert sorted(order.tolist()) == list(range(4 * groups))
    assert kept(scores[:, order]) >= kept(scores) - 1e-9
    assert order.tolist() == order_columns(scores, rounds=5, seed=seed).tolist()


def test_it_pays_where_columns_are_alike() -> None:
    """Sixteen rows whose large numbers all lie in the same quarter of the columns, four of which stand side by side."""
    scores = np.full((16, 64), 0.1)
    scores[:, :16] = 1.0
    assert kept(scores) == pytest.approx(16 * (4 * 2 * 1.0 + 12 * 2 * 0.1))
    assert kept(scores[:, order_columns(scores)]) > 16 * (15 + 16 * 0.1)


@pytest.mark.parametrize("scores", [np.ones((2, 6)), np.ones(8), -np.ones((2, 8))])
def test_what_are_no_scores(scores: np.ndarray) -> None:
    with pytest.raises(InputError, match="not negative"):
        order_columns(scores)
