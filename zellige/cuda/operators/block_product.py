"""The product of blocks of 128 rows × 64 columns on Hopper: Y = act(X · Wᵀ + bias + residual), X and Y token-major.

Where a tile keeps whole steps of columns, both operands come as boxes of tensor maps, as they do in a dense product, whatever is
left out; and activations stay in the order that PyTorch has them in. The kernel is ``block_product.cu``, through
``wgmma.mma_async``. Blocks that are 2:4 inside may come compressed (``tiling/compressed_blocks.py``): half of W, through
``wgmma.mma_async.sp``. Blocks of 64 rows come two to a tile (``tiling/paired_blocks.py``). Convolutions share all of it but how X
is found (``block_convolution.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int, c_longlong
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from zellige.cuda.kernels.config import Config
from zellige.cuda.kernels.cubins import Request, compile_together
from zellige.cuda.kernels.launch import Argument, Boxes, PixelBoxes, architecture, launch, loaded
from zellige.cuda.operators.plans import uploaded
from zellige.cuda.operators.product import ACTIVATIONS, check
from zellige.cuda.tiling.compressed_blocks import WIDTH, is_compressed, step_of
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import is_paired
from zellige.cuda.tiling.two_four import IMAGE_BYTES
from zellige.errors import InputError

ROWS, STEP, LINE_BYTES = 128, 64, 128
"""Rows of a block, its columns, and the bytes of one of its rows, whatever the numbers."""

ENTRY = "block_product"
"""The kernel's name, and its file's."""

ARCHITECTURE = "sm_90a"
THREADS = 320
"""Eight warps that multiply, one that asks for boxes, one that moves residuals and results."""


@dataclass(frozen=True, order=True)
class BlockKernel:
    """One way to compile the kernel: ``tokens`` of a block, ``stages`` of its ring; ``width``: blocks of tokens that are made side
    by side, tile after tile."""

    tokens: int = 256
    stages: int = 3
    width: int = 8

    @classmethod
    def of(cls, config: Config) -> BlockKernel:
        return cls(config.tokens, config.stages, config.width)

    @property
    def config(self) -> Config:
        """The same, as choices are kept."""
        return Config(self.tokens, THREADS // 32, self.stages, self.width, boxes=True)

    def shared_bytes(self, two_four: bool = False) -> int:
        """The ring, the result, barriers, and room to align all of it."""
        block = IMAGE_BYTES if two_four else ROWS * LINE_BYTES
        barriers = (self.stages + 2) * 16 + self.stages * 4  # and whose blocks there are
        return self.stages * (self.tokens * LINE_BYTES + block) + self.tokens * ROWS * 2 + barriers + 1024

    def defines(self, dtype: torch.dtype, activation: str, e4m3: bool = False, two_four: bool = False,
                paired: bool = False) -> tuple[tuple[str, int], ...]:
        """``dtype``: of the result, and unless ``e4m3`` of what is multiplied."""
        return (("BFLOAT16", int(dtype == torch.bfloat16)), ("E4M3", int(e4m3)), ("TWO_FOUR", int(two_four)),
                ("PAIRED", int(paired)), ("TOKENS", self.tokens), ("STAGES", self.stages),
                ("ACTIVATION", ACTIVATIONS.index(activation)))  # fmt: skip


KERNELS = (BlockKernel(256, 3, 8), BlockKernel(192, 4, 8), BlockKernel(128, 5, 8))
TWO_FOUR_KERNELS = (BlockKernel(256, 3, 8), BlockKernel(192, 5, 8), BlockKernel(128, 7, 8))
"""What is worth timing, of whole or paired and of compressed blocks: more tokens fetch less, fewer leave fewer multiprocessors idle
at the end."""


def kernels(two_four: bool) -> tuple[BlockKernel, ...]:
    return TWO_FOUR_KERNELS if two_four else KERNELS


def configurations(shape: Sequence[int], tile: int, step: int, capability: int, two_four: bool = False) -> list[Config]:
    """What is worth timing for a weight of rows × columns in tiles; nothing where the kernel doesn't run, or lines of the result or
    of activations would not begin at multiples of 16 bytes."""
    able = (tile, step, capability) == (ROWS, STEP, 90) and all(size % 8 == 0 for size in shape)
    return [kernel.config for kernel in kernels(two_four)] if able else []


def compile_ahead(dtype: torch.dtype, activation: str = "none", entry: str = ENTRY, two_four: bool = False,
                  paired: bool = False) -> None:
    """Have the machine code of all kernels for this type and epilogue at hand, compiled side by side."""
    compile_together(Request(f"{entry}.cu", ARCHITECTURE, kernel.defines(dtype, activation, two_four=two_four, paired=paired))
                     for kernel in kernels(two_four))


def suits(weight: DeviceTiles, x: Tensor, residual: Tensor | None = None, itemsize: int = 2) -> bool:
    """Whether the kernel can multiply this: blocks as tall and wide as it wants, of numbers of so many bytes, and lines of x, y and
    the residual that begin at multiples of 16 bytes."""
    lines = [x] if residual is None else [x, residual]
    return in_blocks(weight, itemsize) and all(
        line.data_ptr() % 16 == 0 and line.stride(0) * line.itemsize % 16 == 0 < line.stride(0) for line in lines)


def in_blocks(weight: DeviceTiles, itemsize: int = 2) -> bool:
    """Whether the kernels of blocks can multiply a weight, of numbers of so many bytes."""
    step = LINE_BYTES // itemsize
    widths = (step, WIDTH) if itemsize == 2 and not is_paired(weight) else (step,)
    return (weight.values.itemsize == itemsize and weight.values.shape[1] in widths and weight.tile == ROWS
            and weight.step == weight.unit == step and weight.shape[0] % 8 == 0)


def check_suits(weight: DeviceTiles, x: Tensor, residual: Tensor | None, itemsize: int, instead: str) -> None:
    """``InputError`` if the kernel can't multiply this, or not on this GPU; ``instead``: who multiplies then."""
    if not in_blocks(weight, itemsize):
        raise InputError(f"expected blocks of {ROWS} rows × {LINE_BYTES // itemsize} columns of {8 * itemsize}-bit numbers, and a "
                         f"multiple of 8 rows; got tiles of {weight.tile} × {weight.unit} of {list(weight.shape)} in "
                         f"{weight.values.dtype}; multiply them by zellige.cuda.operators.{instead}")
    if not suits(weight, x, residual, itemsize):
        where = " and ".join(
            f"{name}'s begin {line.data_ptr() % 16} bytes behind one and lie {line.stride(0) * line.itemsize} apart"
            for name, line in (("x", x), ("the residual", residual)) if line is not None)
        raise InputError(f"expected lines that begin at multiples of 16 bytes; {where}; copy them (clone()) if the first number is "
                         f"not 0, or multiply by zellige.cuda.operators.{instead}")
    check_hopper(x.device, instead)


