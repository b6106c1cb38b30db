"""Convolution with a weight in tiles, as an operator of PyTorch's: ``zellige::tile_convolution``.

Activations are tensors of four dimensions in one of two layouts, which their shape says outright:

- *channels-last*: images × height × width × channels. ``x.permute(0, 2, 3, 1)`` of what PyTorch calls ``channels_last``.
- *channel-planes* (``features``): channels × images × height × width.

Both lie together in memory but for a gap that may follow every pixel, or every plane: a part of the channels, or of the images.
Input and result choose for themselves. A 1×1 convolution is a plain product and runs as one (``product.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from zellige.cuda.kernels.config import Config, default_config
from zellige.cuda.kernels.convolution import tile_convolution
from zellige.cuda.operators.product import check_activation, check_device, check_whole, pieces_for
from zellige.cuda.operators.product import launch as launch_product
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.errors import InputError

LARGEST = 2**31
"""Numbers that lie between the first and the last of an input, at most: the kernel counts in 32 bits."""


def convolve(weight: ConvolutionTiles, x: torch.Tensor, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None,
             activation: str = "none", x_features: bool = False, y_features: bool = False,
             config: Config | None = None) -> torch.Tensor:
    """activation(convolution of x + bias + residual).

    ``x``: images × height × width × channels, or channels × images × height × width with ``x_features``; the result (and
    ``residual``): images × height × width × rows, or rows × images × height × width with ``y_features``; ``bias``: rows.
    ``InputError`` where a shape, dtype, device or stride is another.

    >>> from zellige.cuda.tiling.convolution_tiles import Window
    >>> filters = torch.randn(128, 64, 3, 3, dtype=torch.float16)
    >>> weight = ConvolutionTiles.upload(filters, Window((3, 3), padding=(1, 1)))
    >>> x = torch.empty(2, 64, 28, 28, dtype=torch.float16, device="meta")
    >>> convolve(weight, x.permute(0, 2, 3, 1)).shape
    torch.Size([2, 28, 28, 128])
    """
    tiles, numbers = weight.tiles, [] if config is None else config.numbers()
    check_whole(tiles)
    return torch.ops.zellige.tile_convolution(
        x, tiles.values, tiles.units, weight.taps, tiles.rows, bias, residual, list(tiles.starts),
        [tiles.shape[0], weight.channels, tiles.unit, int(tiles.eights)], weight.window.numbers(), activation,
        x_features, y_features, numbers)


@torch.library.custom_op("zellige::tile_convolution", mutates_args=())
def _convolution(x: torch.Tensor, values: torch.Tensor, channels: torch.Tensor, taps: torch.Tensor, rows: torch.Tensor,
                 bias: torch.Tensor | None, residual: torch.Tensor | None, starts: Sequence[int], form: Sequence[int],
                 window: Sequence[int], activation: str, x_features: bool, y_features: bool,
                 config: Sequence[int]) -> torch.Tensor:
    tiles = DeviceTiles((form[0], form[1]), rows.numel() // (len(starts) - 1), values.shape[1], form[2], tuple(starts),
                        values, channels, rows, bool(form[3]))
    weight = ConvolutionTiles(tiles, taps, form[1], Window.of(window))
    check(weight, x, bias, residual, activation, x_features, y_features)
    y = x.new_empty(result_shape(x, form[0], weight.window, x_features, y_features))
    launch(weight, x, y, bias, residual, activation, x_features, y_features, Config.of(config))
    return y


@_convolution.register_fake
def _(x: torch.Tensor, values: torch.Tensor, channels: torch.Tensor, taps: torch.Tensor, rows: torch.Tensor,
      bias: torch.Tensor | None, residual: torch.Tensor | None, starts: Sequence[int], form: Sequence[int],
      window: Sequence[int], activation: str, x_features: bool, y_features: bool, config: Sequence[int]) -> torch.Tensor:
    return x.new_empty(result_shape(x, form[0], Window.of(window), x_features, y_features))


def result_shape(x: torch.Tensor, rows: int, window: Window, x_features: bool = False,
                 y_features: bool = False) -> tuple[int, int, int, int]:
    images, height, width = x.shape[1:] if x_features else x.shape[:3]
    height, width = window.output(height, width)
    return (rows, images, height, width) if y_features else (images, height, width, rows)


def launch(weight: ConvolutionTiles, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
           activation: str, x_features: bool, y_features: bool, config: Config | None = None) -> None:
    """Write the convolution into ``y``. Nothing is checked; without ``config`` the default one is taken."""
    tiles, window = weight.tiles, weight.window
    images, height, width = x.shape[1:] if x_features else x.shape[:3]
    out_height, out_width = window.output(height, width)
    pixels = images * out_height * out_width
    if not pixels:
        return
    matrix, result = matrix_of(x, x_features), matrix_of(y, y_features)
    addend = None if residual is None else matrix_of(residual, y_features)
    if window.pointwise:
        launch_product(tiles, matrix, result, bias, addend, activation, x_features, y_features, config)
        return
    tile, step = tiles.tile, tiles.step
    config = config or default_config(tile, step, pixels)
    blocks = triton.cdiv(pixels, config.tokens)
    pieces, parts = pieces_for(tiles, pixels, config)
    partials = x.new_empty(parts * blocks * tile * config.tokens, dtype=torch.float32)
    tickets = x.new_zeros(parts * blocks, dtype=torch.int32) if parts else tiles.units  # never read without parts
    boxes = config.boxes and len(tiles.values) > 0
    aligned = 8 if matrix.stride(0) % 8 == 0 else 1  # a constant factor of the distance, so that the compiler sees 16 bytes
    tile_convolution[(len(pieces) * blocks,)](
        matrix, TensorDescriptor.from_tensor(tiles.values, [tile, step]) if boxes else tiles.values,
        tiles.units, weight.taps, tiles.rows, pieces, result, bias, addend, partials, tickets,
        pixels, weight.channels, height, width, out_height, out_width, len(pieces),
        matrix.stride(0) // aligned, result.stride(0), 0 if addend is None else addend.stride(0),
        TILE=tile, STEP=step, UNIT=tiles.unit, TOKENS=config.tokens,
        STRIDE_Y=window.stride[0], STRIDE_X=window.stride[1], PAD_Y=window.padding[0], PAD_X=window.padding[1],
        X_FEATURES=x_features, Y_FEATURES=y_features, ALIGNED=aligned, W_BOXES=boxes,
        RAGGED=bool(weight.channels % tiles.unit), SPLIT=parts > 0, WIDTH=config.width,
        EIGHTS=tiles.eights, ACTIVATION=activation, BIAS=bias is not None, RESIDUAL=residual is not None,
        num_warps=config.warps, num_stages=config.stages)


def matrix_of(tensor: torch.Tensor, features: bool) -> torch.Tensor:
    """Pixels × channels, or channels × pixels with ``features``, of the same memory."""
    if features:
        return tensor.as_strided((tensor.shape[0], tensor[0].numel()), (tensor.stride(0), 1))
    return tensor.as_strided((tensor[..., 0].numel(), tensor.shape[3]), (pitch_of(tensor), 1))


def pitch_of(tensor: torch.Tensor) -> int:
    """How far the pixels of a channels-last tensor lie apart."""
    for size, stride in zip(tensor.shape[2::-1], tensor.stride()[2::-1], strict=True):
        if size > 1:
            return stride
    return tensor.shape[3]


def check(weight: ConvolutionTiles, x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, activation: str,
          x_features: bool, y_features: bool) -> None:
    """``InputError`` if a tensor has another shape, dtype, device or stride than the convolution takes; ``CompileError`` if the
    GPU is too old."""
    rows, channels, window = weight.tiles.shape[0], weight.channels, weight.window
    form = f"{channels} channels × images × height × width" if x_features else f"images × height × width × {channels} channels"
    if x.ndim != 4 or x.shape[0 if x_features else 3] != channels:
        raise InputError(f"the convolution wants x as {form}, not {list(x.shape)}")
    result = result_shape(x, rows, window, x_features, y_features)
    if min(result[2:] if y_features else result[1:3]) < 1:
        raise InputError(f"the window {window} does not fit into x of {list(x.shape)}")
    dtype, device = weight.tiles.values.dtype, weight.tiles.values.device
    for name, tensor, wanted, features in (("x", x, tuple(x.shape), x_features), ("bias", bias, (rows,), False),
                                           ("residual", residual, result, y_features)):
        if tensor is None:
            continue
        if tuple(tensor.shape) != wanted or tensor.dtype != dtype or tensor.device != device:
            raise InputError(f"{name} must be {list(wanted)} of {dtype} on {device}, "
                             f"not {list(tensor.shape)} of {tensor.dtype} on {tensor.device}")
        if tensor.ndim == 4 and tensor.numel() and not _together(tensor, features):
            raise InputError(f"the pixels of {name} must lie together in memory, a gap behind every "
                             f"{'plane' if features else 'pixel'} at most, unlike those of {list(tensor.shape)} with strides "
                             f"{list(tensor.stride())}; call contiguous() on it first")
    if x.numel() and sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) >= LARGEST:
        raise InputError(f"x must span less than {LARGEST} numbers, unlike {list(x.shape)}; take fewer images at a time")
    check_activation(activation)
    check_device(device)


def _together(tensor: torch.Tensor, features: bool) -> bool:
    """Whether ``matrix_of`` can describe a tensor."""
    strides, distance = (1, tensor.shape[3], tensor.shape[2] * tensor.shape[3]), 1
    if not features:
        distance = pitch_of(tensor)
        strides = (distance, distance * tensor.shape[2], distance * tensor.shape[2] * tensor.shape[1])
    own = tensor.shape[:0:-1] if features else tensor.shape[2::-1]
    found = tensor.stride()[:0:-1] if features else tensor.stride()[2::-1]
    apart = features or tensor.shape[3] == 1 or tensor.stride(3) == 1
    return apart and all(size == 1 or stride == want for size, stride, want in zip(own, found, strides, strict=True))
