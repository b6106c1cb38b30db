"""The product of blocks: run on an emulated GPU against float64, and compiled for a real one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from block_weights import random_blocks
from emulated_kernel import emulated_blocks, needs_compiler, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_weights import reference, relative_error

from zellige.cuda.operators.block_product import ROWS, STEP, BlockKernel, multiply, schedule, suits
from zellige.cuda.tiling.compressed_blocks import compressed
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import cut_tiles
from zellige.errors import CompileError, InputError

WIDE, MIDDLE, NARROW = BlockKernel(256, 3, 2), BlockKernel(192, 4, 1), BlockKernel(128, 2, 16)
TOLERANCE = {torch.bfloat16: 1.05 * 2**-8, torch.float16: 1.05 * 2**-11}
"""One rounding of the result: at most half a unit in the last of 8 or 11 bits; sums in float32 add next to nothing."""


def on_cpu(weight: torch.Tensor) -> DeviceTiles:
    return DeviceTiles.upload(cut_tiles(weight.float().numpy(), ROWS, STEP, STEP), "cpu", weight.dtype)


def check(
    kernel: BlockKernel, rows: int, columns: int, tokens: int, density: float, dropped: float, dtype: torch.dtype,
    with_bias: bool, with_residual: bool, activation: str, two_four: bool, lazy: bool, seed: int,
    edit: tuple[str, str] | None = None,
) -> None:  # fmt: skip
    weight = random_blocks(rows, columns, density, dropped, dtype, seed, two_four=two_four)
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(tokens, columns + -columns % 8 + 8, generator=generator).to(dtype)
    x = wide[:, :columns]
    bias = torch.randn(rows, generator=generator).to(dtype) if with_bias else None
    residual = torch.randn(tokens, rows, generator=generator).to(dtype) if with_residual else None
    tiles = compressed(on_cpu(weight)) if two_four else on_cpu(weight)
    y = emulated_blocks(kernel, tiles, x, bias, residual, activation, lazy, seed, edit, dtype)
    exact = reference(weight, x.T, bias, None if residual is None else residual.T, None if activation == "none" else activation)
    assert relative_error(y.T, exact) < TOLERANCE[dtype]


CASES = [
    (WIDE, 256, 200, 300, 0.5, 0.0, torch.bfloat16, True, True, "gelu", False),
    (MIDDLE, 264, 520, 400, 0.4, 0.3, torch.float16, True, True, "silu", False),
    (NARROW, 128, 2300, 137, 0.9, 0.0, torch.bfloat16, False, False, "relu", False),
    (NARROW, 16, 64, 1, 0.0, 0.0, torch.bfloat16, True, True, "none", False),
    (WIDE, 256, 200, 300, 0.5, 0.0, torch.bfloat16, True, True, "gelu", True),
    (MIDDLE, 264, 520, 400, 0.4, 0.3, torch.float16, True, True, "silu", True),
    (NARROW, 128, 2300, 137, 0.9, 0.0, torch.bfloat16, False, False, "relu", True),
    (NARROW, 16, 64, 1, 0.0, 0.0, torch.bfloat16, True, True, "none", True),
]


@needs_compiler
@pytest.mark.parametrize("lazy", [False, True], ids=["at-once", "when-waited-for"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_on_an_emulated_gpu(case: tuple, lazy: bool) -> None:
    check(*case, lazy, seed=7)


@needs_compiler
@pytest.mark.full
@settings(max_examples=60)
@given(st.sampled_from([WIDE, MIDDLE, NARROW]), st.integers(1, 50), st.integers(1, 400), st.integers(1, 600), st.floats(0, 1),
       st.sampled_from([0.0, 0.3]), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31 - 1))
def test_any_shape_on_an_emulated_gpu(kernel: BlockKernel, eights: int, columns: int, tokens: int, density: float, dropped: float,
                                      with_bias: bool, with_residual: bool, two_four: bool, lazy: bool, seed: int) -> None:
    check(kernel, 8 * eights, columns, tokens, density, dropped, torch.bfloat16, with_bias, with_residual, "gelu", two_four, lazy,
          seed)


BROKEN = [
    ("barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);", ""),
    ("barrier_wait(shared.full(ring.stage), ring.parity);", ""),
    ("barrier_wait(shared.ready(group), turn);", ""),
    ("barrier_wait(shared.written(group), turn);", ""),
    ("wait_for_products<IN_FLIGHT>(sums);", ""),
    ("wait_for_products<0>(sums);\n        if (IN_FLIGHT", "if (IN_FLIGHT"),
    ("if (lane == 0) wait_for_sent_boxes();", ""),
    ("show_tensor_cores(); ", ""),
    ("IN_FLIGHT ? before : ring.stage", "ring.stage"),
    ("shared.empty(stage), MULTIPLYING_WARPS)", "shared.empty(stage), 1)"),
    ("MULTIPLYING_WARPS / 2);", "1);"),
    ("warp / 4 * (64 * 128)", "0"),
    ("b + (byte >> 4)", "b"),
    ("chunk ^ token & 7", "chunk"),
    ("eight + matrix / 2", "eight + matrix % 2"),
    ("values, place.first + some + i, share", "values, place.first + some, share"),
    ("(first + i < row_count ? first + i : -1)", "rows[i]"),
    ("all_of_warp(together)", "true"),
    ("if (row >= 0) line[row] =", "line[row] ="),
    ("show_barriers();", ""),
    ("// and boxes that are sent\n        __syncwarp();", ""),
    ("residual_stride, left);\n                    __syncwarp();", "residual_stride, left);"),
    ("    begin_products();\n#pragma unroll", "#pragma unroll"),
]

BROKEN_TWO_FOUR = [
    ("wait_for_products<IN_FLIGHT>(sums);", ""),
    ("IN_FLIGHT && (PAIRED", "(PAIRED"),
    ("multiply_group<1, 0>", "multiply_group<0, 0>"),
    ("b + (LINE_BYTES / 2 >> 4)", "b"),
    ("load_16(values + VALUE_BYTES / 2)", "first"),
    ("VALUE_BYTES + (warp * 32 + lane) * 4", "VALUE_BYTES + lane * 4"),
    ("(long long)step * W_BYTES", "(long long)step * VALUE_BYTES"),
    ("TWO_FOUR ? VALUE_BYTES + METADATA_BYTES", "TWO_FOUR ? VALUE_BYTES"),
    ("begin_products();\n    multiply_group<0, 0>", "multiply_group<0, 0>"),
    ("TWO_FOUR ? 0 : 1", "1"),
]
"""The last: compilers load the next step's fragments into the registers of the one before, which products in flight read."""


