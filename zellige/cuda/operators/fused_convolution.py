"""A dense convolution with its bias, a residual and ReLU in one kernel of cuDNN's, as ``zellige::fused_convolution``.

PyTorch has the operators, ``cudnn_convolution_relu`` and ``cudnn_convolution_add_relu``, but uses them nowhere by itself, and its
compiler does not know what shape comes of them. Without them the epilogue reads and writes the whole result once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zellige.cuda.tiling.convolution_tiles import Window
from zellige.errors import InputError


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, window: Window) -> Tensor:
    """relu(convolution of x + bias + residual): images × rows × height × width, channels-last as x, for inference on a GPU.

    Raises ``InputError`` where x or the residual is on another device than the weight, or no GPU.
    """
    return torch.ops.zellige.fused_convolution(x, weight, bias, residual, window.numbers())


@torch.library.custom_op("zellige::fused_convolution", mutates_args=())
def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, window: Sequence[int]) -> Tensor:
    given = Window.of(window)
    for name, tensor in (("the weight", weight), ("x", x), ("the residual", residual)):
        if tensor is not None and (tensor.device.type != "cuda" or tensor.device != weight.device):
            raise InputError(f"cuDNN convolves on one GPU; {name} is on {tensor.device}; elsewhere run conv2d and ReLU")
    numbers = (given.stride, given.padding, given.dilation, 1)
    if residual is None:
        return torch.ops.aten.cudnn_convolution_relu(x, weight, bias, *numbers)
    return torch.ops.aten.cudnn_convolution_add_relu(x, weight, residual, None, bias, *numbers)


@_convolution.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, window: Sequence[int]) -> Tensor:
    height, width = Window.of(window).output(*x.shape[2:])
    made = x.new_empty(x.shape[0], weight.shape[0], height, width)
    return made.contiguous(memory_format=torch.channels_last)