def multiply(weight: DeviceTiles, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, activation: str = "none",
             kernel: BlockKernel = KERNELS[0]) -> Tensor:
    """act(x · Wᵀ + bias + residual) for x of tokens × columns; tokens × rows. Numbers are added up in float32 and rounded once.

    ``weight``: blocks, whole, compressed or paired. An operator of PyTorch's, ``zellige::block_product``, for inference. Raises
    ``InputError`` for another shape, dtype, device, or what the kernel does not suit, ``CompileError`` where the GPU is too old.
    """
    numbers = [kernel.tokens, kernel.stages, kernel.width]
    return torch.ops.zellige.block_product(x, weight.values, weight.units, weight.rows, weight.halves, bias, residual,
                                           list(weight.starts), list(weight.shape), weight.unit, activation, numbers)


@torch.library.custom_op("zellige::block_product", mutates_args=())
def _product(x: Tensor, values: Tensor, units: Tensor, rows: Tensor, halves: Tensor | None, bias: Tensor | None,
             residual: Tensor | None, starts: Sequence[int], shape: Sequence[int], unit: int, activation: str,
             numbers: Sequence[int]) -> Tensor:
    tile = rows.numel() // (len(starts) - 1)
    weight = DeviceTiles((shape[0], shape[1]), tile, step_of(values), unit, tuple(starts), values, units, rows, halves=halves)
    check(weight, x, bias, residual, activation, False, False)
    check_suits(weight, x, residual, 2, "product")
    y, kernel = x.new_empty(x.shape[0], shape[0]), BlockKernel(*numbers)
    if y.numel():
        launch_product(weight, x, y, bias, residual, activation, kernel)
    return y


