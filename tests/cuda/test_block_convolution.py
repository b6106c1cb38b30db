"""Convolution in blocks: run on an emulated GPU against float64, and compiled for a real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from block_weights import ROWS_OF, filters_in
from emulated_kernel import emulated_convolution, needs_compiler, survives
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_block_product import BROKEN as BROKEN_PRODUCTS
from test_block_product import MIDDLE, NARROW, TOLERANCE, WIDE
from vector_weights import FUNCTIONS, relative_error

from zellige.cuda.kernels.launch import _pixel_map
from zellige.cuda.operators.block_convolution import (
    Corners,
    convolve,
    fits,
    pixel_boxes,
    suits,
)
from zellige.cuda.operators.block_product import ROWS, STEP, BlockKernel
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window
from zellige.errors import CompileError, InputError

SAME = Window((3, 3), padding=(1, 1))


def random_filters(rows: int, channels: int, window: Window, density: float, dropped: float, dtype: torch.dtype,
                   generator: torch.Generator, form: str = "plain") -> torch.Tensor:
    """Of which blocks of a form, of 64 channels of one tap, are left, and some rows are gone."""
    height = ROWS_OF[form]
    kept = torch.rand(-(-rows // height), -(-channels // STEP), *window.kernel, generator=generator) < density
    weight = torch.randn(rows, channels, *window.kernel, generator=generator)
    weight *= kept.repeat_interleave(height, 0).repeat_interleave(STEP, 1)[:rows, :channels]
    if form == "2:4":
        fours = torch.rand(rows, -(-channels // 4), 4, *window.kernel, generator=generator)
        weight *= (fours.argsort(2).argsort(2) < 2).flatten(1, 2)[:, :channels]
    return (weight * (torch.rand(rows, 1, 1, 1, generator=generator) >= dropped)).to(dtype)


def check(
    kernel: BlockKernel, rows: int, channels: int, shape: tuple[int, int, int], window: Window, density: float, dropped: float,
    dtype: torch.dtype, with_bias: bool, with_residual: bool, activation: str, form: str, lazy: bool, seed: int,
    edit: tuple[str, str] | None = None,
) -> None:  # fmt: skip
    """``shape``: images, height, width. What lies around the images, and between their pixels, is NaN."""
    generator = torch.Generator().manual_seed(seed)
    weight = random_filters(rows, channels, window, density, dropped, dtype, generator, form)
    tiles = filters_in(form, weight, window)
    around = torch.full((shape[0] + 2, *shape[1:], channels + -channels % 8 + 8), torch.nan, dtype=dtype)
    x = around[1:-1, ..., :channels]
    x.copy_(torch.randn(x.shape, generator=generator))
    bias = torch.randn(rows, generator=generator).to(dtype) if with_bias else None
    exact = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), None if bias is None else bias.double(),
                                       window.stride, window.padding, window.dilation).permute(0, 2, 3, 1)  # fmt: skip
    residual = torch.randn(exact.shape, generator=generator).to(dtype) if with_residual else None
    exact = FUNCTIONS[None if activation == "none" else activation](exact if residual is None else exact + residual.double())
    y = emulated_convolution(kernel, tiles, x, bias, residual, activation, lazy, seed, edit)
    assert relative_error(y, exact) < TOLERANCE[dtype]


CASES = [
    (WIDE, 256, 64, (3, 9, 11), SAME, 0.5, 0.0, torch.bfloat16, True, True, "gelu", "plain"),
    (MIDDLE, 136, 72, (2, 13, 16), Window((3, 2), (2, 1), (1, 0), (1, 3)), 0.6, 0.3, torch.float16, True, True, "silu", "plain"),
    (NARROW, 128, 136, (3, 15, 13), Window((1, 1), (2, 2)), 0.7, 0.0, torch.bfloat16, False, False, "relu", "plain"),
    (NARROW, 16, 64, (1, 1, 1), SAME, 0.0, 0.0, torch.bfloat16, True, True, "none", "plain"),
    (MIDDLE, 136, 72, (2, 13, 16), Window((3, 2), (2, 1), (1, 0), (1, 3)), 0.6, 0.3, torch.float16, True, True, "silu", "2:4"),
    (MIDDLE, 136, 72, (2, 13, 16), Window((3, 2), (2, 1), (1, 0), (1, 3)), 0.5, 0.3, torch.float16, True, True, "silu", "paired"),
]


@needs_compiler
@pytest.mark.parametrize("lazy", [False, True], ids=["at-once", "when-waited-for"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_on_an_emulated_gpu(case: tuple, lazy: bool) -> None:
    check(*case, lazy, seed=7)


def pair(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


WINDOWS = st.builds(Window, pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 3))


@needs_compiler
@pytest.mark.full
@settings(max_examples=120)
@given(st.sampled_from([WIDE, MIDDLE, NARROW]), st.integers(1, 34), st.integers(1, 20), st.integers(1, 4), pair(1, 17), WINDOWS,
       st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.0, 0.3]), st.booleans(), st.booleans(), st.sampled_from(list(ROWS_OF)),
       st.booleans(), st.integers(0, 2**31 - 1))
def test_any_shape_on_an_emulated_gpu(kernel: BlockKernel, eights: int, channels: int, images: int, sides: tuple[int, int],
                                      window: Window, density: float, dropped: float, with_bias: bool, with_residual: bool,
                                      form: str, lazy: bool, seed: int) -> None:
    assume(min(window.output(*sides)) > 0)
    check(kernel, 8 * eights, 8 * channels, (images, *sides), window, density, dropped, torch.bfloat16, with_bias, with_residual,
          "gelu", form, lazy, seed)


BROKEN = [
    *BROKEN_PRODUCTS,
    ("token % width * right - before", "token % width * right"),
    ("token % width * right", "token % width"),
    ("line % height * down - above", "line % height * down"),
    ("line / height}", "0}"),
    ("unit.tap & 0xffff, unit.tap >> 16", "unit.tap >> 16, unit.tap & 0xffff"),
    ("__shfl_sync(0xffffffffu, tap, lane)", "tap"),
    ("unit.channel, begin.left", "0, begin.left"),
    ("(lane < count ? lane : 0)", "0"),
]


@needs_compiler
@pytest.mark.full
@pytest.mark.parametrize("edit", BROKEN)
def test_the_emulated_gpu_sees_a_broken_kernel(edit: tuple[str, str]) -> None:
    last = NARROW, 248, 136, (2, 12, 11), SAME, 0.7, 0.02, torch.bfloat16, True, True, "none", "plain"
    assert not survives(check, (*CASES[1:3], last), edit)


def test_what_the_driver_is_told() -> None:
    """Innermost dimension first, and right before down (CUDA driver API, cuTensorMapEncodeIm2col)."""
    driver = pytest.importorskip("cuda.bindings.driver", reason="tensor maps are encoded by the driver's Python bindings")
    told: list[Any] = []

    class Driver:
        def __getattr__(self, name: str) -> Any:
            return getattr(driver, name)

        def cuTensorMapEncodeIm2col(self, *arguments: Any) -> tuple[int, Any]:  # noqa: N802 (the driver's name)
            told.extend(arguments)
            return 0, SimpleNamespace(opaque=list(range(16)))

    x = torch.zeros(2, 9, 7, 72, dtype=torch.bfloat16)[..., :64]
    window = Window((3, 5), (2, 1), (1, 0), (1, 2))
    assert list(_pixel_map(Driver(), pixel_boxes(x, window, NARROW))) == list(range(16))
    kind, rank, address, sizes, strides, lower, upper, channels, pixels, steps, *_ = told
    assert (kind, rank, address) == (driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, x.data_ptr())
    assert [int(size) for size in sizes] == [64, 7, 9, 2] and [int(stride) for stride in strides] == [144, 144 * 7, 144 * 63]
    assert (lower, upper, channels, pixels) == ([0, -1], [-8, -1], 64, NARROW.tokens)
    assert [int(step) for step in steps] == [1, 1, 2, 1]


@given(WINDOWS, pair(1, 40))
def test_corners_bound_the_beginnings_of_windows(window: Window, sides: tuple[int, int]) -> None:
    """As many steps fit between them as there are output pixels."""
    corners = Corners.of(window)
    made = window.output(*sides)
    for side, first, last, stride, count in zip(sides, corners.lower, corners.upper, window.stride, made, strict=True):
        assert len(range(first, side + last, stride)) == max(count, 0)


@pytest.mark.parametrize("window, able", [
    (SAME, True), (Window((1, 1), (2, 2)), True), (Window((3, 3), (8, 8), (128, 128), (64, 64)), True),
    (Window((3, 3), padding=(129, 0)), False), (Window((2, 2), dilation=(1, 129)), False), (Window((3, 3), stride=(9, 1)), False),
    (Window((257, 1), padding=(128, 0)), False),
])
def test_windows_that_fit(window: Window, able: bool) -> None:
    assert fits(window) == able


def filters(rows: int = 128, channels: int = 64, window: Window = SAME, group: int = STEP) -> ConvolutionTiles:
    return ConvolutionTiles.upload(torch.ones(rows, channels, *window.kernel, dtype=torch.bfloat16), window, ROWS, group, STEP)


def test_it_passes_through_export() -> None:
    """Its result's shape is known without running it."""
    weight = filters(window=Window((3, 3), (2, 1), (1, 1)))

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return convolve(weight, x, activation="gelu")

    program = torch.export.export(Layer(), (torch.zeros(2, 7, 9, 64, dtype=torch.bfloat16),))
    assert "zellige.block_convolution" in str(program.graph)
    assert next(iter(program.graph.output_node().args[0])).meta["val"].shape == (2, 4, 9, 128)  # type: ignore[union-attr,arg-type]


def test_refusals() -> None:
    x = torch.zeros(2, 7, 9, 64, dtype=torch.bfloat16)
    assert suits(filters(), x)
    with pytest.raises(CompileError, match="NVIDIA GPU"):
        convolve(filters(), x)
    wide = torch.zeros(2, 7, 9, 68, dtype=torch.bfloat16)
    for weight, y in ((filters(group=8), x), (filters(rows=100), x), (filters(), wide[..., :64]), (filters(), wide[..., 4:]),
                      (filters(window=Window((3, 3), (9, 9), (1, 1))), x), (filters(channels=60), wide[..., :60])):
        assert not suits(weight, y)
        with pytest.raises(InputError, match=r"expected blocks of 128 rows × 64 channels.*operators\.convolution"):
            convolve(weight, y)
    with pytest.raises(InputError, match="64 channels"):
        convolve(filters(), wide)
