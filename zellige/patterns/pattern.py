"""What every pattern answers: which weights go for given scores, whether a weight keeps to the pattern, and what it weighs.

A pattern is a pure function of shapes and scores. It is given all layers that are to share one threshold, one or many, and
makes their masks: a pattern whose decisions come in stages over several layers (tile-wise) has it all in view, one whose
weights decide among few neighbours (N:M) goes through them one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral

import torch

from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape
from zellige.patterns.shares import exact_sparsity

INDEX_BYTES = 4
FEWEST_CHOICES = 4  # with fewer, a layer can only lose a third or a half of itself at a time


@dataclass(frozen=True, eq=False)
class Census:
    """What ``Pattern.verify`` found in a weight."""

    blocks: int
    """How many blocks the weight has: sets of weights that go together, single weights where patterns count by them."""
    gone: int
    """How many of them are zero throughout."""
    violations: torch.Tensor
    """Where the weight breaks the pattern, a bool tensor of its shape: zeros in a block that is not zero (they win
    nothing, and a pruner of this pattern makes none), or weights of a group that holds more of them than it may."""

    @property
    def clean(self) -> bool:
        """Whether the weight keeps to the pattern."""
        return not bool(self.violations.any())

    @property
    def sparsity(self) -> float:
        """Share of blocks that are zero."""
        return self.gone / self.blocks


class Pattern(ABC):
    """The base of all patterns; subclasses are frozen dataclasses, so that equal patterns are equal and hashable.

    Masks are bool tensors of the weight's shape in which True means *stays*.
    """

    def __post_init__(self) -> None:
        """Whole numbers of numpy become Python's: tensors are cut by no others. Subclasses check theirs after this."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, int(value))

    @abstractmethod
    def __str__(self) -> str:
        """The form that ``parse_pattern`` reads, such as ``block:8x8``."""

    @abstractmethod
    def too_small(self, shape: WeightShape) -> str | None:
        """Why such a weight is too small to gain from the pattern, or None; a user may prune it all the same."""

    @abstractmethod
    def choose(self, layers: Sequence[Scored], sparsity: Fraction) -> list[torch.Tensor]:
        """The masks of layers that share one threshold, at a sparsity that was checked."""

    @abstractmethod
    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        """Counts what is zero in a weight, and finds where it breaks the pattern."""

    @abstractmethod
    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """Bytes of the kept weights at ``itemsize`` bytes each, together with the indices that say where they stand."""

    def refusal(self, shape: WeightShape) -> str | None:
        """Why the pattern makes no sense for such a weight at all, or None."""
        return "depthwise: each output has one input, there is nothing to skip" if shape.depthwise else None

    def check(self, sparsity: float) -> Fraction:
        """The sparsity as an exact number.

        Raises:
            PruneError: it is none, or none that the pattern can have.
        """
        return exact_sparsity(sparsity)

    def masks(self, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
        """The masks of layers that share one threshold.

        Raises:
            PruneError: the pattern can't have this sparsity, scores can't be ranked, or nothing would be left of a layer.
        """
        return self.choose(layers, self.check(sparsity))

    def mask(self, scores: torch.Tensor, sparsity: float, groups: int = 1) -> torch.Tensor:
        """The mask of one weight by its scores, such as ``weight.abs()``.

        Raises:
            PruneError: as ``masks``.
        """
        return self.masks([Scored(WeightShape(tuple(scores.shape), groups), lambda: scores)], sparsity)[0]

    def random_mask(self, shape: WeightShape, sparsity: float, generator: torch.Generator) -> torch.Tensor:
        """The mask of random scores; the same generator state gives the same mask."""
        drawn = torch.rand(shape.dims, generator=generator, dtype=torch.float64, device=generator.device)
        return self.mask(1 - drawn, sparsity, shape.groups)
