"""2:4 weights: compressed and back, and packed so that an emulated instruction multiplies by them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sparse_instruction import load_matrix_transposed, mma_sp
from vector_weights import random_weight

from zellige.cuda.tiling.two_four import IMAGE_BYTES, ROWS, STEP, VALUE_BYTES, compress, expand, from_images, images, violations
from zellige.cuda.tiling.vector_tiles import DTYPES, VectorTiles, least_work, stacked, vector_tiles, vector_weight
from zellige.errors import InputError
from zellige.patterns import TileVectorWise, parse_pattern


def two_four(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint16]:
    """Numbers of which 0, 1 or 2 in each 4 are not zero."""
    numbers = random.integers(1, 2**15, (rows, columns // 4, 4), dtype=np.uint16)
    keep = np.argsort(random.random(numbers.shape), axis=-1) < random.integers(0, 3, (rows, columns // 4, 1))
    return (numbers * keep).reshape(rows, columns)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_compressed_and_back(rows: int, groups: int, seed: int) -> None:
    weight = two_four(np.random.default_rng(seed), rows, 4 * groups)
    values, positions = compress(weight)
    assert values.shape == positions.shape == (rows, 2 * groups)
    assert (positions[:, 0::2] < positions[:, 1::2]).all() and (positions < 4).all()
    np.testing.assert_array_equal(expand(values, positions), weight)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_violations_are_all_found(rows: int, groups: int, seed: int) -> None:
    weight = np.random.default_rng(seed).integers(0, 2, (rows, 4 * groups))
    expected = [[row, group] for row in range(rows) for group in range(groups) if weight[row, 4 * group : 4 * group + 4].sum() > 2]
    assert violations(weight).tolist() == expected
    if expected:
        row, group = expected[0]
        with pytest.raises(InputError, match=rf"row {row}, columns {4 * group} to {4 * group + 3}"):
            compress(weight)


@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_images_and_back(steps: int, seed: int) -> None:
    values, positions = compress(two_four(np.random.default_rng(seed), ROWS, STEP * steps))
    packed = images(values, positions)
    assert packed.shape == (steps, IMAGE_BYTES) and packed.dtype == np.uint8
    for found, expected in zip(from_images(packed), (values, positions), strict=True):
        np.testing.assert_array_equal(found, expected)


def half_step(image: NDArray[np.uint8], half: int, block: int) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """What the 32 lanes of a warp load from an image: 8 values and a word of metadata each."""
    values = image[:VALUE_BYTES].view(np.uint16).reshape(2, 8, 32, 8)[half, block]
    return values, image[VALUE_BYTES:].view(np.uint32).reshape(8, 32)[block]


def gathered(rows: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """64 rows × 64 tokens in shared memory: 128 bytes a row, chunks swizzled."""
    chunks = rows.reshape(STEP, 8, 8)
    return np.ascontiguousarray(np.stack([chunks[k, np.arange(8) ^ (k & 7)] for k in range(STEP)])).view(np.uint8).reshape(-1)


@pytest.mark.parametrize("seed", range(3))
def test_the_instruction_multiplies_by_an_image(seed: int) -> None:
    """Small whole numbers, so that the product is exact and a value in a wrong place shows."""
    random = np.random.default_rng(seed)
    weight = two_four(random, ROWS, STEP) % 64
    x = random.integers(0, 64, (STEP, 64), dtype=np.uint16)
    image, shared = images(*compress(weight))[0], gathered(x)
    expected = weight.astype(np.int64) @ x.astype(np.int64)
    lanes = np.arange(32)
    for block, n in itertools.product(range(8), range(8)):
        d = np.zeros((32, 4), np.int64)
        for half in range(2):
            a, metadata = half_step(image, half, block)
            b = load_matrix_transposed(shared, (half * 32 + lanes) * 128 + ((n ^ (lanes & 7)) << 4))
            d = mma_sp(a.astype(np.int64), b.astype(np.int64), d, metadata, half)
        for lane in lanes:
            for i in range(4):
                assert d[lane, i] == expected[block * 16 + lane // 4 + 8 * (i // 2), n * 8 + lane % 4 * 2 + i % 2]


def dense(tiles: VectorTiles) -> torch.Tensor:
    """The weight that was packed."""
    weight = np.zeros(tiles.shape, np.uint16)
    starts, columns = tiles.starts.numpy(), tiles.columns.numpy()
    for tile, rows in enumerate(tiles.rows.numpy()):
        steps = slice(starts[tile], starts[tile + 1])
        part = expand(*from_images(tiles.images.numpy()[steps]))
        for row, numbers in zip(rows, part, strict=True):
            if row >= 0:
                np.bitwise_or.at(weight[row], columns[steps.start * STEP : steps.stop * STEP], numbers)
            else:
                assert not numbers.any()
    return torch.from_numpy(weight.view(np.int16)).view(tiles.dtype)


@given(st.integers(1, 400), st.integers(1, 300), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 99))
def test_tiles_hold_the_weight(n: int, k: int, dtype: torch.dtype, listed: bool, seed: int) -> None:
    weight, columns = random_weight(n, k, dtype, seed)
    assert_tiles_of(weight, vector_tiles(weight, columns if listed else None))


def assert_tiles_of(weight: torch.Tensor, tiles: VectorTiles) -> None:
    """All of a weight, in what a kernel may trust."""
    assert tiles.shape == weight.shape and torch.equal(dense(tiles), weight) and torch.equal(vector_weight(tiles), weight)
    assert sorted(row for row in tiles.rows.flatten().tolist() if row >= 0) == list(range(len(weight)))
    steps = tiles.starts.diff().tolist()
    assert steps == sorted(steps, reverse=True) and tiles.longest == steps[0] and tiles.starts[0] == 0
    assert len(tiles.columns) == STEP * len(tiles.images) == STEP * tiles.starts[-1]
    assert ((tiles.columns >= 0) & (tiles.columns < weight.shape[1])).all()
    assert {array.dtype for array in (tiles.rows, tiles.starts, tiles.columns)} == {torch.int32}
    assert all(array.is_contiguous() for array in (tiles.rows, tiles.starts, tiles.columns, tiles.images))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=3), st.integers(1, 200), st.sampled_from(DTYPES),
       st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 99))
def test_stacked_weights_keep_their_tiles(rows: list[int], k: int, dtype: torch.dtype, dropped: float, seed: int) -> None:
    """Rows that are gone from one don't shift the tiles of the next: together they would be 2:4 in no order, as a rule."""
    weights = [random_weight(n, k, dtype, seed + number, dropped)[0] for number, n in enumerate(rows)]
    parts = [vector_tiles(weight) for weight in weights]
    tiles = stacked(parts)
    assert_tiles_of(torch.cat(weights), tiles)
    assert len(tiles.images) == sum(len(part.images) for part in parts)


