"""Activations rounded to e4m3: PyTorch's operators against the nearest of all numbers there are, and Triton's kernels, in the
interpreter and inside guards, against PyTorch's operators, bit for bit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from interpreter import E4M3_NUMBERS, MARGIN, Guarded, convert_exactly, nearest_e4m3
from torch import Tensor
from triton.runtime import interpreter

from zellige.cuda.kernels import e4m3 as kernels
from zellige.cuda.operators import e4m3 as operators
from zellige.cuda.operators.e4m3 import CHUNK, PROGRAMS, launch_by_largest, launch_by_scale, launch_largest, to_e4m3, to_e4m3_with
from zellige.cuda.tiling.scaled_tiles import E4M3, LARGEST, scale_for
from zellige.errors import CompileError, InputError

DTYPES = st.sampled_from([torch.bfloat16, torch.float16])
NOTHING = 0x5A
"""What guards around numbers of eight bits are full of."""


@pytest.fixture(scope="module", autouse=True)
def exact_conversions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        convert_exactly(patch)
        yield


def bits(small: Tensor) -> Tensor:
    """Of e4m3; all NaN are one."""
    return torch.where(small.float().isnan(), 127, small.view(torch.uint8))


class Bytes:
    """e4m3 with guards before and behind."""

    def __init__(self, count: int):
        self.around = torch.full((count + 2 * MARGIN,), NOTHING, dtype=torch.uint8)
        self.inside = self.around[MARGIN:MARGIN + count].view(E4M3)

    def untouched(self) -> bool:
        return bool((self.around[:MARGIN] == NOTHING).all() and (self.around[MARGIN + self.inside.numel():] == NOTHING).all())


def found_by_kernels(x: Tensor, programs: int, chunk: int) -> tuple[Tensor, Tensor]:
    """What the two launches make of x; nothing beside their results may change."""
    guarded, y = Guarded((1, max(1, x.numel())), x.dtype), Bytes(x.numel())
    inside = guarded.inside[0, :x.numel()].copy_(x)
    scales, partials = torch.full((3,), -1.0), torch.full((programs + 2 * MARGIN,), -1, dtype=torch.int32)
    launch_largest(inside, partials[MARGIN:MARGIN + programs], chunk)
    launch_by_largest(inside, y.inside, scales[1:2], partials[MARGIN:MARGIN + programs], chunk)
    assert guarded.untouched() and y.untouched() and scales[::2].tolist() == [-1.0, -1.0]
    assert (partials[:MARGIN] == -1).all() and (partials[MARGIN + programs:] == -1).all()
    return y.inside, scales[1:2]


def drawn(count: int, size: float, dtype: torch.dtype, seed: int) -> Tensor:
    """Normal numbers of some size, as far as the type has them, and zeros of both signs."""
    numbers = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 10**size
    numbers[seed % 7::7] *= 0.0
    return numbers.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)


# ------------------------------------------------------------------------------------------------- PyTorch's operators


def test_the_numbers_of_e4m3() -> None:
    assert torch.equal(torch.arange(127, dtype=torch.uint8).view(E4M3).float(), torch.from_numpy(E4M3_NUMBERS))


def test_the_nearest_one_by_one() -> None:
    """Every number, what lies between two, and what lies beside that, to either side: the even one, and the nearest."""
    between = (E4M3_NUMBERS[1:] + E4M3_NUMBERS[:-1]) / 2
    numbers = np.concatenate([E4M3_NUMBERS, between, np.nextafter(between, np.float32(0)), np.nextafter(between, np.float32(999))])
    for signed in (numbers, -numbers):
        assert np.array_equal(nearest_e4m3(signed), torch.from_numpy(signed).to(E4M3).view(torch.uint8).numpy())
    assert nearest_e4m3(np.array([449, 1e9, np.inf, -np.inf, np.nan], np.float32)).tolist() == [126, 126, 126, 254, 127]


@given(st.integers(1, 2000), st.floats(-42, 38), DTYPES, st.integers(0, 2**31 - 1))
def test_activations_are_rounded_to_the_nearest(count: int, size: float, dtype: torch.dtype, seed: int) -> None:
    """Off from the quotient by no more than the nearest is; the largest becomes 448."""
    x = drawn(count, size, dtype, seed)
    small, scale = to_e4m3(x)
    assert small.dtype == E4M3 and torch.equal(scale, scale_for(x.abs().max()).reshape(1))
    quotient, numbers = x.double() / scale.double(), torch.from_numpy(E4M3_NUMBERS).double()
    nearest = (quotient.abs()[..., None] - numbers).abs().amin(-1)
    assert ((quotient - small.double()).abs() <= nearest + 2**-22 * quotient.abs()).all()
    if scale > torch.finfo(torch.float32).tiny and x.any():
        assert small.float().abs().max() == LARGEST


def test_special_inputs() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        small, scale = to_e4m3(torch.tensor([[0.0, -0.0]], dtype=dtype))
        assert scale.tolist() == [1.0] and small.view(torch.uint8).tolist() == [[0, 128]]
        small, scale = to_e4m3(torch.zeros(0, 3, dtype=dtype))
        assert small.shape == (0, 3) and scale.tolist() == [1.0]
        small, scale = to_e4m3(torch.tensor([1.0, math.nan], dtype=dtype))
        assert small.isnan().all() and scale.isnan().all()
        small, scale = to_e4m3(torch.tensor([1.0, -math.inf], dtype=dtype))
        assert bits(small).tolist() == [0, 127] and (small.float() * scale).isnan().all()


def test_what_a_known_scale_does_not_hold() -> None:
    x = torch.tensor([448.0, 450.0, -60000.0, math.inf, -math.inf, math.nan, 0.0], dtype=torch.float16)
    assert bits(to_e4m3_with(x, torch.ones(1))).tolist() == [126, 126, 254, 126, 254, 127, 0]


# ------------------------------------------------------------------------------------------------------------- kernels


@example(300, -37.0, torch.bfloat16, 2, 32, None, 0)  # by the least scale
@example(300, 38.5, torch.bfloat16, 2, 32, None, 0)
@given(st.integers(0, 700), st.floats(-42, 38), DTYPES, st.sampled_from([1, 2, 4]), st.sampled_from([32, 128]),
       st.sampled_from([None, 0.0, 3e38, math.nan, math.inf, -math.inf]), st.integers(0, 2**31 - 1))
def test_the_kernels(count: int, size: float, dtype: torch.dtype, programs: int, chunk: int, one: float | None, seed: int) -> None:
    """Bit for bit; ``one``: what a number somewhere is, all others being zero where it is."""
    x = drawn(count, size, dtype, seed)
    if one is not None and count:
        x = torch.zeros_like(x) if one == 0 else x
        x[seed % count] = max(-6e4, min(6e4, one)) if dtype == torch.float16 and math.isfinite(one) else one
    with np.errstate(invalid="ignore"):  # infinity times zero
        y, scale = found_by_kernels(x, programs, chunk)
    small, expected = to_e4m3(x)
    assert torch.equal(bits(y), bits(small))
    torch.testing.assert_close(scale, expected, rtol=0, atol=0, equal_nan=True)


@given(st.integers(0, 700), st.floats(-6, 4), DTYPES, st.sampled_from([1, 3]), st.sampled_from([32, 128]),
       st.sampled_from([0.0, 1.0, math.nan, math.inf]), st.floats(2.0**-126, 2.0**126, width=32), st.integers(0, 2**31 - 1))
def test_the_kernel_by_a_known_scale(count: int, size: float, dtype: torch.dtype, programs: int, chunk: int, one: float,
                                     scale: float, seed: int) -> None:
    x, y, guarded = drawn(count, size, dtype, seed), Bytes(count), Guarded((1, max(1, count)), dtype)
    x[:1] = one
    given = torch.tensor([scale])
    with np.errstate(over="ignore"):  # to infinity, which becomes 448
        launch_by_scale(guarded.inside[0, :count].copy_(x), y.inside, given, programs, chunk)
    assert torch.equal(bits(y.inside), bits(to_e4m3_with(x, given))) and y.untouched() and guarded.untouched()


def test_products_with_the_reciprocal() -> None:
    """39 ÷ (52 ÷ 448) is 336, in the middle of 320 and 352, and the even one is 320; 39 · (448 ÷ 52) is a bit more in float32."""
    x = torch.tensor([52, 39]).bfloat16()
    assert to_e4m3(x)[0].tolist() == found_by_kernels(x, 1, 32)[0].tolist() == [448, 352]


def test_the_kernels_as_shipped() -> None:
    """More chunks than programs would take a minute here: a few, with the last one ragged, and most programs without any."""
    x = drawn(5 * CHUNK + 177, 0.0, torch.bfloat16, 1)
    y, scale = found_by_kernels(x, PROGRAMS, CHUNK)
    small, expected = to_e4m3(x)
    assert torch.equal(y.view(torch.uint8), small.view(torch.uint8)) and torch.equal(scale, expected)


def test_each_walk_turns_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first begins with what was written last, the second with what the first has read last."""
    x, y, scale, partials = torch.zeros(100).bfloat16(), torch.zeros(100).to(E4M3), torch.ones(1), torch.zeros(1, dtype=torch.int32)
    builder, places = interpreter.InterpreterBuilder, []
    load = builder.create_masked_load

    def seen(self: Any, pointers: Any, *rest: Any) -> Any:
        places.append((int(pointers.data.flat[0]) - x.data_ptr()) // 64)
        return load(self, pointers, *rest)

    def walk(launch: Callable[..., None], *arguments: Any) -> list[int]:
        places.clear()
        launch(*arguments, chunk=32)
        return [place for place in places if 0 <= place < 4]  # not those of the scale and of the partials

    monkeypatch.setattr(builder, "create_masked_load", seen)
    assert walk(launch_largest, x, partials) == [3, 2, 1, 0]
    assert walk(launch_by_largest, x, y, scale, partials) == [0, 1, 2, 3]
    assert walk(launch_by_scale, x, y, scale, 1) == [3, 2, 1, 0]


def test_the_same_constants() -> None:
    assert kernels.LARGEST.value == LARGEST and kernels.TINY.value == torch.finfo(torch.float32).tiny


# ----------------------------------------------------------------------------------------------------------- operators


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_they_are_operators_of_pytorch(dtype: torch.dtype) -> None:
    x = drawn(96, 0.0, dtype, 0).reshape(2, 3, 16)
    torch.library.opcheck(torch.ops.zellige.to_e4m3, (x,))
    torch.library.opcheck(torch.ops.zellige.to_e4m3_with, (x, torch.ones(1)))

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        small, scale = to_e4m3(x)
        return small, to_e4m3_with(x, 2 * scale)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")(x)
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(compiled, both(x), strict=True))


