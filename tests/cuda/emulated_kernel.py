"""Runs the CUDA C++ kernels on the CPU, through ``emulated_gpu.h`` and a C++ compiler."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_int, c_longlong
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zellige.cuda.kernels.launch import PixelBoxes
from zellige.cuda.kernels.nvrtc import sources
from zellige.cuda.operators import block_convolution, block_product
from zellige.cuda.operators.block_product import THREADS, BlockKernel, schedule
from zellige.cuda.operators.tile_vector_wise import Kernel
from zellige.cuda.tiling.compressed_blocks import is_compressed
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import is_paired
from zellige.cuda.tiling.vector_tiles import VectorTiles

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="running CUDA C++ on the CPU needs g++")
GUARD = 64
"""Numbers before and after an array that must stay as they are."""


@cache
def library(name: str, defines: tuple[tuple[str, int], ...], edit: tuple[str, str] | None = None) -> ctypes.CDLL:
    """A kernel's source as machine code for this CPU; ``edit`` replaces a piece of it, or of a header that it includes."""
    with tempfile.TemporaryDirectory() as directory:
        texts = dict(sources(name))
        if edit is not None:
            (edited,) = (source for source, text in texts.items() if edit[0] in text)
            texts[edited] = texts[edited].replace(*edit)
        for source, text in texts.items():
            Path(directory, source).write_text(text)
        options = [f"-D{Path(name).stem.upper()}", *(f"-D{key}={value}" for key, value in defines)]
        kernel, shared = Path(directory, name), Path(directory, "kernel.so")
        subprocess.run([COMPILER, "-std=c++17", "-O1", "-w", "-shared", "-fPIC", *options,
                        "-include", HERE / "emulated_gpu.h", "-x", "c++", kernel, "-o", shared], check=True)  # fmt: skip
        loaded = ctypes.CDLL(shared)
        loaded.emulate.restype = ctypes.c_char_p
        return loaded


def survives(check: Callable[..., None], cases: Iterable[tuple[Any, ...]], edit: tuple[str, str], seeds: int = 3) -> bool:
    """Whether a kernel that was broken by an edit passes its ``check`` in all cases, copies made at once or when waited for."""
    try:
        for case in cases:
            for lazy in (False, True):
                for seed in range(seeds):
                    check(*case, lazy, seed, edit)
    except AssertionError:
        return False
    return True


