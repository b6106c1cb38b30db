"""Wanda: the magnitude of a weight times the norm of the input that it multiplies (Sun et al., arXiv 2306.11695).

A weight of a convolution multiplies one channel at one tap, wherever the filter stands: the norm is over all places, padding
included, and over all samples. Squares are summed tap by tap, so inputs are never unfolded; a layer holds one number per column
and tap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from zellige.prune.calibration import Calibration
from zellige.prune.data_score import DataScore, doubled, refuse_idle
from zellige.prune.layers import Layer
from zellige.prune.undisturbed import undisturbed
from zellige.prune.windows import input_of, seen_by_taps


@dataclass(frozen=True)
class Wanda(DataScore):
    """|w| · ‖x‖₂, x everything that w is multiplied with. Without a loss, a batch holds the model's arguments."""

    def measure(self, model: nn.Module, layers: Sequence[Layer], calibration: Calibration) -> Callable[[Layer], torch.Tensor]:
        squares: dict[Layer, torch.Tensor] = {}

        def watch(layer: Layer) -> Callable[[nn.Module, Any, Any], None]:
            def add(module: nn.Module, arguments: Any, named: Any) -> None:
                found = input_squares(module, input_of(arguments, named))
                squares[layer] = squares[layer] + found if layer in squares else found
            return add

        handles = []
        try:
            for layer in layers:
                users = {id(module): module for module in map(model.get_submodule, layer.names)}
                handles += [module.register_forward_pre_hook(watch(layer), with_kwargs=True) for module in users.values()]
            with undisturbed(model):
                for batch in calibration.batches(str(self), layers[0].weight.device):
                    calibration.run(str(self), model, batch)
        finally:
            for handle in handles:
                handle.remove()
        refuse_idle([layer for layer in layers if layer not in squares], str(self), "the model never calls")
        return lambda layer: doubled(layer.weight).abs() * _spread(doubled(squares[layer]).sqrt(), layer)


def input_squares(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """For every input (of all groups) and tap, the sum of squares of what weights there are multiplied with: float32 at least.

    (inputs,) for a linear layer, (inputs, taps…) for a convolution.
    """
    inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32)).square()
    sums = [seen.sum(dim=[axis for axis in range(seen.dim()) if axis != 1]) for seen in seen_by_taps(module, inputs)]
    return torch.stack(sums, dim=1).unflatten(1, module.kernel_size) if isinstance(module, _ConvNd) else sums[0]


def _spread(norms: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Norms by input in the form of the weight: the rows of a group see that group's inputs."""
    shape = layer.shape
    grouped = norms.unflatten(0, (shape.groups, 1, shape.columns))
    return grouped.expand(-1, shape.rows_per_group, *grouped.shape[2:]).flatten(0, 1)
