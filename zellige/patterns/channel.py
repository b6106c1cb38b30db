"""Whole output channels, filters of a convolution (Li et al., arXiv 1608.08710)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zellige.patterns.partition import Partition
from zellige.patterns.pattern import FEWEST_CHOICES, INDEX_BYTES
from zellige.patterns.shape import WeightShape
from zellige.patterns.sums import row_sums


@dataclass(frozen=True)
class Channel(Partition):
    """Every row is a block: an output with all its inputs and taps.

    The layer keeps its shape; what a removed output gives is its bias.

    >>> Channel().mask(torch.tensor([[1.0, 1.0], [3.0, 0.0]]), 0.5).tolist()
    [[False, False], [True, True]]
    """

    def __str__(self) -> str:
        return "channel"

    def too_small(self, shape: WeightShape) -> str | None:
        return f"too small: only {shape.rows} rows" if shape.rows < FEWEST_CHOICES else None

    def blocks(self, shape: WeightShape) -> int:
        return shape.rows

    def block_sizes(self, shape: WeightShape) -> torch.Tensor:
        return torch.full((shape.rows,), shape.columns * shape.taps, device="cpu")

    def block_scores(self, scores: torch.Tensor, groups: int = 1) -> torch.Tensor:
        return row_sums(scores)

    def expand(self, kept: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        return kept.reshape(-1, *[1] * (len(shape.dims) - 1)).expand(shape.dims).contiguous()

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """Values, and the number of every kept row."""
        return int(mask.sum()) * itemsize + int(mask.flatten(1).any(1).sum()) * INDEX_BYTES
