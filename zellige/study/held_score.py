"""A score that is measured once for all copies of one network: what patterns are compared by doesn't depend on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from zellige.prune.calibration import Calibration
from zellige.prune.data_score import DataScore
from zellige.prune.layers import Layer


class HeldScore(DataScore):
    """Answers for a layer whose name and weight it has seen before with what was measured then.

    It holds weights and scores of all layers. Budgets, which ask whether scores are ``of_loss``, are no part of a study.
    """

    def __init__(self, score: DataScore) -> None:
        self.score = score
        self._held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __str__(self) -> str:
        return str(self.score)

    def measure(self, model: nn.Module, layers: Sequence[Layer], calibration: Calibration) -> Callable[[Layer], torch.Tensor]:
        fresh = [layer for layer in layers if not self._knows(layer)]
        if fresh:
            measured = self.score.measure(model, fresh, calibration)
            self._held.update((layer.name, (layer.weight.detach().clone(), measured(layer).cpu())) for layer in fresh)
        return lambda layer: self._held[layer.name][1]

    def _knows(self, layer: Layer) -> bool:
        return layer.name in self._held and torch.equal(self._held[layer.name][0], layer.weight.detach())