@needs_compiler
@pytest.mark.full
@pytest.mark.parametrize("two_four, edit", [*((False, edit) for edit in BROKEN), *((True, edit) for edit in BROKEN_TWO_FOUR)])
def test_the_emulated_gpu_sees_a_broken_kernel(two_four: bool, edit: tuple[str, str]) -> None:
    cases = (*CASES[1:3], (NARROW, 248, 520, 300, 0.7, 0.02, torch.bfloat16, True, True, "none", False))
    assert not survives(check, [(*case[:-1], two_four) for case in cases], edit)


def test_schedules_are_of_all_tiles_longest_first() -> None:
    assert schedule((0, 0, 5, 7)).tolist() == [[1, 0, 5], [2, 5, 2], [0, 0, 0]]


def test_it_passes_through_export() -> None:
    """Its result's shape is known without running it."""
    weight = on_cpu(random_blocks(128, 128, 0.5, 0.0, torch.bfloat16, 0))

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return multiply(weight, x, activation="gelu")

    program = torch.export.export(Layer(), (torch.zeros(4, 128, dtype=torch.bfloat16),))
    assert "zellige.block_product" in str(program.graph)
    assert next(iter(program.graph.output_node().args[0])).meta["val"].shape == (4, 128)  # type: ignore[union-attr,arg-type]


def test_refusals() -> None:
    weight = on_cpu(random_blocks(128, 128, 0.5, 0.0, torch.bfloat16, 0))
    x = torch.zeros(4, 128, dtype=torch.bfloat16)
    assert suits(weight, x)
    with pytest.raises(CompileError, match="NVIDIA GPU"):
        multiply(weight, x)
    columns = DeviceTiles.upload(cut_tiles(np.eye(128, dtype=np.float32)), "cpu", torch.bfloat16)
    for other, y in ((columns, x), (weight, torch.zeros(4, 129, dtype=torch.bfloat16)[:, 1:]), (weight, torch.zeros(4, 128))):
        with pytest.raises(InputError):
            multiply(other, y)


def test_a_misaligned_start_is_called_that() -> None:
    """Lines that lie a multiple of 16 bytes apart, and begin two bytes behind one."""
    weight = on_cpu(random_blocks(128, 128, 0.5, 0.0, torch.bfloat16, 0))
    x = torch.zeros(4 * 128 + 1, dtype=torch.bfloat16)[1:].view(4, 128)
    with pytest.raises(InputError, match="x's begin 2 bytes behind one and lie 256 apart; copy them"):
        multiply(weight, x)
