"""Whether the product of blocks from tensor maps is right on a GPU, over awkward shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
from gpu_contestants import DEVICE
from gpu_correctness import Case, verdict
from gpu_error import FUNCTIONS, checked_error
from gpu_masks import blocks, columns_only, tile_wise, two_of_four
from gpu_run import Run
from gpu_vectors import hopper

from zellige.cuda.kernels.cubins import Request
from zellige.cuda.layers.choosing import BY_BLOCKS, PAIRED, TWO_FOUR, tile_of
from zellige.cuda.layers.linear import upload
from zellige.cuda.operators.block_product import ARCHITECTURE, ENTRY, ROWS, STEP, BlockKernel, kernels, multiply

TOLERANCE = 5e-3  # one rounding to bfloat16, and sums in another order
SHAPES = ((1000, 777, 4095), (512, 2048, 64), (304, 257, 17), (128, 128, 1), (40, 4099, 130), (3072, 768, 8192))
"""Rows, columns and tokens."""


def correctness(run: Run) -> object:
    """Every kernel over every shape, with everything and with nothing beside the product, outputs poisoned beforehand."""
    if not hopper():
        return "for compute capability 9.0 alone"
    jobs = [(way, kernel) for way in BY_BLOCKS for kernel in kernels(way == TWO_FOUR)]
    return verdict(run, "products of blocks", kernel_cases, jobs, TOLERANCE)


def requests() -> Iterator[Request]:
    """The machine code of all of them."""
    for way, activation in product(BY_BLOCKS, FUNCTIONS):
        for kernel in kernels(way == TWO_FOUR):
            yield Request(f"{ENTRY}.cu", ARCHITECTURE, kernel.defines(torch.bfloat16, activation, two_four=way == TWO_FOUR,
                                                                      paired=way == PAIRED))


def kernel_cases(job: tuple[str, BlockKernel]) -> list[Case]:
    way, kernel = job
    found = []
    for number, (rows, columns, tokens) in enumerate(SHAPES):
        for plain in (False, True):
            error = case_error(rows, columns, tokens, kernel, plain, way, list(FUNCTIONS)[number % len(FUNCTIONS)], number)
            found.append((f"{rows}x{columns}x{tokens} {kernel} plain={plain} {way}", error))
    return found


def case_error(rows: int, columns: int, tokens: int, kernel: BlockKernel, plain: bool, way: str, activation: str,
               seed: int) -> float:
    """``way``: the form of the blocks, and what they are."""
    generator = torch.Generator().manual_seed(seed)
    whole = columns // 64 * 64
    draws = (lambda: blocks(rows, columns, 0.5, generator, tile_of(way, ROWS)), lambda: tile_wise(rows, columns, 0.5, generator),
             lambda: torch.nn.functional.pad(columns_only(rows, whole, 0.7, generator, 64), (0, columns - whole)))
    mask = draws[seed % 3]()
    mask = two_of_four(mask, generator) if way == TWO_FOUR else mask
    weight = (torch.randn(rows, columns, device=DEVICE) * mask.to(DEVICE) / math.sqrt(columns)).to(torch.bfloat16)
    cut = upload(weight, way, ROWS, STEP)
    x = torch.randn(tokens, columns + -columns % 8 + 8, device=DEVICE, dtype=torch.bfloat16)[:, :columns]
    bias, residual = None, None
    before, terms = x.double() @ weight.double().T, x.double().abs() @ weight.double().abs().T
    if not plain:
        bias, residual = (torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) for shape in ((rows,), (tokens, rows)))
        before += bias.double() + residual.double()
        terms += bias.double().abs() + residual.double().abs()
    poison = torch.full((tokens * rows,), float("nan"), device=DEVICE, dtype=torch.bfloat16)
    del poison  # the allocator hands this memory to the result
    activation = "none" if plain else activation
    return checked_error(multiply(cut, x, bias, residual, activation, kernel), before, terms, columns, activation)
