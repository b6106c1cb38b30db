"""No pruning at all: the training that others are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zellige.errors import RecipeError
from zellige.train.choice import Wish
from zellige.train.schemes.scheme import Scheme


@dataclass
class Dense(Scheme):
    """Trains, and holds nothing at zero."""

    needs_wish: ClassVar[bool] = False

    def check(self, wish: Wish | None) -> None:
        if wish is not None:
            raise RecipeError("scheme 'dense' prunes nothing: leave out pattern and sparsity, or take another scheme")
