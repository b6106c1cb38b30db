"""Is an answer right? Every engine is held to PyTorch in float64 on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zellige.bench.rivals.torch_eager import arrays_of

F32_TOLERANCE = 1e-4
HALF_TOLERANCES = {"bf16": 3e-2, "f16": 4e-3}
"""Errors allowed in any case, as shares of the largest output. Dozens of layers round to 8 or 11 bits each in the short types."""


def reference_answer(model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[np.ndarray, ...]:
    """The network's outputs in float64."""
    with torch.no_grad():
        network = copy.deepcopy(model).double()
        return arrays_of(network(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs)))


@dataclass(frozen=True)
class Reference:
    """The right answer, and how far off it PyTorch itself is in f32, or in the short type that is computed in.

    That tells how strongly a network amplifies rounding: deep ones with batch norms and random weights do, by up to a
    hundred times, whatever engine runs them.
    """

    answer: tuple[np.ndarray, ...]
    torch_error: float

    @classmethod
    def of(cls, model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> Reference:
        """Run the network twice: in float64, and as it is."""
        answer = reference_answer(model, inputs)
        with torch.no_grad():
            return cls(answer, largest_relative_error(arrays_of(model(*inputs)), answer))

    def allowed(self, least: float, slack: float = 10.0) -> float:
        """The error that an engine may make: ``least``, or ``slack`` times PyTorch's own where that is more.

        Ten in f32, because Winograd's filters round about that much more than plain sums.
        """
        return max(least, slack * self.torch_error)


def largest_relative_error(answer: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """max|y − ref| ÷ max|ref|, the worst over all outputs; infinite where counts or shapes differ, or for NaN.

    >>> largest_relative_error([np.array([1.0, 4.5])], [np.array([1.0, 4.0])])
    0.125
    """
    if len(answer) != len(reference):
        return float("inf")
    return max((_one_error(ours, true) for ours, true in zip(answer, reference, strict=True)), default=0.0)


def _one_error(ours: np.ndarray, true: np.ndarray) -> float:
    if ours.shape != true.shape:
        return float("inf")
    if true.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(ours.astype(np.float64) - true).max())
    if not np.isfinite(difference):
        return float("inf")
    scale = float(np.abs(true).max())
    return difference / scale if scale else (0.0 if difference == 0 else float("inf"))
