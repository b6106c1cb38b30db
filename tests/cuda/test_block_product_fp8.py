"""The product of blocks in e4m3: run on an emulated GPU against float64, and compiled for a real one; weights rounded to e4m3; the
layer made of both."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from block_weights import random_blocks
from emulated_kernel import emulated_blocks, needs_compiler, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vector_weights import FUNCTIONS, relative_error

import zellige.cuda.layers.fp8
from zellige.cuda.kernels.launch import Boxes, _tensor_map
from zellige.cuda.layers.fp8 import Fp8BlockLinear, input_scale
from zellige.cuda.operators import block_product
from zellige.cuda.operators.block_product import ENTRY, ROWS, BlockKernel
from zellige.cuda.operators.block_product import multiply as multiply_blocks
from zellige.cuda.operators.block_product_fp8 import STEP, multiply
from zellige.cuda.operators.e4m3 import to_e4m3
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.scaled_tiles import E4M3, ScaledTiles, quantize
from zellige.cuda.tiling.tiles import Tiles, cut_tiles, expand
from zellige.errors import CompileError, InputError

WIDE, MIDDLE, NARROW = BlockKernel(256, 3, 2), BlockKernel(192, 4, 1), BlockKernel(128, 2, 16)
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Of the result: half a unit in the last of 8 or 11 bits, at most."""

SUMS = 2**-18
"""What sums in float32 add, as a share of all magnitudes that are added."""

GELU = 2**-12
"""What GELU adds, as a share of what goes into it (``activation.cuh``)."""

TINY = {torch.bfloat16: 0.0, torch.float16: 2**-25}
"""Half of the smallest step of the result's type."""


def on_cpu(weight: Tensor) -> ScaledTiles:
    return quantize(DeviceTiles.upload(cut_tiles(weight.float().numpy(), ROWS, STEP, STEP), "cpu", weight.dtype))


def matrix(weight: ScaledTiles) -> Tensor:
    """What the tiles stand for, rows × columns in float64."""
    form = weight.tiles
    values = form.values.double().numpy().reshape(-1, form.tile, form.step)
    tiles = Tiles(form.shape, form.tile, form.unit, form.step, form.rows.numpy(), np.array(form.starts), form.units.numpy(), values)
    return torch.from_numpy(expand(tiles)) * weight.scales.double()[:, None]


def uneven(rows: int, columns: int, density: float, dropped: float, dtype: torch.dtype, seed: int) -> Tensor:
    """A weight in blocks whose rows differ in size by four decimal places."""
    weight = random_blocks(rows, columns, density, dropped, torch.float64, seed, STEP)
    return (weight * 10 ** torch.from_numpy(np.random.default_rng(seed).uniform(-2, 2, (rows, 1)))).to(dtype)


def among_nan(numbers: Tensor, before: int = 8, behind: int = 8) -> Tensor:
    """The same numbers, in memory between others that must not be read."""
    whole = torch.full((*numbers.shape[:-1], before + numbers.shape[-1] + behind), torch.nan).to(numbers.dtype)
    whole[..., before:before + numbers.shape[-1]] = numbers
    return whole[..., before:before + numbers.shape[-1]]


def check(
    kernel: BlockKernel, rows: int, columns: int, tokens: int, density: float, dropped: float, dtype: torch.dtype,
    with_bias: bool, with_residual: bool, activation: str, lazy: bool, seed: int, edit: tuple[str, str] | None = None,
) -> None:  # fmt: skip
    weight = on_cpu(uneven(rows, columns, density, dropped, dtype, seed))
    generator = torch.Generator().manual_seed(seed)
    small, scale = to_e4m3((3 * torch.randn(tokens, columns, generator=generator)).to(dtype))
    x = among_nan(small, 16, 16 + -columns % 16)
    bias = torch.randn(rows, generator=generator).to(dtype) if with_bias else None
    residual = torch.randn(tokens, rows, generator=generator).to(dtype) if with_residual else None
    scales = scale, among_nan(weight.scales)
    y = emulated_blocks(kernel, weight.tiles, x, bias, residual, activation, lazy, seed, edit, dtype, scales)

    exact, wide = matrix(weight), small.double() * scale.double()
    added = torch.zeros(tokens, rows, dtype=torch.float64)
    added = added if bias is None else added + bias.double()
    added = added if residual is None else added + residual.double()
    before = wide @ exact.T + added
    expected = FUNCTIONS[None if activation == "none" else activation](before)
    allowed = ROUNDING[dtype] * expected.abs() + SUMS * (wide.abs() @ exact.abs().T + added.abs()) + TINY[dtype]
    if activation == "gelu":
        allowed += GELU * before.abs()
    assert ((y.double() - expected).abs() <= 1.01 * allowed).all()


