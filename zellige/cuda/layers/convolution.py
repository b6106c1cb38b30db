"""A convolution that runs as tiles where that was measured to be faster, and dense where it was not.

Inputs and results have PyTorch's shape, images × channels × height × width, and lie channels-last. Six ways race: *dense*, by
cuDNN's fastest algorithm for channels-last; *blocks*, tiles that keep 64 channels of a tap at a time, by the kernel of blocks
(``operators/block_convolution.py``); *blocks 2:4*, the same compressed, if they are 2:4 inside; *paired blocks*, tiles of 64 rows,
two to one, where blocks as tall as a tile leave clearly more to do; *groups*, tiles that keep channels in groups of 8, read as they
lie; *columns*, tiles that keep single channels, for which the input is laid out in planes first.
"""

from __future__ import annotations

from functools import partial

import torch

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.choosing import (
    BY_BLOCKS,
    DENSE,
    GROUPS,
    PAIRED,
    TWO_FOUR,
    check_timeable,
    configurations,
    cut_for,
    fastest_way,
    groups,
    key_of,
    promises,
    tile_of,
    why_untimed,
)
from zellige.cuda.layers.layer import TileWiseLayer, in_form
from zellige.cuda.operators import block_convolution, block_product
from zellige.cuda.operators.block_product import BlockKernel
from zellige.cuda.operators.convolution import convolve
from zellige.cuda.operators.product import capability_of
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window, cut_convolution
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.errors import InputError


class TileWiseConv2d(TileWiseLayer):
    """y = conv(x, W) + b (+ residual) for x of images × channels × height × width, by the way that was chosen.

    The way is the same whatever the images: it was timed with ``choice.size``, their number, height and width, and with far
    fewer or larger ones another may be faster.

    Args:
        weight: rows × channels × kernel, bfloat16 or float16, with the zeros that pruning made, on the device that runs it.
        bias: rows, or None.
        window: kernel, stride, padding and dilation; groups of channels there are none.
        choice: what ``choose_convolution`` found; its way ``"dense"`` needs no GPU.
    """

    taps: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, window: Window, choice: Choice, tile: int = 128,
                 step: int = 64):
        super().__init__(weight.shape[0], bias, choice)
        self.window, self.channels = window, weight.shape[1]
        if choice.way == DENSE:
            self.keep_dense(weight.to(memory_format=torch.channels_last))
        else:
            cut = upload(weight, window, choice.way, tile, step)
            self.keep_tiles(cut.tiles)
            self.register_buffer("taps", cut.taps)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """``InputError`` unless x and the residual are images that fit the weight and the window, both as the weight is."""
        if x.ndim != 4:
            raise InputError(f"x must be images × {self.channels} channels × height × width, not {list(x.shape)}")
        images, _, height, width = x.shape
        self.check("x", x, (images, self.channels, height, width))
        self.check("residual", residual, (images, self.features, *self.window.output(height, width)))
        if min(self.window.output(height, width)) < 1:
            raise InputError(f"the window {self.window} does not fit into x of {list(x.shape)}")
        if self.choice.way == DENSE:
            y = dense(self.weight, self.window, x, self.bias)
            return y if residual is None else y + residual
        weight = ConvolutionTiles(self.tiles, self.taps, self.channels, self.window)
        return product(weight, self.choice.way, self.choice.config, x, self.bias, residual)


def upload(weight: torch.Tensor, window: Window, way: str, tile: int, step: int) -> ConvolutionTiles:
    cut = cut_convolution(weight, window, tile_of(way, tile), groups(step)[way], step)
    tiles = in_form(DeviceTiles.upload(cut, weight.device, weight.dtype), way)
    return ConvolutionTiles.of(tiles, weight.shape[1], window)


def dense(weight: torch.Tensor, window: Window, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.nn.functional.conv2d(x, weight, bias, window.stride, window.padding, window.dilation)


def product(weight: ConvolutionTiles, way: str, config: Config | None, x: torch.Tensor, bias: torch.Tensor | None = None,
            residual: torch.Tensor | None = None) -> torch.Tensor:
    """Images × rows × height × width, channels-last, from images × channels × height × width."""
    features = way == "columns"
    laid = (x.transpose(0, 1) if features else x.permute(0, 2, 3, 1)).contiguous()
    addend = None if residual is None else residual.permute(0, 2, 3, 1).contiguous()
    if way in BY_BLOCKS and config is not None:
        return block_convolution.convolve(weight, laid, bias, addend, kernel=BlockKernel.of(config)).permute(0, 3, 1, 2)
    return convolve(weight, laid, bias, addend, x_features=features, config=config).permute(0, 3, 1, 2)


def choose_convolution(weight: torch.Tensor, window: Window, shape: tuple[int, int, int], cache: ChoiceCache | None = None,
                       tile: int = 128, step: int = 64) -> Choice:
    """Time the ways to convolve inputs of ``shape`` (images, height, width), or take what was chosen for the like before.

    Ways that leave next to nothing out are not timed. ``CompileError`` where the weight is not of bfloat16 or float16 on a GPU.
    """
    check_timeable(weight, 4)
    images, height, width = shape
    pixels = images * window.output(height, width)[0] * window.output(height, width)[1]
    blocks = BY_BLOCKS if block_convolution.fits(window) else ()
    configs = {**{way: block_product.configurations(weight.shape[:2], tile, step, capability_of(weight.device), way == TWO_FOUR)
                  for way in blocks}, **dict.fromkeys(GROUPS, configurations(weight.device, tile, step, pixels))}
    cuts = cut_for([way for way in groups(step) if configs.get(way)], tile, step,
                   lambda rows, group: cut_convolution(weight, window, rows, group, step))
    promised = promises(cuts)
    cuts = {way: cuts[way] for way, promise in promised.items() if promise.worth_timing}
    ways = {way: partial(_prepared, weight, window, tile, step, way) for way in cuts}
    example = weight.new_empty(images, weight.shape[1], height, width).to(memory_format=torch.channels_last)
    return fastest_way(key_of(weight, tile, step, cuts, shape, window),
                       partial(dense, weight.to(memory_format=torch.channels_last), window), ways,
                       configs, example, cache, shape, "" if ways else why_untimed(promised.values()))


def _prepared(weight: torch.Tensor, window: Window, tile: int, step: int, way: str) -> partial[torch.Tensor]:
    if way in BY_BLOCKS:
        block_convolution.compile_ahead(window, weight.dtype, two_four=way == TWO_FOUR, paired=way == PAIRED)
    return partial(product, upload(weight, window, way, tile, step), way)