def test_only_like_tiles_are_stacked() -> None:
    weight = torch.eye(4).half()
    for other in (weight[:, :3], weight.bfloat16()):
        with pytest.raises(InputError, match="of one kind"):
            stacked([vector_tiles(weight), vector_tiles(other)])


PRUNED = st.sampled_from(["tvw:128:2:4", "tvw:128:2:4:tile-rows", "tvw:256:2:4", "tvw:128:1:4", "tvw:128:2:4:ordered",
                          "tvw:128:2:4:tile-rows:ordered", "nm:2:4"])


@given(PRUNED, st.integers(1, 400), st.integers(1, 200), st.sampled_from([0.75, 0.8, 0.9, 0.97]), st.sampled_from(DTYPES),
       st.sampled_from(["normal", "whole numbers", "columns", "tiny"]), st.integers(0, 2**31 - 1))
def test_whatever_is_pruned_can_be_packed(
    pattern: str, n: int, k: int, sparsity: float, dtype: torch.dtype, drawn: str, seed: int
) -> None:
    """From its zeros alone, though whole columns of a tile may have vanished, and rows, in rounding or before."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, k, generator=generator)
    if drawn == "whole numbers":
        weight = weight.round()  # zeros among them, and ties
        weight[0, 0] = 1.0
    elif drawn == "columns":
        weight *= torch.exp(2 * torch.randn(k, generator=generator))
    elif drawn == "tiny":
        weight *= torch.where(torch.rand(n, k, generator=generator) < 0.3, 1e-8, 1.0)  # zero in float16
    chosen = parse_pattern(pattern)
    weight = (weight * chosen.mask(weight.abs(), 0.5 if pattern == "nm:2:4" else sparsity)).to(dtype)
    tiles = vector_tiles(weight)
    assert torch.equal(dense(tiles), weight) and torch.equal(vector_weight(tiles), weight)
    assert least_work(weight) <= tiles.density


def test_rows_without_a_weight_do_not_shift_tiles() -> None:
    """Tiles of ``tile-rows`` are rows as they stand, a row of zeros among them: the rows after it don't change their tile."""
    weight = torch.randn(384, 256)
    weight[5] = 0
    weight *= TileVectorWise(128, 2, 4, whole_rows=False).mask(weight.abs(), 0.8)
    tiles = vector_tiles(weight.half())
    assert torch.equal(dense(tiles), weight.half())
    assert [int((rows >= 0).sum()) for rows in tiles.rows] in ([127, 128, 128, 1], [128, 127, 128, 1], [128, 128, 127, 1])


@pytest.mark.parametrize("change, message", [
    (lambda weight, columns: (weight.float(), columns), "bfloat16 or float16"),
    (lambda weight, columns: (weight[0], columns), "matrix"),
    (lambda weight, columns: (weight, columns[1:]), "for each of"),
    (lambda weight, columns: (weight, [columns[0][:-1], *columns[1:]]), "tile 0.*1 are missing"),
    (lambda weight, columns: (weight, [columns[0], [*columns[1], columns[1][0]], *columns[2:]]), "tile 1.*1 are listed twice"),
    (lambda weight, columns: (weight, [columns[0], [*columns[1], 999], *columns[2:]]), "tile 1.*1 don't exist"),
    (lambda weight, columns: (torch.ones_like(weight), None), "no more than two fit in four"),
    (lambda weight, columns: (torch.ones_like(weight), [range(64)] * 3), "tile 0.*row 0, columns 0 to 3"),
])  # fmt: skip
def test_what_is_no_such_weight(change, message: str) -> None:
    weight, columns = random_weight(300, 64, torch.float16, seed=1, dropped=0.0)
    with pytest.raises(InputError, match=message):
        vector_tiles(*change(weight, columns))