CASES = [
    (WIDE, 256, 400, 300, 0.5, 0.0, torch.bfloat16, True, True, "gelu"),
    (MIDDLE, 264, 520, 400, 0.4, 0.3, torch.float16, True, True, "silu"),
    (NARROW, 128, 1400, 137, 0.9, 0.0, torch.bfloat16, False, False, "relu"),
    (NARROW, 16, 64, 1, 0.0, 0.0, torch.bfloat16, True, True, "none"),
]


@needs_compiler
@pytest.mark.parametrize("lazy", [False, True], ids=["at-once", "when-waited-for"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_on_an_emulated_gpu(case: tuple, lazy: bool) -> None:
    check(*case, lazy, seed=7)


@needs_compiler
@pytest.mark.full
@settings(max_examples=60)
@given(st.sampled_from([WIDE, MIDDLE, NARROW]), st.integers(1, 50), st.integers(1, 600), st.integers(1, 600), st.floats(0, 1),
       st.sampled_from([0.0, 0.3]), st.booleans(), st.booleans(), st.sampled_from(["none", "gelu"]), st.booleans(),
       st.integers(0, 2**31 - 1))
def test_any_shape_on_an_emulated_gpu(kernel: BlockKernel, eights: int, columns: int, tokens: int, density: float, dropped: float,
                                      with_bias: bool, with_residual: bool, activation: str, lazy: bool, seed: int) -> None:
    check(kernel, 8 * eights, columns, tokens, density, dropped, torch.bfloat16, with_bias, with_residual, activation, lazy, seed)


BROKEN = [
    ("*x_scale * row_scales[row]", "row_scales[row]"),
    ("*x_scale * row_scales[row]", "*x_scale * row_scales[0]"),
    ("blocks.scale_of(row_of[8])", "blocks.scale_of(row_of[0])"),
    ("both[1] * scales[i % 2]", "both[1] * scales[0]"),
    ("b + (byte >> 4)", "b + (byte >> 5)"),
    ("byte < LINE_BYTES; byte += 32", "byte < LINE_BYTES; byte += 64"),
    ("barrier_wait(shared.full(ring.stage), ring.parity);", ""),
    ("wait_for_products<IN_FLIGHT>(sums);", ""),
]


@needs_compiler
@pytest.mark.full
@pytest.mark.parametrize("edit", BROKEN)
def test_the_emulated_gpu_sees_a_broken_kernel(edit: tuple[str, str]) -> None:
    cases = (*CASES[1:3], (NARROW, 248, 520, 300, 0.7, 0.02, torch.bfloat16, True, True, "none"))
    assert not survives(check, cases, edit, seeds=1)


def test_what_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of 128 bytes in rows, the scales behind all else, no halves, and code for e4m3, of the operator itself."""
    given: list[Any] = []
    monkeypatch.setattr(block_product.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=3))
    monkeypatch.setattr(block_product, "check_hopper", lambda device, instead: None)
    monkeypatch.setattr(block_product, "loaded", lambda source, name, defines, *_: (source, dict(defines)))
    monkeypatch.setattr(block_product, "launch", lambda *arguments: given.extend(arguments))
    weight, (small, scale) = on_cpu(uneven(136, 272, 0.5, 0.0, torch.bfloat16, 0)), to_e4m3(torch.randn(5, 272).bfloat16())
    y = multiply(weight, small, scale, activation="silu", dtype=torch.float16, kernel=MIDDLE)
    (source, defines), _, _, _, arguments, _ = given
    assert y.shape == (5, 136) and y.dtype == torch.float16 and source == f"{ENTRY}.cu"
    assert defines == {"BFLOAT16": 0, "E4M3": 1, "TWO_FOUR": 0, "PAIRED": 0, "TOKENS": 192, "STAGES": 4, "ACTIVATION": 3}
    text = files("zellige.cuda.kernels").joinpath(source).read_text()
    parameters = re.search(ENTRY + r"\((.*?)\)\n", text, re.DOTALL)
    assert parameters and len(parameters[1].split(",")) == len(arguments)
    assert parameters[1].endswith("const float* x_scale, const float* row_scales, const int* halves")
    *_, first, second, halves = arguments
    assert [first.data_ptr(), second.data_ptr(), halves] == [scale.data_ptr(), weight.scales.data_ptr(), None]
    result = torch.float16, 192
    assert [(box.matrix.dtype, box.rows) for box in arguments[:4]] == [(E4M3, 192), (E4M3, 128), result, result]
    empty = multiply(weight, small[:0], scale)
    assert empty.shape == (0, 136) and len(given) == 6


def test_what_the_driver_is_told() -> None:
    """Bytes, whatever they stand for (CUDA driver API, cuTensorMapEncodeTiled)."""
    driver = pytest.importorskip("cuda.bindings.driver", reason="tensor maps are encoded by the driver's Python bindings")
    told: list[Any] = []

    class Driver:
        def __getattr__(self, name: str) -> Any:
            return getattr(driver, name)

        def cuTensorMapEncodeTiled(self, *arguments: Any) -> tuple[int, Any]:  # noqa: N802 (the driver's name)
            told.extend(arguments)
            return 0, SimpleNamespace(opaque=list(range(16)))

    x = torch.zeros(5, 288).to(E4M3)[:, :272]
    _tensor_map(Driver(), Boxes(x, 192))
    kind, rank, address, sizes, strides, box, steps, *_ = told
    assert (kind, rank, address) == (driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, x.data_ptr())
    assert [[int(one) for one in several] for several in (sizes, strides, box, steps)] == [[272, 5], [288], [128, 192], [1, 1]]


NUMBERS = torch.arange(256, dtype=torch.uint8).view(E4M3).double()
NUMBERS = NUMBERS[~NUMBERS.isnan()]


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 300), st.floats(-30, 20), st.integers(0, 2**31 - 1))
def test_a_weight_is_rounded_to_the_nearest(rows: int, columns: int, size: float, seed: int) -> None:
    """Every number, over its row's scale, becomes the nearest of the 253 that e4m3 has; the largest of a row becomes 448."""
    weight = uneven(rows, columns, 0.8, 0.2, torch.float64, seed)
    weight = (weight * 10**size).bfloat16()
    found = on_cpu(weight)
    assert found.tiles.values.dtype == E4M3 and (found.scales > 0).all() and (found.scales[~weight.any(1)] == 1).all()
    scales = found.scales.double()[:, None]
    quotient, made = weight.double() / scales, matrix(found) / scales
    nearest = (quotient[..., None] - NUMBERS).abs().amin(-1)
    assert ((quotient - made).abs() <= nearest + 2**-20 * quotient.abs()).all()
    assert (made.abs().amax(1)[weight.any(1)] == 448).all()


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_a_weight_that_is_not_finite_is_refused(number: float) -> None:
    weight = torch.ones(16, 16).bfloat16()
    weight[3, 4] = number
    with pytest.raises(CompileError, match="not finite"):
        on_cpu(weight)


@needs_compiler
def test_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off from the product in full by the rounding of both operands: a relative 2⁻⁴ at most each, a third of that on average."""

    def emulated(weight: ScaledTiles, x: Tensor, x_scale: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str,
                 dtype: torch.dtype, kernel: BlockKernel) -> Tensor:
        return emulated_blocks(kernel, weight.tiles, x, bias, residual, activation, False, 0, None, dtype, (x_scale, weight.scales))

    monkeypatch.setattr(zellige.cuda.layers.fp8, "multiply", emulated)
    weight, bias = uneven(136, 272, 0.5, 0.0, torch.bfloat16, 3), torch.randn(136).bfloat16()
    x, residual = torch.randn(2, 5, 272).bfloat16(), torch.randn(2, 5, 136).bfloat16()
    module = Fp8BlockLinear(weight, bias, "relu", NARROW)
    expected = torch.relu(torch.nn.functional.linear(x.double(), weight.double(), bias.double()) + residual.double())
    y = module(x, residual)
    assert y.dtype == torch.bfloat16 and 1e-3 < relative_error(y, expected) < 0.05
    again = Fp8BlockLinear(2 * weight, -bias, "relu", NARROW)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(x, residual), y)
    known = Fp8BlockLinear(weight, bias, "relu", NARROW, input_scale([x, x / 2]))
    assert torch.equal(known(x, residual), y) and "one scale" in str(known) and "one scale" not in str(module)
    assert torch.equal(known(2 * x), known((2 * x).clamp(-x.abs().max(), x.abs().max())))
    with pytest.raises(RuntimeError, match="x_scale"):
        module.load_state_dict(known.state_dict())


@pytest.mark.parametrize("x_scale, operator", [(None, "zellige.to_e4m3.default"), (0.5, "zellige.to_e4m3_with.default")])
def test_it_passes_through_export(x_scale: float | None, operator: str) -> None:
    module = Fp8BlockLinear(random_blocks(128, 256, 0.5, 0.0, torch.bfloat16, 0, STEP), activation="gelu", x_scale=x_scale)
    program = torch.export.export(module, (torch.zeros(3, 4, 256, dtype=torch.bfloat16),))
    assert "zellige.block_product_fp8" in str(program.graph) and operator in str(program.graph)
    made = next(iter(program.graph.output_node().args[0])).meta["val"]  # type: ignore[union-attr,arg-type]
    assert made.shape == (3, 4, 128) and made.dtype == torch.bfloat16


@pytest.mark.parametrize("x, residual, said", [
    (torch.zeros(3, 256).bfloat16(), torch.zeros(128, 3).bfloat16(), r"residual must be \[3, 128\]"),
    (torch.zeros(3, 128).bfloat16(), None, r"x must be \[3, 256\]"), (torch.zeros(3, 256), None, "not torch.float32"),
    (torch.zeros(3, 256).bfloat16(), torch.zeros(3, 128).half(), "residual .* not .* torch.float16"),
])
def test_what_does_not_fit_the_layer(x: torch.Tensor, residual: torch.Tensor | None, said: str) -> None:
    module = Fp8BlockLinear(random_blocks(128, 256, 0.5, 0.0, torch.bfloat16, 0, STEP))
    with pytest.raises(InputError, match=said):
        module(x, residual)


@pytest.mark.parametrize("x_scale", [0.0, -1.0, float("nan"), float("inf"), 1e-40])
def test_scales_that_are_none(x_scale: float) -> None:
    with pytest.raises(InputError, match="between 2⁻¹²⁶ and 2¹²⁶"):
        Fp8BlockLinear(torch.ones(128, 128).bfloat16(), x_scale=x_scale)


@pytest.mark.parametrize("examples", [[], [torch.zeros(0)], [torch.zeros(3)], [torch.ones(3), torch.tensor([torch.inf])],
                                      [torch.tensor([1.0, torch.nan])]])
def test_examples_without_a_scale(examples: list[Tensor]) -> None:
    with pytest.raises(InputError, match="finite numbers, not all of them zero"):
        input_scale(examples)


@given(st.integers(1, 50), st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 2**31 - 1))
def test_the_scale_of_examples_is_that_of_the_largest(count: int, dtype: torch.dtype, seed: int) -> None:
    examples = torch.randn(3, count, generator=torch.Generator().manual_seed(seed)).to(dtype)
    assert torch.tensor([input_scale(examples)]).equal(to_e4m3(examples)[1])  # rounded to float32, as the layer has it


def test_refusals() -> None:
    plain = DeviceTiles.upload(cut_tiles(np.ones((128, 128), np.float32), ROWS, STEP, STEP), "cpu", torch.bfloat16)
    weight, x, one = quantize(plain), torch.zeros(4, 128).to(E4M3), torch.ones(1)
    half = DeviceTiles.upload(cut_tiles(np.ones((128, 128), np.float32), ROWS, 64, 64), "cpu", torch.bfloat16)
    with pytest.raises(CompileError, match="NVIDIA GPU"):
        multiply(weight, x, one)
    with pytest.raises(InputError, match="quantize it"):
        multiply(ScaledTiles(plain, weight.scales), x, one)
    with pytest.raises(InputError, match=r"x_scale must be 1 of torch.float32"):
        multiply(weight, x, torch.ones(2))
    with pytest.raises(InputError, match=r"the weight's scales must be 128"):
        multiply(replace(weight, scales=torch.ones(128).double()), x, one)
    with pytest.raises(InputError, match="x must be"):
        multiply(weight, x.bfloat16(), one)
    with pytest.raises(InputError, match="bias must be"):
        multiply(weight, x, one, torch.zeros(128))
    with pytest.raises(InputError, match="bfloat16 or float16"):
        multiply(weight, x, one, dtype=torch.float32)
    with pytest.raises(InputError, match="128 rows × 128 columns"):
        multiply(quantize(half), x, one)
    with pytest.raises(InputError, match="multiples of 16 bytes"):
        multiply(weight, torch.zeros(4, 129).to(E4M3)[:, 1:], one)
    with pytest.raises(InputError, match="not in torch"):
        multiply_blocks(weight.tiles, x)
    for other in (torch.zeros(12, 16).bfloat16(), torch.zeros(16, 24).bfloat16(), torch.zeros(16, 16)):
        with pytest.raises(CompileError, match="multiple of 8 rows and of 16 columns"):
            Fp8BlockLinear(other)
