"""Optimisers by name. Weights of layers decay; biases, norms and other vectors do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zellige.errors import RecipeError
from zellige.train.schedule import RATES, learning_rate
from zellige.train.schemes.scheme import check_share


@dataclass(frozen=True)
class OptimizerOptions:
    """Which optimiser, and its learning rate over the run: up to the peak in the share ``warmup`` of the steps, then down as
    ``schedule`` says."""

    name: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup: float = 0.1

    def __post_init__(self) -> None:
        for option, known in (("name", OPTIMIZERS), ("schedule", RATES)):
            if getattr(self, option) not in known:
                raise RecipeError(f"optimizer's {option} must be one of {', '.join(known)}, not {getattr(self, option)!r}", option)
        check_share("learning_rate", self.learning_rate, most=float("inf"))
        check_share("weight_decay", self.weight_decay, most=float("inf"))
        check_share("momentum", self.momentum)
        check_share("warmup", self.warmup, most=0.99)

    def make(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model's parameters."""
        wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [{"params": [parameter for parameter in wanting if (parameter.dim() > 1) == decays],
                   "weight_decay": self.weight_decay if decays else 0.0} for decays in (True, False)]
        return OPTIMIZERS[self.name]([group for group in groups if group["params"]], self)

    def at(self, step: int, steps: int) -> float:
        """The learning rate of a step."""
        return learning_rate(step, steps, self.learning_rate, self.schedule, self.warmup)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], OptimizerOptions], torch.optim.Optimizer]] = {
    "sgd": lambda groups, options: torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=True),
    "adamw": lambda groups, options: torch.optim.AdamW(groups, lr=options.learning_rate),
}
"""Name → what makes one."""
