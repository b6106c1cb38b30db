"""Blocks of 64 rows, two tiles to one: nothing is lost, none is stored that isn't there, and halves that overlap share a tile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
import torch
from block_weights import random_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from zellige.cuda.operators.product import multiply
from zellige.cuda.tiling.compressed_blocks import compressed
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import NOBODY, ROWS, STEP, fetched, is_paired, paired, pairing, partners, separated
from zellige.cuda.tiling.tiles import PADDING, Tiles, cut_tiles, expand
from zellige.errors import InputError


def cut(weight: torch.Tensor) -> Tiles:
    return cut_tiles(weight.float().numpy(), ROWS, STEP, STEP)


def on_cpu(weight: torch.Tensor) -> DeviceTiles:
    return DeviceTiles.upload(cut(weight), "cpu", weight.dtype)


def weight_of(tiles: DeviceTiles) -> torch.Tensor:
    """From tiles of two halves, by what their words mean alone."""
    assert tiles.halves is not None
    weight = torch.zeros(tiles.shape[0] + 1, -(-tiles.shape[1] // STEP) * STEP, dtype=tiles.values.dtype)  # PADDING is the last
    met = 0
    for tile, (first, last) in enumerate(zip(tiles.starts, tiles.starts[1:], strict=False)):
        for step in range(first, last):
            word, column = int(tiles.halves[step]), int(tiles.units[step])
            assert word >> 2 == met and word & 3
            for half in range(2):
                if word >> half & 1:
                    rows = tiles.rows[tile * 2 * ROWS + half * ROWS:][:ROWS].long()
                    weight[rows, column:column + STEP] += tiles.values[met * ROWS:][:ROWS]
                    met += 1
    assert met * ROWS == len(tiles.values)
    return weight[:-1, :tiles.shape[1]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.0, 0.4]),
       st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 2**31 - 1))
def test_nothing_is_lost(rows: int, columns: int, density: float, dropped: float, dtype: torch.dtype, seed: int) -> None:
    weight = random_blocks(rows, columns, density, dropped, dtype, seed, height=ROWS)
    single = on_cpu(weight)
    both = paired(single)
    assert is_paired(both) and not is_paired(single) and both.tile == 2 * ROWS and both.unit == both.step == STEP
    assert len(both.values) == len(single.values) and both.values.dtype == dtype  # the same blocks
    assert torch.equal(weight_of(both), weight)
    assert sorted(both.rows[both.rows != PADDING].tolist()) == list(range(rows))
    assert fetched(cut(weight)) == both.starts[-1] * 2 * ROWS * STEP / (rows * columns)
    again = separated(both)
    assert not is_paired(again) and again.tile == ROWS and len(again.units) == again.starts[-1] + 1
    assert torch.equal(torch.from_numpy(expand(Tiles(
        again.shape, ROWS, STEP, STEP, again.rows.numpy(), np.array(again.starts), again.units.numpy()[:-1],
        again.values.float().numpy().reshape(-1, ROWS, STEP)))).to(dtype), weight)
    twice = paired(again)
    assert torch.equal(weight_of(twice), weight)


def matchings(left: list[int]) -> Iterator[list[tuple[int, int]]]:
    """All ways to pair an even number of halves."""
    if not left:
        yield []
    for other in left[1:]:
        for rest in matchings([one for one in left[1:] if one != other]):
            yield [(left[0], other), *rest]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 7), st.integers(0, 9), st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_halves_that_overlap_share_a_tile(count: int, columns: int, density: float, seed: int) -> None:
    """Everybody once; half of the best sum of all pairings at least, which is what greedy matching promises, and no two pairs whose
    four would do better another way."""
    used = np.random.default_rng(seed).random((count, columns)) < density
    found = partners(used)
    assert sorted(found.flatten().tolist()) == sorted([*range(count), *[NOBODY] * (count % 2)])
    assert found[:, 0].tolist() == sorted(found[:, 0].tolist()) and (found[:, 1] > found[:, 0])[found[:, 1] != NOBODY].all()
    filled = np.vstack([used, np.zeros((1, columns), bool)])
    shared = filled.astype(int) @ filled.T  # NOBODY is the last

    def overlap(pairs: list[tuple[int, int]]) -> int:
        return sum(int(shared[pair]) for pair in pairs)

    pairs = [(one, other) for one, other in found.tolist()]
    best = max(map(overlap, matchings(list(range(count + count % 2)))))
    assert 2 * overlap(pairs) >= best
    for some in combinations(pairs, 2):
        assert overlap(list(some)) == max(map(overlap, matchings([*some[0], *some[1]])))


def test_pairings_are_near_the_best() -> None:
    """Of all there are, on the average of random halves."""
    own = best = 0
    for seed in range(60):
        used = np.random.default_rng(seed).random((8, 12)) < 0.5
        shared = used.astype(int) @ used.T
        own += used.sum() - sum(int(shared[one, other]) for one, other in partners(used))
        best += used.sum() - max(sum(int(shared[pair]) for pair in pairs) for pairs in matchings(list(range(8))))
    assert best <= own <= 1.01 * best


def test_halves_that_are_alike_share_a_tile() -> None:
    """Wherever they are; and among equal ones neighbours stay together, as the two halves of a block of 128 rows are."""
    assert partners(np.ones((6, 2), bool)).tolist() == [[0, 1], [2, 3], [4, 5]]
    bands = np.random.default_rng(0).permutation(np.repeat(np.eye(8, 32, dtype=bool), 2, axis=0))
    assert all(np.array_equal(bands[one], bands[other]) for one, other in partners(bands))
    whole = np.kron(np.random.default_rng(1).random((8, 32)) < 0.5, np.ones((2, 1), bool))
    assert partners(whole).tolist() == [[2 * tile, 2 * tile + 1] for tile in range(8)]
    assert partners(np.zeros((0, 3), bool)).tolist() == []


def test_shares_of_random_blocks() -> None:
    """Of 64 × 64 blocks at 50 % whole blocks of 128 rows would multiply three quarters, halves a half; X costs less than the union
    of neighbours."""
    weight = np.kron(np.random.default_rng(0).random((32, 64)) < 0.5, np.ones((64, 64), np.float32))
    tiles, neighbours = cut_tiles(weight, ROWS, STEP, STEP), cut_tiles(weight, 2 * ROWS, STEP, STEP)
    assert abs(tiles.work - 0.5) < 0.02 and abs(neighbours.work - 0.75) < 0.02
    assert tiles.work < fetched(tiles) < neighbours.work - 0.03
    whole = np.kron(np.random.default_rng(0).random((8, 32)) < 0.5, np.ones((128, 64), np.float32))
    tiles = cut_tiles(whole, ROWS, STEP, STEP)
    assert fetched(tiles) == tiles.work


def test_hundreds_of_tiles_take_no_time() -> None:
    used = np.random.default_rng(0).random((800, 224)) < 0.3
    started = time.perf_counter()
    found = partners(used)
    assert time.perf_counter() - started < 5 and np.array_equal(found, partners(used))  # a fifth of a second, on a quiet machine


def test_a_weight_of_zeros() -> None:
    both = paired(on_cpu(torch.zeros(200, 128, dtype=torch.bfloat16)))
    assert both.starts == (0, 0, 0) and len(both.values) == len(both.halves) == 0 and len(both.rows) == 256  # type: ignore[arg-type]
    assert pairing(np.array([0]), np.zeros(0, np.int32)).halves.shape == (0, 2)


def test_other_tiles_are_refused() -> None:
    weight = np.kron(np.eye(2), np.ones((128, 1)))
    for tiles in (cut_tiles(weight, 128, 64, 64), cut_tiles(weight, 64, 8, 64), cut_tiles(weight, 64, 128, 128)):
        with pytest.raises(InputError, match="tiles of 64 rows that keep 64 columns at a time are paired"):
            paired(DeviceTiles.upload(tiles, "cpu", torch.bfloat16))
    both = paired(on_cpu(torch.eye(128, 64).bfloat16()))
    with pytest.raises(InputError, match="are paired, not tiles of 128"):
        paired(both)
    with pytest.raises(InputError, match="blocks of 128 × 64 are compressed"):
        compressed(both)
    filters = ConvolutionTiles.upload(torch.ones(64, 64, 2, 1).bfloat16(), Window((2, 1)), ROWS, STEP, STEP)
    with pytest.raises(InputError, match="before its taps are told apart"):
        paired(filters.tiles)
    with pytest.raises(InputError, match="by the kernels of blocks alone"):
        multiply(both, torch.zeros(3, 64, dtype=torch.bfloat16))
