"""Rows that keep like columns share a tile: never worse than neighbours, and close to the best order where all can be tried."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zellige.cuda.tiling.outlook import outlooks
from zellige.cuda.tiling.row_order import kept_groups, row_order
from zellige.cuda.tiling.tiles import cut_tiles, expand, multiply


@st.composite
def usages(draw: st.DrawFn, most: int = 60) -> np.ndarray:
    """Rows × groups, some rows alike."""
    rows, groups = draw(st.integers(1, most)), draw(st.integers(1, 20))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    different = generator.random((draw(st.integers(1, rows)), groups)) < draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    return different[generator.integers(0, len(different), rows)]


def kept_by_hand(used: np.ndarray, order: tuple[int, ...] | np.ndarray, tile: int) -> int:
    return sum(len({group for row in order[start:start + tile] for group in np.flatnonzero(used[row])})
               for start in range(0, len(order), tile))


@given(usages(), st.integers(1, 20))
def test_every_row_has_one_place_and_nothing_gets_worse(used: np.ndarray, tile: int) -> None:
    order = row_order(used, tile)
    assert sorted(order) == list(range(len(used)))
    assert kept_by_hand(used, order, tile) == kept_groups(used[order], tile) <= kept_groups(used, tile)


@settings(max_examples=25)
@given(usages(most=6), st.integers(2, 3))
def test_beside_all_orders_there_are(used: np.ndarray, tile: int) -> None:
    """Greedy, so not always the best, but never more than half as much again."""
    best = min(kept_by_hand(used, order, tile) for order in permutations(range(len(used))))
    assert best <= kept_by_hand(used, row_order(used, tile), tile) <= 1.5 * best


def test_what_was_scattered_is_found_again() -> None:
    """Sixteen tiles with columns of their own, their rows shuffled: every one is put together again."""
    generator = np.random.default_rng(0)
    tall = np.kron(np.eye(16), np.ones((8, 4)))
    shuffled = tall[generator.permutation(len(tall))].astype(bool)
    assert kept_groups(shuffled, 8) > 200 and kept_groups(shuffled[row_order(shuffled, 8)], 8) == 16 * 4


@given(usages(most=40), st.sampled_from([(4, 1, 4), (16, 8, 8), (16, 2, 8)]))
def test_clustered_tiles_hold_the_same_weight(used: np.ndarray, sizes: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal(used.shape) * used
    tiles = cut_tiles(weight, *sizes, clustered=True)
    assert np.array_equal(expand(tiles), weight) and tiles.steps <= cut_tiles(weight, *sizes).steps + len(tiles.starts)
    x = generator.standard_normal((weight.shape[1], 3))
    np.testing.assert_allclose(multiply(tiles, x), weight @ x, rtol=1e-12, atol=1e-12)


def test_outlooks_tell_of_clustered_rows() -> None:
    """8×8 blocks of which one in twenty is left: clustering takes the union from 55 to 35 %."""
    generator = np.random.default_rng(0)
    weight = np.kron(generator.random((384, 96)) < 0.05, np.ones((8, 8)))
    best, plain = outlooks(weight, [(128, 8, 64, True), (128, 8, 64, False)])
    assert best.clustered and best.work < 0.7 * plain.work and "clustered rows" in str(best)