ROW = torch.zeros(4, 16).bfloat16()


@pytest.mark.parametrize("call, said", [
    (lambda: to_e4m3(ROW.float()), "bfloat16 or float16, not torch.float32"), (lambda: to_e4m3(ROW.T), "call contiguous()"),
    (lambda: to_e4m3(ROW[:, 1:]), "call contiguous()"), (lambda: to_e4m3_with(ROW.double(), torch.ones(1)), "not torch.float64"),
    (lambda: to_e4m3_with(ROW, torch.ones(2)), "one number of torch.float32 on cpu, not [2]"),
    (lambda: to_e4m3_with(ROW, torch.ones(1).half()), "not [1] of torch.float16"),
    (lambda: operators._check_scale(torch.ones(1), torch.device("cuda", 1)), "on cuda:1, not [1] of torch.float32 on cpu"),
    (lambda: operators._check(ROW.to("meta")), "on a GPU or a CPU, not on meta"),
])
def test_refusals(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        call()


def test_gpus_that_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        dtype, device, is_contiguous = torch.bfloat16, torch.device("cuda", 0), staticmethod(lambda: True)

    monkeypatch.setattr(operators, "capability_of", lambda device: 89)
    with pytest.raises(CompileError, match=r"9.0 or later; cuda:0 has 8.9. Multiply in torch.bfloat16"):
        operators._check(OnGpu())  # type: ignore[arg-type]
