"""Single weights, wherever they stand (Han et al., arXiv 1506.02626): what keeps most at a given sparsity, and gains least."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zellige.patterns.partition import Partition
from zellige.patterns.pattern import FEWEST_CHOICES, INDEX_BYTES
from zellige.patterns.shape import WeightShape


@dataclass(frozen=True)
class Unstructured(Partition):
    """Every weight is a block of its own.

    >>> Unstructured().mask(torch.tensor([[4.0, 1.0], [3.0, 2.0]]), 0.5).tolist()
    [[True, False], [True, False]]
    """

    def __str__(self) -> str:
        return "unstructured"

    def too_small(self, shape: WeightShape) -> str | None:
        return f"too small: {shape.weights} weights" if shape.weights < FEWEST_CHOICES else None

    def blocks(self, shape: WeightShape) -> int:
        return shape.weights

    def block_sizes(self, shape: WeightShape) -> torch.Tensor:
        return torch.ones((), dtype=torch.int64, device="cpu").expand(shape.weights)

    def block_scores(self, scores: torch.Tensor, groups: int = 1) -> torch.Tensor:
        return scores.flatten()

    def mean_scores(self, scores: torch.Tensor, groups: int = 1) -> torch.Tensor:
        return scores.flatten().to(torch.promote_types(scores.dtype, torch.float32))

    def expand(self, kept: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        return kept.reshape(shape.dims)

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """Compressed rows: values, one index each, and where every row starts (and the last one ends)."""
        return int(mask.sum()) * (itemsize + INDEX_BYTES) + (len(mask) + 1) * INDEX_BYTES
