"""What a score that looks at data answers: it runs the model, and then has the scores of every layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import nn

from zellige.errors import PruneError
from zellige.prune.calibration import Calibration
from zellige.prune.layers import Layer


class DataScore(ABC):
    """The base of all scores that are measured on batches; subclasses are frozen dataclasses."""

    of_loss: ClassVar[bool] = False
    """Whether scores say what happens to the loss, so that those of several layers compare, and add up."""

    def __str__(self) -> str:
        return type(self).__name__.lower()

    @abstractmethod
    def measure(self, model: nn.Module, layers: Sequence[Layer], calibration: Calibration) -> Callable[[Layer], torch.Tensor]:
        """Runs the model on the batches, leaves it as it was, and returns what gives the scores of a layer's weights.

        Raises:
            PruneError: there is no data, the model or the loss can't run on it, or a layer takes no part.
        """


def accumulator(weight: torch.Tensor) -> torch.Tensor:
    """Zeros in a weight's shape to add up in: float32, or float64 for a weight of that type."""
    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32), requires_grad=False)


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers in float64, on the CPU: not every device has the type."""
    return tensor.detach().cpu().double()


def refuse_idle(idle: Sequence[Layer], purpose: str, why: str) -> None:
    """Raises one ``PruneError`` that names the layers of which a measurement learns nothing, if there are any."""
    if idle:
        names = ", ".join(f"'{layer.name}'" for layer in idle[:5]) + (f" and {len(idle) - 5} more" if len(idle) > 5 else "")
        raise PruneError(f"{purpose}: {why} {names}. Name what can't be judged in ignore, or take another score.")
