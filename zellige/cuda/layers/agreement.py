"""Whether a way answers as the dense layer does. Nobody who doesn't takes part in a race: fast and wrong is no choice.

Two roundings to bfloat16 may part two right answers, sums in another order next to nothing; a tile that is left out, read from the
wrong place or written to it costs a good part of a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from zellige.errors import CompileError

TOLERANCE = 2e-2
"""Of ‖product‖: how far off an answer may be."""

ROUNDING = 2.0**-7
"""Of ‖bias‖ and ‖residual‖, which may be far larger than the product: two roundings to 8 bits, and their order."""


@dataclass(frozen=True)
class Answer:
    """The dense layer's, and the norm of the difference that another may have to it."""

    numbers: torch.Tensor
    allowed: float

    @classmethod
    def of_product(cls, product: torch.Tensor) -> Answer:
        """Of a product that nothing was added to."""
        return cls(product, TOLERANCE * norm(torch.where(product.isfinite(), product, 0)))


@dataclass(frozen=True)
class Agreement:
    """With an answer that is made when the first other one is to be looked at: whoever runs out of memory then does so in the race,
    where that is told."""

    make: Callable[[], Answer]

    @cached_property
    def dense(self) -> Answer:
        return self.make()

    def check(self, answer: torch.Tensor) -> None:
        """``CompileError`` where an answer is further off than rounding explains, or is no number where the dense one is.

        >>> agreement = Agreement(lambda: Answer.of_product(torch.tensor([3.0, 4.0])))
        >>> agreement.check(torch.tensor([3.05, 4.0]))
        >>> agreement.check(torch.tensor([3.0, 0.0]))
        Traceback (most recent call last):
        zellige.errors.CompileError: its answer is off by 4 from the dense layer's, where rounding explains 0.1
        """
        dense = self.dense.numbers
        alike = (answer == dense) | (answer.isnan() & dense.isnan())  # infinite numbers are, too, which have no difference
        off = norm(torch.where(alike, 0, answer - dense))
        if not off <= self.dense.allowed:
            raise CompileError(f"its answer is off by {off:.3g} from the dense layer's, where rounding explains "
                               f"{self.dense.allowed:.2g}")


def norm(numbers: torch.Tensor) -> float:
    """‖numbers‖, in float32.

    >>> norm(torch.full((4,), 6e4, dtype=torch.float16))
    120000.0
    """
    return float(torch.linalg.vector_norm(numbers, dtype=torch.float32))
