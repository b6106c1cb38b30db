"""Scores from gradients: what the loss does when a weight goes.

Taylor: the square of the first-order change of the loss, (∂L/∂w · w)², summed over batches (Guo et al., SC 2020; Molchanov et
al., arXiv 1906.10771). Fisher: the second-order change, ½ w² · F, with the mean square of every single sample's gradient for
the diagonal F of the Hessian (Theis et al., arXiv 1801.05787).

A gradient is squared, added up and dropped as soon as it is there: besides the sums no two layers' gradients are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.prune.calibration import Calibration, samples, single_parameters
from zellige.prune.data_score import DataScore, accumulator, doubled, refuse_idle
from zellige.prune.layers import Layer
from zellige.prune.undisturbed import undisturbed


@dataclass(frozen=True)
class Taylor(DataScore):
    """Σ over batches of (∂L/∂w · w)², L the loss of a batch."""

    of_loss: ClassVar[bool] = True

    def measure(self, model: nn.Module, layers: Sequence[Layer], calibration: Calibration) -> Callable[[Layer], torch.Tensor]:
        squares, _ = squared_gradients(str(self), model, layers, calibration, lambda batch: [batch])
        return lambda layer: doubled(squares[layer]) * doubled(layer.weight).square()


@dataclass(frozen=True)
class Fisher(DataScore):
    """½ w² · mean over samples of (∂L/∂w)², L the loss of one sample. Samples are run one by one."""

    of_loss: ClassVar[bool] = True

    def measure(self, model: nn.Module, layers: Sequence[Layer], calibration: Calibration) -> Callable[[Layer], torch.Tensor]:
        squares, count = squared_gradients(str(self), model, layers, calibration, lambda batch: samples(batch, str(self)))
        return lambda layer: doubled(squares[layer]) * doubled(layer.weight).square() / (2 * count)


def squared_gradients(
    purpose: str, model: nn.Module, layers: Sequence[Layer], calibration: Calibration, parts: Callable[[Any], Iterable[Any]]
) -> tuple[dict[Layer, torch.Tensor], int]:
    """For every layer the sum of squared gradients, one for each of the ``parts`` of each batch; and how many there were."""
    weights = single_parameters(model, layers, purpose)
    squares: dict[Layer, torch.Tensor] = {}
    reached: set[Layer] = set()
    count = 0

    def take(layer: Layer) -> Callable[[torch.Tensor], None]:
        def add(weight: torch.Tensor) -> None:
            assert weight.grad is not None
            squares[layer] += weight.grad.to_dense().to(squares[layer].dtype).square()
            weight.grad = None
            reached.add(layer)
        return add

    handles = []
    try:
        with undisturbed(model, weights):
            squares.update((layer, accumulator(layer.weight)) for layer in layers)
            handles += [layer.weight.register_post_accumulate_grad_hook(take(layer)) for layer in layers]
            for batch in calibration.batches(purpose, weights[0].device):
                for part in parts(batch):
                    differentiate(calibration.loss_of(purpose, model, part), weights, purpose)
                    count += 1
    finally:
        for handle in handles:
            handle.remove()
    refuse_idle([layer for layer in layers if layer not in reached], purpose, "the loss doesn't depend on the weights of")
    return squares, count


def differentiate(loss: torch.Tensor, weights: Sequence[torch.Tensor], purpose: str) -> None:
    """Runs the loss backwards to the weights, and to nothing else.

    Raises:
        PruneError: the loss can't be differentiated.
    """
    try:
        torch.autograd.backward(loss, inputs=list(weights))
    except FAILURES as error:
        raise PruneError(f"{purpose}: the loss can't be differentiated: {in_one_line(error)}") from error
