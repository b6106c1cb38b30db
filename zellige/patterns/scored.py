"""A weight's scores, computed when they are asked for: never more than one layer's need lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from zellige.errors import PruneError
from zellige.patterns.shape import WeightShape


@dataclass(frozen=True, eq=False)
class Scored:
    """A weight's shape, what computes its scores, and its layer's name for messages.

    Scores have the weight's shape, are never negative, and larger where a weight matters more.
    """

    shape: WeightShape
    compute: Callable[[], torch.Tensor]
    name: str = ""

    def scores(self) -> torch.Tensor:
        """Elementwise scores in the weight's shape, floating-point numbers of two bytes at least.

        Raises:
            PruneError: they have another shape, can't be ranked (NaN, infinite, negative, complex), or are all zero.
        """
        scores = self.compute()
        whose = f"The scores of layer '{self.name}'" if self.name else "The scores"
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != self.shape.dims:
            came = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise PruneError(f"{whose} must be a tensor of the weight's shape {self.shape.dims}, not {came}.")
        if scores.layout is not torch.strided or scores.is_meta or scores.is_complex() or scores.is_quantized:
            raise PruneError(f"{whose} must be real numbers in an ordinary tensor, not {scores.dtype} in one that is "
                             f"{scores.layout} on {scores.device}.")
        if not scores.is_floating_point():
            scores = scores.double()
        elif scores.itemsize == 1:
            scores = scores.float()
        least, largest = map(float, torch.aminmax(scores))
        if not 0 <= least <= largest < float("inf"):
            raise PruneError(f"{whose} lie between {least} and {largest}; expected finite numbers that are not negative.")
        if largest == 0:
            raise PruneError(f"{whose} are all zero, so nothing tells which weights matter; leave the layer out "
                             "(name it in ignore), or give it weights first.")
        return scores
