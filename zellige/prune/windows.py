"""What the weights of a layer are multiplied with: for a convolution, what each tap of its filter sees, wherever it stands.

Inputs are padded as the layer pads them and looked at tap by tap, so that nothing has to be unfolded to be summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.modules.conv import _ConvNd


def seen_by_taps(module: nn.Module, inputs: torch.Tensor) -> Iterator[torch.Tensor]:
    """For every tap, in the order of the weight's, its inputs: samples × channels × places…, views of the padded inputs.

    A linear layer has one tap and no places: (samples, inputs), with all leading dimensions together as samples.
    """
    if not isinstance(module, _ConvNd):
        yield inputs.reshape(-1, inputs.shape[-1])
        return
    spatial = len(module.kernel_size)
    batched = inputs if inputs.dim() == spatial + 2 else inputs.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = pad(batched, list(module._reversed_padding_repeated_twice), mode=mode)
    steps = list(zip(padded.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True))
    outputs = [(size - dilation * (taps - 1) - 1) // stride + 1 for size, taps, stride, dilation in steps]
    for tap in product(*map(range, module.kernel_size)):
        seen = padded
        for axis, (at, count, (_, _, stride, dilation)) in enumerate(zip(tap, outputs, steps, strict=True), 2):
            seen = seen.narrow(axis, at * dilation, (count - 1) * stride + 1)
            seen = seen[(slice(None),) * axis + (slice(None, None, stride),)]
        yield seen


def input_of(arguments: Any, named: Any) -> torch.Tensor:
    """What a layer was called on, from the arguments that a forward hook gets."""
    inputs: torch.Tensor = arguments[0] if arguments else named["input"]
    return inputs.detach()
