"""Patterns whose blocks are free of one another: a weight falls into blocks, and any of them may go.

Exactly ⌊sparsity × blocks⌋ go, of all layers that share a threshold together. A block counts with its mean score per
weight, so that blocks of all sizes compare: ragged edges would otherwise always go first, and with them, say, the last
classes of a classifier. The best block of every layer is set aside first: no layer collapses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import torch

from zellige.errors import PruneError
from zellige.patterns.pattern import Census, Pattern
from zellige.patterns.ranking import best_spared, lowest
from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape
from zellige.patterns.shares import floor_share


class Partition(Pattern):
    """A pattern that says only how it cuts a weight into blocks, which are numbered by position."""

    @abstractmethod
    def blocks(self, shape: WeightShape) -> int:
        """Number of blocks in such a weight."""

    @abstractmethod
    def block_sizes(self, shape: WeightShape) -> torch.Tensor:
        """Weights in each block: int64, one entry per block."""

    @abstractmethod
    def block_scores(self, scores: torch.Tensor, groups: int = 1) -> torch.Tensor:
        """Sums elementwise scores (of the weight's shape) per block: one entry per block."""

    @abstractmethod
    def expand(self, kept: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        """Spreads kept blocks (bool, one entry per block) over the weight: a bool tensor of the weight's shape."""

    def mean_scores(self, scores: torch.Tensor, groups: int = 1) -> torch.Tensor:
        """The score per weight of each block."""
        sizes = self.block_sizes(WeightShape(tuple(scores.shape), groups))
        return self.block_scores(scores, groups) / sizes.to(scores.device)

    def choose(self, layers: Sequence[Scored], sparsity: Fraction) -> list[torch.Tensor]:
        means = [self.mean_scores(layer.scores(), layer.shape.groups) for layer in layers]
        stay = self.staying(means, sparsity).split(list(map(len, means)))
        return [self.expand(blocks, layer.shape) for blocks, layer in zip(stay, layers, strict=True)]

    def staying(self, means: Sequence[torch.Tensor], sparsity: Fraction) -> torch.Tensor:
        """Which blocks stay, of layers that share one threshold, by their mean scores: bool, one layer after the other.

        Raises:
            PruneError: nothing would be left of a layer.
        """
        layers, blocks = len(means), sum(map(len, means))
        removed = floor_share(sparsity, blocks)
        if removed > blocks - layers:
            raise PruneError(f"Sparsity {float(sparsity)} takes {removed} of {blocks} blocks, but each of the {layers} "
                             f"layers must keep one. Lower the sparsity, or take smaller blocks than {self}.")
        return ~lowest(best_spared(means), removed)

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        shape = WeightShape(tuple(weight.shape), groups)
        zero = self.block_scores(weight != 0, groups) == 0
        return Census(len(zero), int(zero.sum()), (weight == 0) & self.expand(~zero, shape))

    def random_mask(self, shape: WeightShape, sparsity: float, generator: torch.Generator) -> torch.Tensor:
        """A mask at this sparsity whose blocks are drawn evenly; the same generator state gives the same mask."""
        blocks = self.blocks(shape)
        scores = torch.rand(blocks, generator=generator, dtype=torch.float64, device=generator.device)
        return self.expand(~lowest(scores, floor_share(self.check(sparsity), blocks)), shape)
