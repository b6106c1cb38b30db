"""Schemes that train other weights than the network runs on.

Between steps the parameters hold what the network runs on, with its zeros. For the moment of the optimiser's step they hold
the latent weights, which stay dense, and gradients become those of the latent weights. So nothing is attached to the model, and
whoever looks at it between two steps sees it sparse.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch

from zellige.train.schemes.scheme import Scheme, refuse_shards
from zellige.train.training import SparseTraining


@dataclass
class Latent(Scheme, ABC):
    """The base of such schemes: they say what gradients become, and what the network runs on."""

    latent: dict[str, torch.Tensor] = field(default_factory=dict, init=False)
    """The weights that are trained, by name; empty once the scheme only holds zeros."""

    @abstractmethod
    def gradient(self, name: str, gradient: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """The latent weight's gradient, from that of the weight that the network ran on."""

    @abstractmethod
    def effective(self, training: SparseTraining) -> dict[str, torch.Tensor]:
        """What the network is to run on, by the latent weights."""

    def start(self, training: SparseTraining) -> None:
        """Before the first step, when the parameters are still the latent weights."""

    def begin(self, training: SparseTraining) -> None:
        refuse_shards(self, training)
        self.latent = {name: parameter.detach().clone() for name, parameter in training.parameters().items()}
        training.remembers = False
        self.start(training)
        self._show(training)

    @torch.no_grad()
    def before_step(self, training: SparseTraining) -> None:
        if not self.latent:
            return
        for name, parameter in training.parameters().items():
            latent = self.latent[name].to(parameter.device)
            if parameter.grad is not None:
                parameter.grad.copy_(self.gradient(name, parameter.grad, latent))
            parameter.copy_(latent)

    @torch.no_grad()
    def after_step(self, training: SparseTraining) -> None:
        if not self.latent:
            return
        self.latent = {name: parameter.detach().clone() for name, parameter in training.parameters().items()}
        self._show(training)

    def settle(self, training: SparseTraining) -> None:
        """From now on what the network runs on is trained itself, its zeros held."""
        self.latent = {}
        training.remembers = True
        training.hold()

    @torch.no_grad()
    def _show(self, training: SparseTraining) -> None:
        shown, parameters = self.effective(training), training.parameters()
        for name, weight in shown.items():
            parameters[name].copy_(weight)
