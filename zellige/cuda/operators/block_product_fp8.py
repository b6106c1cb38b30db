"""The product of blocks of 128 × 128 in e4m3 on Hopper: Y = act(scale of X · scale of the row · (X · Wᵀ) + bias + residual).

A row of a box is 128 bytes, so a step takes twice the columns that it takes of numbers of 16 bits, by as many instructions: the
kernel is the same, ``block_product.cu``. X has one scale, as ``torch._scaled_mm`` has it (``e4m3.py``), W one for every row
(``tiling/scaled_tiles.py``); bias, residual and Y are bfloat16 or float16.

Hopper adds products of e4m3 up in fewer bits than float32 has. As others have measured it, about 14 bits of each product are kept,
shifted to the largest of those that are added at once (DeepSeek-AI, arXiv 2412.19437, section 3.5.2), and of a sum 13 bits behind
the first (SageAttention2, arXiv 2411.10958). cuBLAS leaves it at that with ``use_fast_accum``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zellige.cuda.operators.block_product import KERNELS, BlockKernel, check_suits, launch_product
from zellige.cuda.operators.product import check
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.scaled_tiles import E4M3, ScaledTiles
from zellige.errors import InputError

STEP = 128
"""Columns of a block."""

INSTEAD = "product, in bfloat16"
"""Who multiplies what this kernel can't, among the operators."""


def multiply(weight: ScaledTiles, x: Tensor, x_scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None,
             activation: str = "none", dtype: torch.dtype = torch.bfloat16, kernel: BlockKernel = KERNELS[0]) -> Tensor:
    """act(x_scale · scale of the row · (x · Wᵀ) + bias + residual) for x of tokens × columns in e4m3; tokens × rows of ``dtype``.

    ``x_scale``: float32, one number; ``bias``, ``residual``: of ``dtype``, bfloat16 or float16, to which results are rounded once.
    An operator of PyTorch's, ``zellige::block_product_fp8``, for inference. ``InputError`` for another shape, dtype or device
    and for what the kernel does not suit, ``CompileError`` where the GPU is too old to compile for.
    """
    tiles = weight.tiles
    numbers = [kernel.tokens, kernel.stages, kernel.width]
    return torch.ops.zellige.block_product_fp8(x, x_scale, tiles.values, weight.scales, tiles.units, tiles.rows, bias, residual,
                                               list(tiles.starts), list(tiles.shape), tiles.unit, activation, dtype, numbers)


@torch.library.custom_op("zellige::block_product_fp8", mutates_args=())
def _product(x: Tensor, x_scale: Tensor, values: Tensor, scales: Tensor, units: Tensor, rows: Tensor, bias: Tensor | None,
             residual: Tensor | None, starts: Sequence[int], shape: Sequence[int], unit: int, activation: str, dtype: torch.dtype,
             numbers: Sequence[int]) -> Tensor:
    tile = rows.numel() // (len(starts) - 1)
    weight = DeviceTiles((shape[0], shape[1]), tile, values.shape[1], unit, tuple(starts), values, units, rows)
    if values.dtype != E4M3:
        raise InputError(f"expected a weight in {E4M3}, not in {values.dtype}; quantize it by zellige.cuda.tiling.scaled_tiles")
    for name, scale, count in (("x_scale", x_scale, 1), ("the weight's scales", scales, shape[0])):
        if scale.dtype != torch.float32 or scale.numel() != count or scale.device != values.device or not scale.is_contiguous():
            raise InputError(f"{name} must be {count} of {torch.float32} side by side on {values.device}, "
                             f"not {list(scale.shape)} of {scale.dtype} on {scale.device}")
    check(weight, x, bias, residual, activation, False, False, dtype)
    check_suits(weight, x, residual, 1, INSTEAD)
    y = x.new_empty(x.shape[0], shape[0], dtype=dtype)
    if y.numel():
        launch_product(weight, x, y, bias, residual, activation, BlockKernel(*numbers), x_scale, scales)
    return y


@_product.register_fake
def _(x: Tensor, x_scale: Tensor, values: Tensor, scales: Tensor, units: Tensor, rows: Tensor, bias: Tensor | None,
      residual: Tensor | None, starts: Sequence[int], shape: Sequence[int], unit: int, activation: str, dtype: torch.dtype,
      numbers: Sequence[int]) -> Tensor:
    return x.new_empty(x.shape[0], shape[0], dtype=dtype)
