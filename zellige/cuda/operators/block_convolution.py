"""Convolution with a weight in blocks of 128 rows × 64 channels of a tap on Hopper, as ``zellige::block_convolution``.

Y = act(conv(X, W) + bias + residual) of channels-last maps: the product of blocks (``block_product.py``) in which a token is an
output pixel. What a step reads, 64 channels under one tap for some hundred output pixels in a row, comes as a box of a tensor map
in im2col mode (PTX ISA, "im2col mode"): the hardware walks over rows and images with the window's stride, and gives zeros outside
of the input. The kernel is ``block_convolution.cu``. A 1×1 convolution without stride and padding is a plain product and runs as
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int
from dataclasses import dataclass

import torch
from torch import Tensor

from zellige.cuda.kernels.launch import PixelBoxes
from zellige.cuda.operators import block_product
from zellige.cuda.operators.block_product import KERNELS, ROWS, STEP, BlockKernel, check_hopper, in_blocks, launch_blocks
from zellige.cuda.operators.convolution import check, matrix_of, pitch_of, result_shape
from zellige.cuda.tiling.compressed_blocks import step_of
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.errors import InputError

ENTRY = "block_convolution"
CORNERS, TAPS, STRIDES = range(-128, 128), range(256), range(1, 9)
"""What fits a tensor map of four dimensions: distances of corners and of taps, steps from pixel to pixel (CUDA driver API,
cuTensorMapEncodeIm2col; PTX ISA, im2col offsets)."""


@dataclass(frozen=True)
class Corners:
    """Where the first and the last window of an image begin, as distances from its first and from its last pixel, (down, right)."""

    lower: tuple[int, int]
    upper: tuple[int, int]

    @classmethod
    def of(cls, window: Window) -> Corners:
        """
        >>> Corners.of(Window((3, 3), padding=(1, 1)))
        Corners(lower=(-1, -1), upper=(-1, -1))
        """
        (above, before), (below, behind) = window.padding, reach(window)
        return cls((-above, -before), (above - below, before - behind))


def reach(window: Window) -> tuple[int, int]:
    """How far the last tap lies from the first."""
    down, right = ((taps - 1) * space for taps, space in zip(window.kernel, window.dilation, strict=True))
    return down, right


def fits(window: Window) -> bool:
    """Whether a tensor map can describe a window."""
    corners = Corners.of(window)
    limits = {CORNERS: (*corners.lower, *corners.upper), TAPS: reach(window), STRIDES: window.stride}
    return all(number in limit for limit, numbers in limits.items() for number in numbers)


def suits(weight: ConvolutionTiles, x: Tensor, residual: Tensor | None = None) -> bool:
    """Whether the kernel can convolve this: a window that fits, blocks as tall and wide as it wants, and pixels of x, y and the
    residual that begin at multiples of 16 bytes."""
    maps = [x] if residual is None else [x, residual]
    return (fits(weight.window) and in_blocks(weight.tiles)
            and all(one.data_ptr() % 16 == 0 and pitch_of(one) % 8 == 0 for one in maps))


def convolve(weight: ConvolutionTiles, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None,
             activation: str = "none", kernel: BlockKernel = KERNELS[0]) -> Tensor:
    """activation(convolution of x + bias + residual), summed up in float32 and rounded once.

    ``x``: images × height × width × channels; the result (and ``residual``): images × height × width × rows; ``bias``: rows.
    An operator of PyTorch's, ``zellige::block_convolution``, for inference. Raises ``InputError`` for another shape, dtype, device
    or stride, or what the kernel does not suit, ``CompileError`` where the GPU is too old to compile for.

    >>> filters = torch.randn(128, 64, 3, 3, dtype=torch.float16)
    >>> weight = ConvolutionTiles.upload(filters, Window((3, 3), stride=(2, 2), padding=(1, 1)), group=64)
    >>> x = torch.empty(2, 64, 28, 28, dtype=torch.float16, device="meta")
    >>> convolve(weight, x.permute(0, 2, 3, 1)).shape
    torch.Size([2, 14, 14, 128])
    """
    tiles, numbers = weight.tiles, [kernel.tokens, kernel.stages, kernel.width]
    return torch.ops.zellige.block_convolution(
        x, tiles.values, tiles.units, weight.taps, tiles.rows, tiles.halves, bias, residual, list(tiles.starts),
        [tiles.shape[0], weight.channels, tiles.unit], weight.window.numbers(), activation, numbers)


@torch.library.custom_op("zellige::block_convolution", mutates_args=())
def _convolution(x: Tensor, values: Tensor, channels: Tensor, taps: Tensor, rows: Tensor, halves: Tensor | None,
                 bias: Tensor | None, residual: Tensor | None, starts: Sequence[int], form: Sequence[int], window: Sequence[int],
                 activation: str, numbers: Sequence[int]) -> Tensor:
    """``form``: rows, channels, channels of a unit."""
    tiles = DeviceTiles((form[0], form[1]), rows.numel() // (len(starts) - 1), step_of(values), form[2], tuple(starts), values,
                        channels, rows, halves=halves)
    weight = ConvolutionTiles(tiles, taps, form[1], Window.of(window))
    check(weight, x, bias, residual, activation, False, False)
    if not suits(weight, x, residual):
        raise InputError(f"expected blocks of {ROWS} rows × {STEP} channels, a multiple of 8 rows, pixels that begin at multiples "
                         f"of 16 bytes, and a window that reaches less than 128 pixels far, with strides of 8 at most; got tiles "
                         f"of {tiles.tile} × {tiles.unit} of {form[0]} rows, pixels {pitch_of(x)} apart and {weight.window}; "
                         "convolve by zellige.cuda.operators.convolution")  # fmt: skip
    check_hopper(x.device, "convolution")
    y = x.new_empty(result_shape(x, form[0], weight.window))
    if y.numel():
        launch(weight, x, y, bias, residual, activation, BlockKernel(*numbers))
    return y


@_convolution.register_fake
def _(x: Tensor, values: Tensor, channels: Tensor, taps: Tensor, rows: Tensor, halves: Tensor | None, bias: Tensor | None,
      residual: Tensor | None, starts: Sequence[int], form: Sequence[int], window: Sequence[int], activation: str,
      numbers: Sequence[int]) -> Tensor:
    return x.new_empty(result_shape(x, form[0], Window.of(window)))


def launch(weight: ConvolutionTiles, x: Tensor, y: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str,
           kernel: BlockKernel) -> None:
    """Write the convolution into ``y``. Nothing is checked."""
    tiles, window = weight.tiles, weight.window
    rest = matrix_of(y, False), bias, None if residual is None else matrix_of(residual, False), activation, kernel
    if window.pointwise:
        block_product.launch_product(tiles, matrix_of(x, False), *rest)
        return
    place = list(map(c_int, place_of_pixels(y, window)))
    launch_blocks(ENTRY, pixel_boxes(x, window, kernel), (tiles.units, weight.taps), tiles, *rest, place)


def compile_ahead(window: Window, dtype: torch.dtype, activation: str = "none", two_four: bool = False,
                  paired: bool = False) -> None:
    """Have the machine code of all kernels for such convolutions at hand, compiled side by side."""
    block_product.compile_ahead(dtype, activation, block_product.ENTRY if window.pointwise else ENTRY, two_four, paired)


def pixel_boxes(x: Tensor, window: Window, kernel: BlockKernel) -> PixelBoxes:
    corners = Corners.of(window)
    return PixelBoxes(x, pitch_of(x), kernel.tokens, corners.lower, corners.upper, window.stride)


def place_of_pixels(y: Tensor, window: Window) -> tuple[int, ...]:
    """What tells the kernel where an output pixel's window begins: height and width of the result, strides, padding."""
    return (y.shape[1], y.shape[2], *window.stride, *window.padding)
