"""SR-STE, for N:M and other patterns (Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch",
arXiv 2102.04010).

The network runs on masked weights, the mask chosen anew from dense ones at every step; the gradient goes straight through the
mask to the dense weights, and those that are masked decay a little more than others: w ← w − γ (g + λ (1 − mask) ⊙ w).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zellige.train.schemes.latent import Latent
from zellige.train.schemes.scheme import check_count, check_share
from zellige.train.training import SparseTraining


@dataclass
class Ste(Latent):
    """``decay`` is the paper's λ; masks are chosen anew ``every`` so many steps, and no more after the share ``until`` of them."""

    decay: float = 2e-4
    every: int = 1
    until: float = 1.0

    def __post_init__(self) -> None:
        check_share("decay", self.decay, most=float("inf"))
        check_count("every", self.every)
        check_share("until", self.until)

    def before_step(self, training: SparseTraining) -> None:
        self._masks = training.sparsifier.masks
        super().before_step(training)

    def gradient(self, name: str, gradient: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        masked = latent.masked_fill(self._masks[name].to(latent.device), 0)
        return gradient + self.decay * masked

    def effective(self, training: SparseTraining) -> dict[str, torch.Tensor]:
        if training.step % self.every == 0:
            training.set_masks(training.choice.from_weights())
        training.hold()
        return {}

    def after_step(self, training: SparseTraining) -> None:
        super().after_step(training)
        if self.latent and training.step >= self.until * training.steps:
            self.settle(training)

    def finish(self, training: SparseTraining) -> None:
        self.settle(training)
