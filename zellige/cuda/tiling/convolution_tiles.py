"""From a convolution's weight to tiles: rows × (taps × channels), cut like any matrix.

Columns are ordered tap by tap, the channels of a tap side by side, so that a unit of columns is some neighbouring channels of one
pixel. Where the channels of a tap do not fill groups, columns of zeros follow them: no group belongs to two taps.

    a weight of 3 × 3 taps, 4 channels, in groups of 2      column 10 is tap 2, channel 2: the pixel 2 to the right of the
    tap     0       1       2         3 …                   window's first; ``channels`` has 2 for it, ``taps`` has (0, 2)
    column  0 1 2 3│4 5 6 7│8 9 10 11│12 …
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import Tiles, cut_tiles
from zellige.errors import CompileError

FARTHEST = 1 << 15
"""Pixels that a tap may be away from the first, in each direction: both numbers share 32 bits."""


@dataclass(frozen=True)
class Window:
    """Which pixels an output pixel is made of; all pairs are (down, right), as PyTorch has them.

    >>> Window((3, 3), stride=(2, 2), padding=(1, 1)).output(56, 57)
    (28, 29)
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def pointwise(self) -> bool:
        """Whether output pixels are made of the pixel in the same place alone: a plain product."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result; below 1 where the window does not fit."""
        down, right = ((size + 2 * pad - space * (taps - 1) - 1) // stride + 1 for size, taps, stride, pad, space in zip(
            (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True))
        return down, right

    def numbers(self) -> list[int]:
        return [*self.kernel, *self.stride, *self.padding, *self.dilation]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Window:
        """From ``numbers``."""
        pairs = [(numbers[first], numbers[first + 1]) for first in range(0, 8, 2)]
        return cls(*pairs)


@dataclass(frozen=True)
class ConvolutionTiles:
    """A weight of rows × ``channels`` × taps in tiles on a device.

    ``tiles.units`` are the first channels of the units; ``taps`` are where their pixels lie in the window, down · 2¹⁶ + right.
    """

    tiles: DeviceTiles
    taps: torch.Tensor
    channels: int
    window: Window

    @classmethod
    def upload(cls, weight: torch.Tensor, window: Window, tile: int = 128, group: int = 8, step: int = 64) -> ConvolutionTiles:
        """Cut a weight of rows × channels × kernel, bfloat16 or float16, for the device on which it is.

        ``group``: the channels that are kept together; 8 or more for channels-last activations, 1 for channel-planes.
        ``CompileError`` for another dtype, a window that is not the weight's, or sizes that ``DeviceTiles.upload`` refuses.
        """
        tiles = DeviceTiles.upload(cut_convolution(weight, window, tile, group, step), weight.device, weight.dtype)
        return cls.of(tiles, weight.shape[1], window)

    @classmethod
    def of(cls, tiles: DeviceTiles, channels: int, window: Window) -> ConvolutionTiles:
        """From tiles whose units still are columns, as ``cut_convolution`` counts them."""
        per_tap = tiles.shape[1] // (window.kernel[0] * window.kernel[1])
        tap, channel = tiles.units // per_tap, tiles.units % per_tap
        down, right = tap // window.kernel[1] * window.dilation[0], tap % window.kernel[1] * window.dilation[1]
        return cls(replace(tiles, units=channel.int()), (down << 16 | right).int(), channels, window)


def cut_convolution(weight: torch.Tensor, window: Window, tile: int = 128, group: int = 8, step: int = 64) -> Tiles:
    """The tiles of a weight of rows × channels × kernel, as a matrix of rows × (taps × channels, filled up to whole groups)."""
    if weight.ndim != 4 or tuple(weight.shape[2:]) != window.kernel:
        raise CompileError(f"a convolution's tiles are cut from rows × channels × {window.kernel[0]} × {window.kernel[1]}, "
                           f"not from {list(weight.shape)}")
    if min(window.stride) < 1 or min(window.dilation) < 1 or min(window.padding) < 0:
        raise CompileError(f"a window has strides and dilations of 1 or more and paddings of 0 or more, not {window}")
    if any((size - 1) * space >= FARTHEST for size, space in zip(window.kernel, window.dilation, strict=True)):
        raise CompileError(f"the taps of a window lie less than {FARTHEST} pixels apart, unlike those of {window}")
    rows, channels = weight.shape[:2]
    matrix = weight.detach().float().cpu().permute(0, 2, 3, 1).reshape(rows, -1, channels).numpy()
    filled = matrix if matrix.shape[1] == 1 else np.pad(matrix, ((0, 0), (0, 0), (0, -channels % group)))
    return cut_tiles(filled.reshape(rows, -1), tile, group, step)
