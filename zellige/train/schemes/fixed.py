"""Choose the mask once, then train what is left: the first, and best, method of D'Alberto et al. (arXiv 2407.09453).

Without a pattern, the zeros that the model has already are held, whoever made them: ``zl.prune``, a one-shot solver, another tool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zellige.errors import TrainingError
from zellige.train.choice import Wish
from zellige.train.schemes.scheme import Scheme
from zellige.train.sparsifier import zero_masks
from zellige.train.training import SparseTraining


@dataclass
class Fixed(Scheme):
    """One mask, from before the first step to the last."""

    needs_wish: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._chooses = False

    def check(self, wish: Wish | None) -> None:
        self._chooses = wish is not None

    def begin(self, training: SparseTraining) -> None:
        masks = training.choice.from_weights() if self._chooses else zero_masks(training.model)
        if not masks:
            raise TrainingError("the model has no zeros to hold: give a pattern and a sparsity, or prune it first")
        training.set_masks(masks)
