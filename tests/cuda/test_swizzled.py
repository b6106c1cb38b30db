"""Plain images: packed and back, and where the tensor cores look for a number by the descriptor that the kernel makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vector_weights import random_weight

from zellige.cuda.tiling.swizzled import IMAGE_BYTES, from_images, images
from zellige.cuda.tiling.two_four import ROWS, STEP
from zellige.cuda.tiling.vector_tiles import DTYPES, vector_tiles
from zellige.errors import InputError


def tile_of(steps: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**16, (ROWS, STEP * steps), dtype=np.uint16)


@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_images_and_back(steps: int, seed: int) -> None:
    tile = tile_of(steps, seed)
    packed = images(tile)
    assert packed.shape == (steps, IMAGE_BYTES) and packed.dtype == np.uint8
    np.testing.assert_array_equal(from_images(packed), tile)


@pytest.mark.parametrize("base", [0, 32768, 5 * 49152 + 32768])
def test_the_descriptor_finds_every_number(base: int) -> None:
    """The PTX ISA's canonical layout: 8 rows of 128 bytes, the next 8 a stride on; bits 4-6 of an address XOR its bits 7-9."""
    tile = tile_of(2, base)
    for step, image in enumerate(images(tile)):
        for group in range(2):  # of 64 rows, what one instruction takes
            for k in range(0, STEP, 16):
                row, column = np.ogrid[:64, :16]
                address = base + group * 64 * 128 + k * 2 + row // 8 * 1024 + row % 8 * 128 + column * 2
                address ^= (address >> 7 & 7) << 4
                expected = tile[group * 64 : group * 64 + 64, step * STEP + k : step * STEP + k + 16]
                np.testing.assert_array_equal(image.view(np.uint16)[(address - base) // 2], expected)


def test_what_is_no_tile() -> None:
    for wrong in (np.zeros((64, 64), np.uint16), np.zeros((ROWS, 63), np.uint16), np.zeros((ROWS, 64), np.int16)):
        with pytest.raises(InputError, match="expected 128 rows of 16-bit values"):
            images(wrong)


@given(st.integers(1, 400), st.integers(1, 300), st.sampled_from(DTYPES), st.integers(0, 99))
def test_tiles_hold_the_weight(n: int, k: int, dtype: torch.dtype, seed: int) -> None:
    weight, columns = random_weight(n, k, dtype, seed, two_four=False)
    tiles = vector_tiles(weight, columns, sparse=False)
    assert not tiles.two_four and tiles.density == len(tiles.images) * ROWS * STEP / (n * k)
    found, starts = np.zeros((n, k), np.uint16), tiles.starts.numpy()
    for tile, rows in enumerate(tiles.rows.numpy()):
        part = from_images(tiles.images.numpy()[starts[tile] : starts[tile + 1]])
        listed = tiles.columns.numpy()[starts[tile] * STEP : starts[tile + 1] * STEP]
        for row, numbers in zip(rows[rows >= 0], part, strict=False):
            np.bitwise_or.at(found[row], listed, numbers)
        assert not part[(rows >= 0).sum() :].any()
    assert torch.equal(torch.from_numpy(found.view(np.int16)).view(dtype), weight)
