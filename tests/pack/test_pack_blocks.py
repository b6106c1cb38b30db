"""Packing keeps every number in a kept block bit for bit, and ``choose_block`` finds the fewest bytes."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import FileFormatError
from zellige.pack.blocks import SIZES, PackedWeight, choose_block, pack_blocks, pack_smallest, unpack_blocks

shapes = st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)),
                   st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3), st.integers(1, 3)))


def sparse_weight(seed: int, shape: tuple[int, ...], block: tuple[int, int, int], density: float,
                  dtype: type = np.float32) -> np.ndarray:
    """Random numbers, denormals and negative zeros, with whole blocks of zeros, half of them negative."""
    generator = np.random.default_rng(seed)
    rows, columns, taps = shape[0], shape[1], prod(shape[2:])
    weight = generator.standard_normal((rows, columns, taps)).astype(dtype)
    weight.flat[::5] = np.finfo(dtype).smallest_subnormal
    weight.flat[::7] = -0.0
    for r in range(0, rows, block[0]):
        for c in range(0, columns, block[1]):
            for t in range(0, taps, block[2]):
                if generator.random() >= density:
                    weight[r:r + block[0], c:c + block[1], t:t + block[2]] *= 0.0
    return weight.reshape(shape)


def brute_force(weight: np.ndarray, block: tuple[int, int, int]) -> tuple[list[bool], list[float]]:
    """Which blocks are kept, and the values of the elements in them, one element at a time."""
    cube = weight.reshape(weight.shape[0], weight.shape[1], -1)
    starts = [range(0, extent, size) for extent, size in zip(cube.shape, block, strict=True)]
    kept = {(r, c, t): any(cube[r + i, c + j, t + k] != 0 for i in range(block[0]) for j in range(block[1])
                           for k in range(block[2]) if r + i < cube.shape[0] and c + j < cube.shape[1]
                           and t + k < cube.shape[2])
            for r in starts[0] for c in starts[1] for t in starts[2]}
    values = [cube[index] for index in np.ndindex(*cube.shape)
              if kept[tuple(i - i % size for i, size in zip(index, block, strict=True))]]
    return list(kept.values()), values


@given(st.integers(0, 1000), shapes, st.sampled_from(SIZES), st.booleans(), st.sampled_from([0.0, 0.3, 0.7, 1.0]),
       st.sampled_from([np.float32, np.float64]))
def test_round_trip(seed: int, shape: tuple[int, ...], size: tuple[int, int], all_taps: bool, density: float,
                    dtype: type) -> None:
    block = (min(size[0], shape[0]), min(size[1], shape[1]), prod(shape[2:]) if all_taps else 1)
    weight = sparse_weight(seed, shape, block, density, dtype)
    packed = pack_blocks(weight, block)
    back = unpack_blocks(packed)
    assert back.shape == weight.shape and back.dtype == weight.dtype
    np.testing.assert_array_equal(back, weight)
    kept, values = brute_force(weight, block)
    assert np.unpackbits(packed.kept, bitorder="little")[:len(kept)].tolist() == kept
    assert packed.values.tobytes() == np.array(values, dtype).tobytes()          # negative zeros and denormals too


def test_negative_zeros_survive_in_kept_blocks_alone() -> None:
    weight = np.zeros((2, 2), np.float32)
    weight[0] = [-0.0, 1.0]
    weight[1] = [-0.0, -0.0]
    back = unpack_blocks(pack_blocks(weight, (1, 2, 1)))
    assert np.signbit(back).tolist() == [[True, False], [False, False]]


def test_a_denormal_is_not_a_zero() -> None:
    weight = np.zeros((8, 8), np.float32)
    weight[3, 3] = -np.finfo(np.float32).smallest_subnormal
    packed = pack_blocks(weight, (8, 8, 1))
    assert packed.kept.tolist() == [1]
    assert unpack_blocks(packed).tobytes() == weight.tobytes()


@given(st.integers(0, 1000), shapes, st.sampled_from(SIZES), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_choice_takes_the_fewest_bytes(seed: int, shape: tuple[int, ...], size: tuple[int, int],
                                       density: float) -> None:
    weight = sparse_weight(seed, shape, (*size, prod(shape[2:])), density)
    fits = [(rows, columns, taps) for rows, columns in SIZES for taps in {1, prod(shape[2:])}
            if rows <= shape[0] and columns <= shape[1]]
    fewest = min([weight.nbytes, *(pack_blocks(weight, block).nbytes for block in fits)])
    packed = pack_smallest(weight)
    assert (weight.nbytes if packed is None else packed.nbytes) == fewest


@pytest.mark.parametrize("block", [(8, 8, 9), (8, 4, 9), (8, 1, 9), (1, 1, 9), (8, 8, 1), (1, 1, 1)])
def test_choice_finds_the_pattern(block: tuple[int, int, int]) -> None:
    weight = sparse_weight(1, (64, 64, 3, 3), block, 0.5)
    weight[weight != 0] = 1.0
    assert choose_block(weight) == choose_block(weight.copy())
    packed = pack_smallest(weight)
    assert packed is not None and packed.nbytes < 0.58 * weight.nbytes       # 0.5, the bitmap's 1/32, and chance


@pytest.mark.parametrize("weight", [np.ones((8, 8), np.float32), np.zeros(8, np.float32), np.zeros((8, 8), np.int64),
                                    np.zeros((0, 8), np.float32), np.array(0.0, np.float32)], ids=repr)
def test_nothing_to_leave_out(weight: np.ndarray) -> None:
    assert pack_smallest(weight) is None


GOOD = pack_blocks(np.kron(np.eye(3, dtype=np.float32), np.ones((8, 8), np.float32)), (8, 8, 1))


@pytest.mark.parametrize("change", [
    {"shape": (24, 16)}, {"shape": (24, 23)}, {"shape": (24 * 24,)}, {"shape": (24, 24, 0)}, {"shape": (24, 24, 2)},
    {"block": (8, 0, 1)}, {"block": (8, 25, 1)}, {"block": (8, 8, 2)}, {"block": (8, -8, 1)}, {"block": (4, 8, 1)},
    {"kept": GOOD.kept[:1]}, {"kept": GOOD.kept ^ np.uint8(2)}, {"kept": GOOD.kept ^ np.array([0, 128], np.uint8)},
    {"kept": GOOD.kept.view(np.int8)}, {"kept": GOOD.kept.reshape(2, 1)}, {"values": GOOD.values[1:]},
    {"values": GOOD.values.view(np.int32)}, {"values": GOOD.values.reshape(2, -1)}, {"values": GOOD.values[0]},
], ids=str)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(FileFormatError):
        unpack_blocks(PackedWeight(**{**GOOD.__dict__, **change}))
