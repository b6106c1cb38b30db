"""What a source is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """What a user wants of a model: the part of its name after the colon, batch size, input shape, seed.

    ``shape`` is one input's shape without the batch dimension, for sources that don't know it.
    """

    name: str
    batch: int = 1
    shape: Shape | None = None
    seed: int = 0

    def example(self, default: Shape) -> torch.Tensor:
        """A seeded input of the asked shape, batch first: standard normal, like a whitened image."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn((self.batch, *(self.shape or default)), generator=generator)


def batch_of(inputs: tuple[torch.Tensor, ...]) -> int:
    """The batch size of inputs: the first dimension of the first."""
    return inputs[0].shape[0] if inputs[0].dim() else 1


@dataclass
class NamedModel:
    """A network in eval mode, example inputs for it, and where its weights come from.

    ``random_weights`` is true where nobody trained them: speeds hold, answers mean nothing, and reports say so.
    """

    name: str
    model: torch.nn.Module
    example_inputs: tuple[torch.Tensor, ...]
    weights: str
    random_weights: bool
