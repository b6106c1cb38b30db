"""Where a comparison runs, a CPU or a GPU: what depends on it, apart from how a comparison goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch

from zellige.bench.accuracy import Reference
from zellige.bench.clock import Call, Turn
from zellige.bench.rivals.rival import BuildHere, Inputs
from zellige.bench.subject import Subject


class Place(ABC):
    """``settings`` are those of ``zl.compile``; ``our_tolerance`` and ``rival_tolerance`` errors allowed in any case, as shares of
    the largest output, and ``slack`` times PyTorch's own error in the same type where that is more."""

    dtype: str
    threads: int | None
    settings: Mapping[str, Any]
    turn: Turn
    lap: Callable[[Call], float] | None
    our_tolerance: float
    rival_tolerance: float
    slack: float

    @property
    @abstractmethod
    def rivals(self) -> Mapping[str, BuildHere]:
        """The engines that run here, by name."""

    @abstractmethod
    def bound(self, engine: Any, inputs: Inputs) -> Call:
        """A call of our engine on inputs that are where it likes them."""

    @abstractmethod
    def reference(self, model: torch.nn.Module, inputs: Inputs) -> Reference:
        """The right answer, and PyTorch's own error in the type that is computed in."""

    @abstractmethod
    def file_bytes(self, engine: Any) -> int | None:
        """The size of the engine as a file, None where there are none."""

    @abstractmethod
    def named(self) -> tuple[str, dict[str, object]]:
        """The hardware in a few words, and all that is known of it, as conditions of the comparison."""

    def conditions(self, subject: Subject) -> dict[str, object]:
        """What a number depends on: hardware, type, inputs."""
        words, facts = self.named()
        shapes = [list(tensor.shape) for tensor in subject.inputs]
        sizes = ", ".join("×".join(map(str, shape)) for shape in shapes)
        return {"summary": f"{words}, {self.dtype}, inputs {sizes}", **facts, "dtype": self.dtype, "batch": subject.batch,
                "inputs": shapes, "weights": subject.weights}
