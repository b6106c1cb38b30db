"""Tile-element-wise sparsity (Guo et al., SC 2020): tile-wise, and a few weights restored wherever they matter most.

Tile-wise takes δ more than was asked; then the best of what it took are restored, one by one, until exactly ⌊sparsity × weights⌋
are gone, of all layers that are decided together. Where tile-wise fell short of the asked sparsity, nothing is restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real

import torch

from zellige.errors import PruneError
from zellige.patterns.pattern import INDEX_BYTES, Census, Pattern
from zellige.patterns.ranking import lowest
from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape
from zellige.patterns.shares import exact_sparsity, floor_share
from zellige.patterns.tile_wise import TileWise, by_taps


@dataclass(frozen=True)
class TileElementWise(Pattern):
    """``TileWise(rows, …)`` at ``delta`` more than the asked sparsity, and the best weights back.

    >>> str(TileElementWise(128, 0.01))
    'tew:128:0.01'

    Raises:
        PruneError: as ``TileWise``, or ``delta`` is not between 0 and 1.
    """

    rows: int
    delta: float
    whole_rows: bool = True
    per_tap: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.tile  # checks its arguments
        if not isinstance(self.delta, Real) or isinstance(self.delta, bool) or not 0 < self.delta < 1:
            raise PruneError(f"TileElementWise restores a share of all weights, more than 0 and less than 1, as in "
                             f"TileElementWise(128, 0.01); not {self.delta!r}.")
        object.__setattr__(self, "delta", float(exact_sparsity(self.delta)))

    @property
    def tile(self) -> TileWise:
        """What decides first."""
        return TileWise(self.rows, self.whole_rows, self.per_tap)

    def __str__(self) -> str:
        options = (":tile-rows" if not self.whole_rows else "") + (":per-tap" if self.per_tap else "")
        return f"tew:{self.rows}:{self.delta}{options}"

    def too_small(self, shape: WeightShape) -> str | None:
        return self.tile.too_small(shape)

    def check(self, sparsity: float) -> Fraction:
        asked = super().check(sparsity)
        if asked + exact_sparsity(self.delta) >= 1:
            raise PruneError(f"{self} takes {self.delta:g} more than the sparsity first; {float(asked):g} leaves no room for that.")
        return asked

    def choose(self, layers: Sequence[Scored], sparsity: Fraction) -> list[torch.Tensor]:
        masks = self.tile.choose(layers, sparsity + exact_sparsity(self.delta))
        taken = torch.cat([layer.scores()[~mask] for layer, mask in zip(layers, masks, strict=True)])
        asked = floor_share(sparsity, sum(layer.shape.weights for layer in layers))
        gone = lowest(taken.to(torch.promote_types(taken.dtype, torch.float32)), min(asked, len(taken)))
        for mask, of_layer in zip(masks, gone.split([int((~mask).sum()) for mask in masks]), strict=True):
            mask[~mask] = ~of_layer
        return masks

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        """Counts single weights. No weight breaks the pattern by itself: which were restored is a matter of all layers."""
        return Census(weight.numel(), int((weight == 0).sum()), torch.zeros_like(weight, dtype=torch.bool))

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """Tiles of the rows that aren't zero; each column of a tile as values and one index, or its weights with an index each,
        whichever is less; where each tile starts, and the number of each row."""
        tiles = self.tile.tiles(mask.flatten(1).any(1), WeightShape(tuple(mask.shape), groups))
        total = (len(tiles) + 1) * INDEX_BYTES
        for tile in tiles:
            marked = by_taps(mask)[tile]
            counts = marked.sum(0) if self.per_tap else marked.sum((0, 2))
            whole = marked.numel() // counts.numel() * itemsize + INDEX_BYTES
            total += int((counts * (itemsize + INDEX_BYTES)).clamp(max=whole).sum()) + len(tile) * INDEX_BYTES
        return total
