"""What a rival is: another engine that runs the same dense network on the same processor or GPU.

A rival is built once, bound to its inputs, and then called with nothing left to do but its own work: no conversion, no
copy that its interface does not force on every user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zellige.errors import BenchmarkError

if TYPE_CHECKING:
    import torch


class UnavailableRivalError(BenchmarkError):
    """A rival that can't run here: it is not installed, lacks a tool, or does not take this network."""


@dataclass(frozen=True)
class Rival:
    """One engine, ready to be timed.

    ``call`` runs the network once on the bound inputs; ``outputs`` turns what it returned into numpy arrays, outside
    the clock. ``settings`` says how the engine was set up, and goes into the report.
    """

    name: str
    version: str
    call: Callable[[], object]
    outputs: Callable[[object], tuple[np.ndarray, ...]]
    settings: dict[str, object] = field(default_factory=dict)

    def answer(self) -> tuple[np.ndarray, ...]:
        """Run once and return the outputs as numpy arrays."""
        return self.outputs(self.call())


Inputs = tuple["torch.Tensor", ...]
Build = Callable[["torch.nn.Module", Inputs, int], Rival]
BuildForGpu = Callable[["torch.nn.Module", Inputs, "torch.dtype"], Rival]
BuildHere = Callable[["torch.nn.Module", Inputs], Rival]
"""For a number of threads, for a type on the current GPU, and where such is settled."""


def contiguous_arrays(inputs: Inputs) -> list[np.ndarray]:
    """Inputs as contiguous numpy arrays, in the order the network takes them."""
    return [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in inputs]