def emulated(
    kernel: Kernel, tiles: VectorTiles, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str | None,
    aligned: bool, lazy: bool, seed: int, edit: tuple[str, str] | None = None,
) -> Tensor:  # fmt: skip
    """What the kernel makes of CPU tensors; it fails where the kernel writes outside of its result, or not all of it."""
    n, tokens = tiles.shape[0], x.shape[1]
    stride = -(-tokens // 8) * 8 if aligned else tokens
    whole = torch.full((GUARD + n * stride + GUARD,), torch.nan, dtype=tiles.dtype)
    y = whole[GUARD:-GUARD].view(n, stride)
    token_blocks = -(-tokens // kernel.tokens)
    blocks = len(tiles.rows) * token_blocks
    address = [None if array is None else ctypes.c_void_p(array.data_ptr())
               for array in (x, tiles.images, tiles.columns, tiles.starts, tiles.rows, bias, residual, y)]  # fmt: skip
    strides = [c_longlong(0 if array is None else array.stride(0)) for array in (x, residual, y)]
    failure = library(kernel.source, kernel.defines(tiles.dtype, aligned, activation), edit).emulate(
        c_int(min(blocks, 3) if kernel.stays else blocks), c_int(kernel.threads),
        c_int(kernel.shared_bytes), c_int(lazy), c_int(seed), *address, *strides,
        c_int(tokens), c_int(len(tiles.rows)), c_int(token_blocks), c_int(kernel.tokens_first))  # fmt: skip
    assert not failure, failure.decode()
    outside = torch.cat([whole[:GUARD], y[:, tokens:].flatten(), whole[-GUARD:]])
    assert outside.isnan().all(), "the kernel wrote outside of its result"
    assert y[:, :tokens].isfinite().all(), "the kernel left numbers out, or read what it may not"
    return y[:, :tokens]


def emulated_blocks(
    kernel: BlockKernel, weight: DeviceTiles, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str,
    lazy: bool, seed: int, edit: tuple[str, str] | None = None, dtype: torch.dtype | None = None,
    scales: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:  # fmt: skip
    """The same for ``block_product.cu``: tokens × rows of ``dtype``, by default x's. ``scales``: of x and of rows, if they are
    e4m3."""
    dtype = dtype or x.dtype
    return _blocks(
        f"{block_product.ENTRY}.cu", kernel, weight, x, None, x.shape[0], x.shape[1], x.stride(0), bias, residual, activation, lazy,
        seed, edit, dtype, scales,
    )  # fmt: skip


def emulated_convolution(
    kernel: BlockKernel, weight: ConvolutionTiles, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str,
    lazy: bool, seed: int, edit: tuple[str, str] | None = None,
) -> Tensor:  # fmt: skip
    """The same for ``block_convolution.cu``: images × height × width × rows, channels-last as x."""
    shape = block_convolution.result_shape(x, weight.tiles.shape[0], weight.window)
    boxes = block_convolution.pixel_boxes(x, weight.window, kernel)
    assert boxes.count == kernel.tokens
    addend = None if residual is None else block_convolution.matrix_of(residual, False)
    y = _blocks(
        f"{block_convolution.ENTRY}.cu", kernel, weight.tiles, x, weight.taps, math.prod(shape[:3]), weight.channels, boxes.pitch,
        bias, addend, activation, lazy, seed, edit, x.dtype, (None, None), boxes,
        block_convolution.place_of_pixels(torch.empty(shape), weight.window),
    )  # fmt: skip
    return y.reshape(shape)


def _blocks(
    source: str, kernel: BlockKernel, weight: DeviceTiles, x: Tensor, taps: Tensor | None, tokens: int, columns: int, x_stride: int,
    bias: Tensor | None, residual: Tensor | None, activation: str, lazy: bool, seed: int, edit: tuple[str, str] | None,
    dtype: torch.dtype, scales: tuple[Tensor | None, Tensor | None], boxes: PixelBoxes | None = None, place: Sequence[int] = (),
) -> Tensor:  # fmt: skip
    rows = weight.shape[0]
    stride = rows + 8
    guard = 64 * stride  # as many tokens as are written at a time
    whole = torch.full((guard + tokens * stride + guard,), torch.nan, dtype=dtype)
    y = whole[guard:-guard].view(tokens, stride)
    tiles = torch.from_numpy(schedule(weight.starts))
    token_blocks = -(-tokens // kernel.tokens)
    *address, x_scale, row_scales, halves = (None if array is None else ctypes.c_void_p(array.data_ptr()) for array in (
        x, weight.values, weight.units, taps, weight.rows, tiles, bias, residual, y, *scales, weight.halves))  # fmt: skip
    strides = [c_longlong(x_stride), c_longlong(0 if residual is None else residual.stride(0)), c_longlong(y.stride(0))]
    about = [] if boxes is None else [x.shape[:3], (*boxes.lower, *boxes.upper, *boxes.strides), place]
    numbers = [(c_int * len(row))(*row) for row in about] or [None] * 3
    two_four = is_compressed(weight)
    defines = kernel.defines(dtype, activation, weight.values.itemsize == 1, two_four, is_paired(weight))
    failure = library(source, defines, edit).emulate(
        c_int(min(3, len(tiles) * token_blocks)), c_int(THREADS), c_int(kernel.shared_bytes(two_four)), c_int(lazy), c_int(seed),
        *address, *strides, c_int(rows), c_int(tokens), c_int(columns), c_int(len(weight.values)), c_int(len(tiles)),
        c_int(token_blocks), c_int(kernel.width), x_scale, row_scales, halves, *numbers)  # fmt: skip
    assert not failure, failure.decode()
    outside = torch.cat([whole[:guard], y[:, rows:].flatten(), whole[-guard:]])
    assert outside.isnan().all(), "the kernel wrote outside of its result"
    assert y[:, :rows].isfinite().all(), "the kernel left numbers out, or read what it may not"
    return y[:, :rows]
