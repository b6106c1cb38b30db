"""Runs the CUDA C++ kernels on the CPU, through ``emulated_gpu.h`` and a C++ compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from ctypes import c_int, c_longlong
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import zellige.cuda.kernels
from zellige.cuda.operators.block_product import SOURCE, THREADS, BlockKernel, schedule
from zellige.cuda.operators.tile_vector_wise import Kernel
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.vector_tiles import VectorTiles

HERE, ROOM = Path(__file__).parent, Path(zellige.cuda.kernels.__file__).parent
COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="running CUDA C++ on the CPU needs g++")
GUARD = 64
"""Numbers before and after an array that must stay as they are."""


@cache
def library(name: str, defines: tuple[tuple[str, int], ...], edit: tuple[str, str] | None = None) -> ctypes.CDLL:
    """A kernel's source as machine code for this CPU; ``edit`` replaces a piece of it."""
    with tempfile.TemporaryDirectory() as directory:
        source, shared = Path(directory) / name, Path(directory) / "kernel.so"
        text = (ROOM / name).read_text()
        if edit is not None:
            assert edit[0] in text, f"{name} has no {edit[0]!r}"
            text = text.replace(*edit)
        source.write_text(text)
        options = [f"-D{key}={value}" for key, value in defines]
        subprocess.run([COMPILER, "-std=c++17", "-O1", "-w", "-shared", "-fPIC", *options, "-I", ROOM,
                        "-include", HERE / "emulated_gpu.h", "-x", "c++", source, "-o", shared], check=True)  # fmt: skip
        loaded = ctypes.CDLL(shared)
        loaded.emulate.restype = ctypes.c_char_p
        return loaded


def emulated(
    kernel: Kernel, tiles: VectorTiles, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str | None,
    aligned: bool, lazy: bool, seed: int, edit: tuple[str, str] | None = None,
) -> Tensor:  # fmt: skip
    """What the kernel makes of CPU tensors; it fails where the kernel writes outside of its result, or not all of it."""
    n, tokens = tiles.shape[0], x.shape[1]
    stride = -(-tokens // 8) * 8 if aligned else tokens
    whole = torch.full((GUARD + n * stride + GUARD,), torch.nan, dtype=tiles.dtype)
    y = whole[GUARD:-GUARD].view(n, stride)
    token_blocks = -(-tokens // (kernel.tokens * kernel.together))
    blocks = len(tiles.rows) * token_blocks * kernel.together
    address = [None if array is None else ctypes.c_void_p(array.data_ptr())
               for array in (x, tiles.images, tiles.columns, tiles.starts, tiles.rows, bias, residual, y)]  # fmt: skip
    strides = [c_longlong(0 if array is None else array.stride(0)) for array in (x, residual, y)]
    failure = library(kernel.source, kernel.defines(tiles.dtype, aligned, activation), edit).emulate(
        c_int(min(blocks, 4 - kernel.together % 2) if kernel.stays else blocks), c_int(kernel.threads),
        c_int(kernel.shared_bytes), c_int(lazy), c_int(seed), *address, *strides,
        c_int(tokens), c_int(len(tiles.rows)), c_int(token_blocks), c_int(kernel.tokens_first))  # fmt: skip
    assert not failure, failure.decode()
    outside = torch.cat([whole[:GUARD], y[:, tokens:].flatten(), whole[-GUARD:]])
    assert outside.isnan().all(), "the kernel wrote outside of its result"
    assert y[:, :tokens].isfinite().all(), "the kernel left numbers out, or read what it may not"
    return y[:, :tokens]


def emulated_blocks(
    kernel: BlockKernel, weight: DeviceTiles, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str,
    lazy: bool, seed: int, edit: tuple[str, str] | None = None, dtype: torch.dtype = torch.bfloat16,
    scales: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
) -> Tensor:  # fmt: skip
    """The same for ``block_product.cu``: tokens × rows of ``dtype``. ``scales``: of x and of rows, if they are e4m3."""
    tokens, rows = x.shape[0], weight.shape[0]
    stride = rows + 8
    guard = 64 * stride  # as many tokens as are written at a time
    whole = torch.full((guard + tokens * stride + guard,), torch.nan, dtype=dtype)
    y = whole[guard:-guard].view(tokens, stride)
    tiles = torch.from_numpy(schedule(weight.starts))
    token_blocks = -(-tokens // kernel.tokens)
    *address, x_scale, row_scales = (None if array is None else ctypes.c_void_p(array.data_ptr()) for array in (
        x, weight.values, weight.units, weight.rows, tiles, bias, residual, y, *scales))  # fmt: skip
    strides = [c_longlong(0 if array is None else array.stride(0)) for array in (x, residual, y)]
    failure = library(SOURCE, kernel.defines(dtype, activation, weight.values.itemsize == 1), edit).emulate(
        c_int(min(3, len(tiles) * token_blocks)), c_int(THREADS), c_int(kernel.shared_bytes), c_int(lazy), c_int(seed), *address,
        *strides, c_int(rows), c_int(tokens), c_int(x.shape[1]), c_int(len(weight.values) // 128), c_int(len(tiles)),
        c_int(token_blocks), c_int(kernel.width), x_scale, row_scales)  # fmt: skip
    assert not failure, failure.decode()
    outside = torch.cat([whole[:guard], y[:, rows:].flatten(), whole[-guard:]])
    assert outside.isnan().all(), "the kernel wrote outside of its result"
    assert y[:, :rows].isfinite().all(), "the kernel left numbers out, or read what it may not"
    return y[:, :rows]
