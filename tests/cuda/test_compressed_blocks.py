"""Blocks that are 2:4 inside, compressed: nothing is lost, and what isn't 2:4 is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from block_weights import random_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from zellige.cuda.tiling import two_four
from zellige.cuda.tiling.compressed_blocks import WIDTH, compressed, compressible, expanded, is_compressed, step_of
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import Tiles, cut_tiles
from zellige.errors import InputError


def cut(weight: torch.Tensor) -> Tiles:
    return cut_tiles(weight.float().numpy(), 128, 64, 64)


def blocks(weight: torch.Tensor) -> DeviceTiles:
    return DeviceTiles.upload(cut(weight), "cpu", weight.dtype)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.0, 0.4]),
       st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 2**31 - 1))
def test_nothing_is_lost(rows: int, columns: int, density: float, dropped: float, dtype: torch.dtype, seed: int) -> None:
    weight = random_blocks(rows, columns, density, dropped, dtype, seed, two_four=True)
    whole = blocks(weight)
    small = compressed(whole)
    assert compressible(cut(weight)) and is_compressed(small) and not is_compressed(whole)
    assert small.values.shape == (len(whole.values), WIDTH) and small.values.dtype == dtype
    assert step_of(small.values) == step_of(whole.values) == 64
    assert torch.equal(expanded(small).values, whole.values) and small.starts == whole.starts


def test_an_image_holds_what_the_instruction_reads() -> None:
    """By the layout that ``two_four`` gives, checked there against the instruction's own fragments."""
    weight = random_blocks(128, 128, 1.0, 0.0, torch.float16, 3, two_four=True)
    small = compressed(blocks(weight))
    bits = (weight + 0.0).view(torch.int16).numpy().view(np.uint16)
    expected = two_four.images(*two_four.compress(bits))
    assert np.array_equal(small.values.view(torch.int16).numpy().view(np.uint8).reshape(2, -1), expected)


def test_a_negative_zero_is_a_zero() -> None:
    weight = torch.full((128, 64), -0.0, dtype=torch.bfloat16)
    weight[:, ::4] = weight[:, 3::4] = 1.0
    small = compressed(blocks(weight))
    assert torch.equal(expanded(small).values, weight)


@pytest.mark.parametrize("weight", [torch.ones(128, 64), torch.ones(128, 3)])
def test_what_is_not_two_of_four_is_refused(weight: torch.Tensor) -> None:
    tiles = blocks(weight.bfloat16())
    assert not compressible(cut(weight))
    with pytest.raises(InputError, match="2 non-zeros in each 4 consecutive columns"):
        compressed(tiles)


def test_other_tiles_are_refused() -> None:
    weight = np.kron(np.eye(2), np.ones((128, 1)))
    for tiles in (cut_tiles(weight, 128, 1, 64), cut_tiles(weight, 64, 64, 64), cut_tiles(weight, 128, 128, 128)):
        assert not compressible(tiles)
        with pytest.raises(InputError, match="blocks of 128 × 64 are compressed"):
            compressed(DeviceTiles.upload(tiles, "cpu", torch.bfloat16))
    once = compressed(blocks(torch.eye(128, 64).bfloat16()))
    with pytest.raises(InputError, match=r"hold values of \[128, 36\]"):
        compressed(once)