@_product.register_fake
def _(x: Tensor, values: Tensor, units: Tensor, rows: Tensor, halves: Tensor | None, bias: Tensor | None, residual: Tensor | None,
      starts: Sequence[int], shape: Sequence[int], unit: int, activation: str, numbers: Sequence[int]) -> Tensor:
    return x.new_empty(x.shape[0], shape[0])


def check_hopper(device: torch.device, instead: str) -> None:
    """``InputError`` if a GPU lacks what the kernels of blocks are made of; ``instead``: who multiplies there."""
    name = architecture(device)
    if name != ARCHITECTURE:
        raise InputError(f"blocks are multiplied on compute capability 9.0 alone, this GPU is {name}; multiply them by "
                         f"zellige.cuda.operators.{instead}")  # fmt: skip


def launch_product(weight: DeviceTiles, x: Tensor, y: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str,
                   kernel: BlockKernel, x_scale: Tensor | None = None, row_scales: Tensor | None = None) -> None:
    """Write the product into ``y``; nothing is checked. There are scales if the numbers are e4m3."""
    launch_blocks(ENTRY, Boxes(x, kernel.tokens), (weight.units,), weight, y, bias, residual, activation, kernel,
                  (x_scale, row_scales))


def launch_blocks(entry: str, x: Boxes | PixelBoxes, columns: Sequence[Tensor], weight: DeviceTiles, y: Tensor, bias: Tensor | None,
                  residual: Tensor | None, activation: str, kernel: BlockKernel, more: Sequence[Argument] = ()) -> None:
    """Write a product into ``y``, tokens × rows, as ``residual`` is. ``columns`` is what each step reads of ``x``, ``more`` what
    the kernel ``entry`` must know besides. Nothing is checked."""
    tokens, rows = y.shape
    device = y.device
    tiles = schedule_on(weight.starts, device)
    token_blocks = -(-tokens // kernel.tokens)
    blocks = min(len(tiles) * token_blocks, torch.cuda.get_device_properties(device).multi_processor_count)
    two_four, paired = is_compressed(weight), is_paired(weight)
    beside = y if residual is None else residual  # a tensor map is of something
    blocks_of = weight.values if two_four else Boxes(_some_values(weight), ROWS // 2 if paired else ROWS)
    maps = [x, blocks_of, Boxes(beside, kernel.tokens), Boxes(y, kernel.tokens)]
    strides = [c_longlong(0 if residual is None else residual.stride(0)), c_longlong(y.stride(0))]
    numbers = map(c_int, (rows, tokens, len(tiles), token_blocks, kernel.width))
    defines = kernel.defines(y.dtype, activation, weight.values.itemsize == 1, two_four, paired)
    shared_bytes = kernel.shared_bytes(two_four)
    compiled = loaded(f"{entry}.cu", entry, defines, shared_bytes, device)
    launch(compiled, blocks, THREADS, shared_bytes,
           [*maps, *columns, weight.rows, tiles, bias, residual, y, *strides, *numbers, *more, weight.halves], device)


def schedule(starts: tuple[int, ...]) -> np.ndarray:
    """Tile, first step and steps of every tile, longest first; int32.

    >>> schedule((0, 1, 4, 4)).tolist()
    [[1, 1, 3], [0, 0, 1], [2, 4, 0]]
    """
    steps = np.diff(starts)
    order = np.argsort(-steps, kind="stable")
    return np.column_stack([order, np.array(starts)[order], steps[order]]).astype(np.int32)


@cache
def schedule_on(starts: tuple[int, ...], device: torch.device) -> Tensor:
    """The schedule on a device: the plan of all launches."""
    return uploaded(schedule(starts), device)


def _some_values(weight: DeviceTiles) -> Tensor:
    """The values, or where there are none a block that nobody asks for."""
    return weight.values if len(weight.values) else weight.values.new_zeros(ROWS, weight.step)
