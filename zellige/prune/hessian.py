"""The diagonal of the loss's Hessian by Hutchinson's estimate, and what it says of a weight that goes.

For a vector z of random signs, z ⊙ Hz has the mean diag(H) (Bekas et al., Applied Numerical Mathematics 57, 2007); Hz is the
gradient of zᵀ∇L, with z held constant. (Signs matter: with z of ones throughout, Hz is the sums of H's rows.) All layers share
a draw, so an estimate costs two passes backwards; the more probes and batches, the less of what stands off the diagonal is
left in it.

The score is the change of the loss that a quadratic model expects, ½ H w² (LeCun et al., Optimal brain damage, 1989), where it
rises: weights on which the loss curves downwards matter least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from torch import nn

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.prune.calibration import Calibration, single_parameters
from zellige.prune.data_score import DataScore, accumulator, doubled, refuse_idle
from zellige.prune.layers import Layer
from zellige.prune.undisturbed import undisturbed


@dataclass(frozen=True)
class Hessian(DataScore):
    """max(0, ½ H w²), H the mean over batches of the diagonal, each estimated from ``probes`` draws of signs.

    Signs come from a generator of their own with this ``seed``: the same on every device.

    Raises:
        PruneError: ``probes`` is not a positive whole number, or ``seed`` none from 0 to 2⁶³ − 1.
    """

    of_loss: ClassVar[bool] = True
    probes: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.probes, Integral) or isinstance(self.probes, bool) or self.probes < 1:
            raise PruneError(f"Hessian probes must be a positive whole number, not {self.probes!r}.")
        if not isinstance(self.seed, Integral) or isinstance(self.seed, bool) or not 0 <= self.seed < 1 << 63:
            raise PruneError(f"The seed of Hessian must be a whole number from 0 to 2⁶³ − 1, not {self.seed!r}.")

    def measure(self, model: nn.Module, layers: Sequence[Layer], calibration: Calibration) -> Callable[[Layer], torch.Tensor]:
        diagonals, draws = self.diagonals(model, layers, calibration)
        return lambda layer: doubled(diagonals[layer]).clamp(min=0) * doubled(layer.weight).square() / (2 * draws)

    def diagonals(
        self, model: nn.Module, layers: Sequence[Layer], calibration: Calibration
    ) -> tuple[dict[Layer, torch.Tensor], int]:
        """For every layer the sum of z ⊙ Hz over all draws, and how many there were."""
        purpose, weights = str(self), single_parameters(model, layers, str(self))
        generator = torch.Generator().manual_seed(int(self.seed))
        draws = 0
        with undisturbed(model, weights):
            sums = {layer: accumulator(layer.weight) for layer in layers}
            for batch in calibration.batches(purpose, weights[0].device):
                loss = calibration.loss_of(purpose, model, batch)
                gradients = _gradients(loss, layers, weights, purpose)
                for left in reversed(range(self.probes)):
                    signs = [random_signs(weight, generator) for weight in weights]
                    products = _products(gradients, weights, signs, left > 0, purpose)
                    for layer, sign, row in zip(layers, signs, products, strict=True):
                        sums[layer] += sign * row
                    draws += 1
        return sums, draws


def random_signs(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """−1 or 1 for every weight, evenly."""
    drawn = torch.randint(0, 2, weight.shape, generator=generator, device="cpu", dtype=torch.int8)
    return (2 * drawn - 1).to(weight.device, weight.dtype)


def _gradients(
    loss: torch.Tensor, layers: Sequence[Layer], weights: Sequence[torch.Tensor], purpose: str
) -> tuple[torch.Tensor, ...]:
    """The gradients of all layers, which can be differentiated again."""
    try:
        gradients = torch.autograd.grad(loss, list(weights), create_graph=True, allow_unused=True)
    except FAILURES as error:
        raise PruneError(f"{purpose}: the loss can't be differentiated: {in_one_line(error)}") from error
    idle = [layer for layer, gradient in zip(layers, gradients, strict=True) if gradient is None]
    refuse_idle(idle, purpose, "the loss doesn't depend on the weights of")
    return gradients


def _products(
    gradients: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], signs: Sequence[torch.Tensor], again: bool, purpose: str
) -> Sequence[torch.Tensor]:
    """The Hessian times the signs, layer by layer; zero where a gradient doesn't depend on weights."""
    bent = [(gradient, sign) for gradient, sign in zip(gradients, signs, strict=True) if gradient.requires_grad]
    if not bent:
        return [torch.zeros_like(weight) for weight in weights]
    try:
        return torch.autograd.grad([gradient for gradient, _ in bent], list(weights), [sign for _, sign in bent],
                                   retain_graph=again, allow_unused=True, materialize_grads=True)
    except FAILURES as error:
        raise PruneError(f"{purpose}: the loss can't be differentiated twice: {in_one_line(error)}") from error
