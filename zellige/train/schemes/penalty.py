"""A trainable mask, driven to zeros and ones by a penalty: the third method of D'Alberto et al. (arXiv 2407.09453).

Every block has a number Γ that its weights are multiplied with, 1 at first. To the loss is added, for every layer,

    λ1 = −(max Γ − min Γ) + β ‖Γ − T‖² + ι ‖Γ‖₁,    λ2 = λ1 + max(−Γ, 0) + max(Γ − 1, 0),    λ3 = λ2 with −min Γ ÷ max Γ

in place of −(max − min) in the last one; max and min are smooth, LSE(x, α) = (1/α) log Σ exp(α x). As written, T is the *number* of
blocks that are to stay, which each Γ, a number about 1, is held against: the larger the layer, the more the penalty drowns the
loss, and the authors say that they could not make it work. ``normalised`` compares density with density, (mean Γ − T ÷ blocks)²,
and takes means in place of sums, so that layers of all sizes are treated alike.

At the share ``until`` of the steps, the blocks with the lowest Γ go, as many as the sparsity says; what stays keeps its weight
times Γ, and is trained as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from zellige.errors import RecipeError
from zellige.train.choice import Choice, Wish
from zellige.train.schemes.latent import Latent
from zellige.train.schemes.scheme import check_count, check_share, free_blocks, one_sparsity, refuse_frozen
from zellige.train.training import SparseTraining


@dataclass
class Penalty(Latent):
    """``form`` is 1, 2 or 3 for λ1 to λ3; ``strength`` multiplies the whole of it; Γ moves by Adam, at ``learning_rate``."""

    form: int = 3
    normalised: bool = True
    strength: float = 1.0
    alpha: float = 100.0
    beta: float | None = None
    iota: float = 1e-3
    learning_rate: float = 1e-2
    until: float = 0.5

    gammas: dict[str, torch.Tensor] = field(default_factory=dict, init=False)
    adam: dict[str, Any] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_count("form", self.form)
        if self.form > 3:
            raise RecipeError(f"form must be 1, 2 or 3, for λ1, λ2 or λ3; not {self.form}", "form")
        check_share("until", self.until)
        for name in ("strength", "alpha", "iota", "learning_rate"):
            check_share(name, getattr(self, name), most=float("inf"))
        if self.beta is None:
            self.beta = 1.0 if self.normalised else 1e-3
        check_share("beta", self.beta, most=float("inf"))

    def check(self, wish: Wish | None) -> None:
        super().check(wish)
        assert wish is not None
        free_blocks(self, wish)
        one_sparsity(self, wish)

    def begin(self, training: SparseTraining) -> None:
        refuse_frozen(self, training)
        super().begin(training)

    def start(self, training: SparseTraining) -> None:
        pattern = free_blocks(self, training.choice.wish)
        self.gammas = {name: torch.ones(pattern.blocks(layer.shape), device=self.latent[name].device)
                       for name, layer in training.choice.layers.items()}
        self.adam = None
        self._optimizer = self._new_optimizer()

    def before_step(self, training: SparseTraining) -> None:
        if not self.latent:
            return
        self._choice = training.choice
        density = 1 - one_sparsity(self, training.choice.wish)
        for name, parameter in training.parameters().items():
            gamma, layer = self.gammas[name], self._choice.layers[name]
            with torch.enable_grad():
                leaf = gamma.detach().requires_grad_()
                term = self.strength * penalty(leaf, density, self.form, self.normalised, self.alpha, self.beta or 0.0, self.iota)
                gamma.grad, = torch.autograd.grad(term, leaf)
            if parameter.grad is not None:
                product = parameter.grad * self.latent[name]
                gamma.grad += free_blocks(self, self._choice.wish).block_scores(product, layer.shape.groups).to(gamma.dtype)
        super().before_step(training)
        if all(bool(gamma.grad.isfinite().all()) for gamma in self.gammas.values() if gamma.grad is not None):
            self._optimizer.step()  # else the weights' optimiser skips its step as well
        self.adam = self._optimizer.state_dict()

    def gradient(self, name: str, gradient: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        return gradient * self._spread(self._choice, name).to(gradient.dtype)

    def effective(self, training: SparseTraining) -> dict[str, torch.Tensor]:
        return {name: latent * self._spread(training.choice, name).to(latent.dtype) for name, latent in self.latent.items()}

    def after_step(self, training: SparseTraining) -> None:
        super().after_step(training)
        if self.latent and training.step >= self.until * training.steps:
            self._harden(training)

    def finish(self, training: SparseTraining) -> None:
        if self.latent:
            self._harden(training)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.latent:
            self._optimizer = self._new_optimizer()
            if self.adam is not None:
                self._optimizer.load_state_dict(self.adam)

    def _harden(self, training: SparseTraining) -> None:
        """Prune the blocks of the lowest Γ."""
        least = min(float(gamma.min()) for gamma in self.gammas.values())
        scores = {name: self._spread(training.choice, name) - least + 1.0 for name in self.gammas}
        masks = training.choice.from_scores(scores)
        self.settle(training)
        training.set_masks(masks)

    def _spread(self, choice: Choice, name: str) -> torch.Tensor:
        """Γ over the weight, each number at all weights of its block."""
        return free_blocks(self, choice.wish).expand(self.gammas[name], choice.layers[name].shape)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(list(self.gammas.values()), lr=self.learning_rate)


def penalty(
    gamma: torch.Tensor, density: float, form: int, normalised: bool, alpha: float, beta: float, iota: float
) -> torch.Tensor:
    """λ1, λ2 or λ3 of one layer's Γ.

    >>> round(float(penalty(torch.tensor([0.0, 1.0]), 0.5, 1, True, 100.0, 1.0, 0.0)), 6)
    -1.0
    """
    largest, least = smooth_max(gamma, alpha), -smooth_max(-gamma, alpha)
    spread = -(largest - least) if form < 3 else -least / largest
    amount: Any = torch.mean if normalised else torch.sum
    goal = (gamma.mean() - density) ** 2 if normalised else ((gamma - round(density * gamma.numel())) ** 2).sum()
    term = spread + beta * goal + iota * amount(gamma.abs())
    if form >= 2:
        term = term + amount((-gamma).clamp(min=0)) + amount((gamma - 1).clamp(min=0))
    return term


def smooth_max(values: torch.Tensor, alpha: float) -> torch.Tensor:
    """LSE(x, α) = (1/α) log Σ exp(α x), at most (log n)/α above the largest.

    >>> round(float(smooth_max(torch.tensor([0.0, 1.0]), 100.0)), 6)
    1.0
    """
    return torch.logsumexp(alpha * values.flatten(), 0) / alpha if alpha else values.mean() + math.log(values.numel())
