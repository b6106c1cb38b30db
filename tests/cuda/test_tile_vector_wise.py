"""The tile-vector-wise kernels: run on an emulated GPU against float64, compiled for real ones."""

from __future__ import annotations

import pytest
import torch
from emulated_kernel import emulated, needs_compiler
from vector_weights import random_weight, reference, relative_error

from zellige.cuda.tile_vector_wise import Kernel
from zellige.cuda.vector_tiles import vector_tiles

MMA, WGMMA = Kernel("mma", tokens=128, stages=3), Kernel("wgmma", tokens=256, stages=5)

CASES = [
    # kernel, type, n, k, tokens, bias, residual, activation
    (MMA, torch.bfloat16, 300, 520, 136, True, True, "gelu"),
    (MMA, torch.bfloat16, 300, 520, 137, True, True, "gelu"),
    (MMA, torch.bfloat16, 130, 67, 1, False, False, "gelu"),
    (Kernel("mma", tokens=256, stages=4), torch.float16, 129, 333, 264, True, False, None),
    (WGMMA, torch.bfloat16, 300, 520, 264, True, True, "gelu"),
    (WGMMA, torch.bfloat16, 300, 520, 137, True, True, "gelu"),
    (Kernel("wgmma", tokens=128, stages=4), torch.float16, 129, 333, 264, True, False, None),
]


@needs_compiler
@pytest.mark.parametrize("lazy", [False, True], ids=["at once", "when waited for"])
@pytest.mark.parametrize("kernel, dtype, n, k, tokens, with_bias, with_residual, activation", CASES)
def test_the_kernel_on_an_emulated_gpu(
    kernel: Kernel, dtype: torch.dtype, n: int, k: int, tokens: int, with_bias: bool, with_residual: bool, activation: str | None,
    lazy: bool,
) -> None:  # fmt: skip
    torch.manual_seed(n + k)
    weight, columns = random_weight(n, k, dtype, seed=tokens)
    aligned = tokens % 8 == 0
    x = torch.randn(k, tokens).to(dtype)
    bias = torch.randn(n).to(dtype) if with_bias else None
    residual = torch.randn(n, tokens).to(dtype) if with_residual else None
    y = emulated(kernel, vector_tiles(weight, columns), x, bias, residual, activation, aligned, lazy, seed=7)
    # one rounding of the result: half a unit in the last of 8 (bf16) or 11 (fp16) bits; float32 sums are far below
    assert relative_error(y, reference(weight, x, bias, residual, activation)) < (2e-3 if dtype == torch.bfloat16 else 3e-4)
