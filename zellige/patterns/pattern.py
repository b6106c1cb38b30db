"""What every pattern answers: which weights stand or fall together, and which choices among them are allowed.

A pattern cuts a weight into *blocks*, numbered by position, and is a pure function of shapes and scores: elementwise
scores are summed per block, some blocks are chosen to go, the choice is spread over the weight as a mask.

A pattern whose blocks are free of one another (``Block``) says only how it cuts. One that restricts which blocks may go
together (so many of every few, whole tiles, ragged lists) has blocks as small as what can go singly, and overrides
``removable`` (how many go) and ``choose`` (which).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

import torch

from zellige.patterns.shape import WeightShape


def floor_share(sparsity: float, blocks: int) -> int:
    """⌊sparsity × blocks⌋, with the sparsity taken as the decimal number that was written.

    In binary, 0.29 × 100 falls just short of 29; a person who writes 0.29 means 29 of 100.

    >>> floor_share(0.29, 100), floor_share(0.5, 7)
    (29, 3)
    """
    return math.floor(Fraction(repr(float(sparsity))) * blocks)


@dataclass(frozen=True)
class Census:
    """What ``Pattern.verify`` found in a weight, block by block (two bool tensors of one entry per block)."""

    zero: torch.Tensor
    """Blocks in which every weight is zero: what a kernel can skip."""
    partial: torch.Tensor
    """Blocks with some zeros, but not only zeros: zeros that win nothing, and the violations if a pruner made them."""

    @property
    def sparsity(self) -> float:
        """Share of blocks that are zero."""
        return float(self.zero.double().mean())


class Pattern(ABC):
    """The base of all patterns; subclasses are frozen dataclasses, so that equal patterns are equal and hashable.

    Masks and kept blocks are bool tensors in which True means *stays*. Scores are never negative.
    """

    @abstractmethod
    def __str__(self) -> str:
        """The form that ``parse_pattern`` reads, such as ``block:8x8``."""

    @abstractmethod
    def refusal(self, shape: WeightShape) -> str | None:
        """Why the pattern makes no sense for such a weight at all, or None."""

    @abstractmethod
    def too_small(self, shape: WeightShape) -> str | None:
        """Why such a weight is too small to gain from the pattern, or None; a user may prune it all the same."""

    @abstractmethod
    def blocks(self, shape: WeightShape) -> int:
        """Number of blocks in such a weight."""

    @abstractmethod
    def block_sizes(self, shape: WeightShape) -> torch.Tensor:
        """Weights in each block: int64, one entry per block."""

    @abstractmethod
    def block_scores(self, scores: torch.Tensor, groups: int = 1) -> torch.Tensor:
        """Sums elementwise scores (of the weight's shape) per block: float64, one entry per block."""

    @abstractmethod
    def expand(self, kept: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        """Spreads kept blocks (bool, one entry per block) over the weight: a bool tensor of the weight's shape."""

    @abstractmethod
    def compact_bytes(self, kept: torch.Tensor, shape: WeightShape, itemsize: int = 4) -> int:
        """Bytes of the kept weights at ``itemsize`` bytes each, together with the indices that say where they stand."""

    def removable(self, shape: WeightShape, sparsity: float) -> int:
        """How many blocks of such a weight go at this sparsity."""
        return floor_share(sparsity, self.blocks(shape))

    def choose(self, block_scores: torch.Tensor, removed: int, shape: WeightShape) -> torch.Tensor:
        """Keeps all but the ``removed`` blocks of lowest score; among equals, those of lower position go first."""
        kept = torch.ones(self.blocks(shape), dtype=torch.bool, device=block_scores.device)
        kept[torch.argsort(block_scores, stable=True)[:removed]] = False
        return kept

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        """Finds out which blocks of a weight are zero, and which hold zeros without being zero."""
        shape = WeightShape(tuple(weight.shape), groups)
        filled = self.block_scores(weight != 0, groups)
        zero = filled == 0
        return Census(zero, ~zero & (filled < self.block_sizes(shape).to(filled.device)))

    def random_mask(self, shape: WeightShape, sparsity: float, generator: torch.Generator) -> torch.Tensor:
        """A mask at this sparsity whose blocks are drawn evenly; the same generator state gives the same mask."""
        scores = torch.rand(self.blocks(shape), generator=generator, dtype=torch.float64, device=generator.device)
        return self.expand(self.choose(scores, self.removable(shape, sparsity), shape), shape)
