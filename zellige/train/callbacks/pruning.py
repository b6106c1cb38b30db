"""What a callback is told: which weights go, and by which scheme; the loop that it sits in has all the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zellige.errors import TrainingError
from zellige.patterns import Pattern
from zellige.train.choice import Choice
from zellige.train.recipe import Recipe
from zellige.train.schemes import Scheme
from zellige.train.training import SparseTraining


@dataclass(frozen=True)
class Pruning:
    """The part of a recipe that says what is to be zero; ``Recipe`` explains it.

    Raises:
        RecipeError: something in it is impossible.
    """

    pattern: Pattern | str | None = None
    sparsity: float | dict[str, float] | None = None
    scheme: Scheme | str | dict[str, Any] = "fixed"
    score: str = "l1"
    scope: str = "layer"
    targets: str | Sequence[str] | None = None
    ignore: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        self._recipe()

    def training(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer], steps: float
    ) -> SparseTraining:
        """A model that is about to be trained for so many steps.

        Raises:
            PruneError: there is nothing to prune as was asked.
            TrainingError: there are several optimisers, or no end to the steps.
        """
        recipe, optimizers = self._recipe(), [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
        if len(optimizers) != 1:
            raise TrainingError(f"schemes go with one optimiser, and there are {len(optimizers)}: a Sparsifier takes several")
        if not 0 < steps < float("inf"):
            raise TrainingError("schemes go by how many steps there are in all: set the number of steps or epochs")
        choice = None if recipe.wish is None else Choice(model, recipe.wish)
        return SparseTraining(model, recipe.scheme, choice, optimizers[0], int(steps))

    def _recipe(self) -> Recipe:
        targets, ignore = (entries if entries is None or isinstance(entries, str) else list(entries)
                           for entries in (self.targets, self.ignore))
        return Recipe(self.pattern, self.sparsity, self.scheme, self.score, self.scope, targets, ignore, steps=1)
