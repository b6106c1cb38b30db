"""Tiles hold what a weight holds, and no more columns than the union of their rows needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.cuda.tiling.tiles import PADDING, Tiles, cut_tiles, expand, multiply, step_columns
from zellige.errors import CompileError


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """Weights of any shape and density, with rows and columns of zeros, and zeros of both signs."""
    rows, columns = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
    weight = generator.standard_normal((rows, columns)) * (generator.random((rows, columns)) < density)
    weight[generator.random(rows) < draw(st.sampled_from([0.0, 0.5]))] *= 0  # -0.0 too
    weight[:, generator.random(columns) < draw(st.sampled_from([0.0, 0.5]))] = 0
    return weight


SIZES = st.tuples(st.sampled_from([1, 3, 16, 64]), st.sampled_from([(1, 4), (2, 8), (8, 8), (8, 32), (32, 8), (16, 1)]))


@given(weights(), SIZES)
def test_expand_gives_the_weight_back(weight: np.ndarray, sizes: tuple[int, tuple[int, int]]) -> None:
    tiles = cut_tiles(weight, sizes[0], *sizes[1])
    assert np.array_equal(expand(tiles), weight)
    assert sorted(tiles.rows[tiles.rows != PADDING]) == list(range(len(weight)))  # so that every output is written once


@given(weights(), SIZES)
def test_the_oracle_multiplies(weight: np.ndarray, sizes: tuple[int, tuple[int, int]]) -> None:
    x = np.random.default_rng(0).standard_normal((weight.shape[1], 5))
    np.testing.assert_allclose(multiply(cut_tiles(weight, sizes[0], *sizes[1]), x), weight @ x, rtol=1e-12, atol=1e-12)


@given(weights(), SIZES)
def test_a_tile_keeps_the_union_of_its_rows(weight: np.ndarray, sizes: tuple[int, tuple[int, int]]) -> None:
    """Against a count by hand: groups of columns in which any of a tile's rows holds something, filled up to whole steps."""
    rows, (group, step) = sizes
    tiles = cut_tiles(weight, rows, group, step)
    kept = [row for row in range(len(weight)) if weight[row].any()]
    for tile, start in enumerate(range(0, len(kept), rows)):
        used = {column // group for row in kept[start:start + rows] for column in range(weight.shape[1]) if weight[row, column]}
        columns = {column for step in range(tiles.starts[tile], tiles.starts[tile + 1]) for column in step_columns(tiles, step)}
        assert {int(column) // group for column in columns} == used
        wanted = sum(-(-min(group, weight.shape[1] - group * one) // tiles.unit) * tiles.unit for one in used)
        assert tiles.starts[tile + 1] - tiles.starts[tile] == -(-wanted // step)
    assert tiles.work == tiles.steps * rows * step / weight.size


def test_sizes() -> None:
    tiles = cut_tiles(np.eye(8, dtype=np.float32), tile=4, group=1, step=4)
    assert (tiles.steps, tiles.work, tiles.nbytes(2)) == (2, 0.5, 2 * 4 * 4 * 2 + 4 * (8 + 3 + 8))


@pytest.mark.parametrize("shape, sizes", [((4,), (4, 1, 4)), ((0, 4), (4, 1, 4)), ((4, 4), (4, 3, 4)), ((4, 4), (0, 1, 4))])
def test_refusals(shape: tuple[int, ...], sizes: tuple[int, int, int]) -> None:
    with pytest.raises(CompileError):
        cut_tiles(np.zeros(shape), *sizes)


def test_a_weight_of_zeros_is_tiles_without_steps() -> None:
    tiles = cut_tiles(np.zeros((5, 4), np.float32), tile=2, group=1, step=4)
    assert isinstance(tiles, Tiles) and tiles.steps == 0 and tiles.starts.tolist() == [0, 0, 0, 0]
