"""Tile-wise sparsity (Guo et al., SC 2020, and arXiv 2402.10876), with rows = outputs and columns = inputs.

The rows of a weight are cut into tiles of ``rows`` rows; every tile drops input columns of its own. In one form (TW1) that is
all. In the main one (TW2) whole rows go first, wherever they stand; the rows that are left are tiled, so tiles are full but
for the last one of a group. Each side loses 1 − √(1 − sparsity) of itself then, and both together the sparsity.

A column of a convolution is an input channel with all its taps or, ``per_tap`` as in the papers, at one tap.

Rows and columns go in the order of their mean score per weight, by one threshold over all layers and tiles that are decided
together, for as long as the zeros stay within what was asked: the nearest count from below that whole rows and columns can
make. The best row of every layer and the best column of every tile stay. Rows of no score at all may take up more than the rows'
side: as much as was asked of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from zellige.errors import PruneError
from zellige.patterns.pattern import FEWEST_CHOICES, INDEX_BYTES, Census, Pattern
from zellige.patterns.ranking import best_spared, lowest_within
from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape
from zellige.patterns.shares import floor_share, side_share
from zellige.patterns.sums import row_sums, tree_sum

Tiles = list[torch.Tensor]
"""The rows of each tile of a weight, by number."""


@dataclass(frozen=True)
class TileWise(Pattern):
    """Tiles of ``rows`` outputs that drop inputs of their own; with ``whole_rows`` outputs go first, and tiles hold those left.

    >>> str(TileWise(128)), str(TileWise(64, whole_rows=False, per_tap=True))
    ('tile:128', 'tile-rows:64:per-tap')

    Raises:
        PruneError: ``rows`` is not a positive whole number.
    """

    rows: int
    whole_rows: bool = True
    per_tap: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rows, int) or isinstance(self.rows, bool) or self.rows < 1:
            raise PruneError(f"Tiles hold a positive whole number of rows, as in TileWise(128); not {self.rows!r}.")

    def __str__(self) -> str:
        return f"{'tile' if self.whole_rows else 'tile-rows'}:{self.rows}" + (":per-tap" if self.per_tap else "")

    def too_small(self, shape: WeightShape) -> str | None:
        """A weight can gain if there are ``FEWEST_CHOICES`` to choose from. Fewer rows than a tile's are one tile."""
        columns = shape.columns * (shape.taps if self.per_tap else 1)
        few = columns < FEWEST_CHOICES or (self.whole_rows and shape.rows < FEWEST_CHOICES)
        return f"too small: {shape} leaves hardly anything to choose" if few else None

    def choose(self, layers: Sequence[Scored], sparsity: Fraction) -> list[torch.Tensor]:
        weights = sum(layer.shape.weights for layer in layers)
        live = self._live_rows(layers, sparsity, weights)
        lost = sum(int((~rows).sum()) * layer.shape.columns * layer.shape.taps for rows, layer in zip(live, layers, strict=True))
        tiles = [self.tiles(rows, layer.shape) for rows, layer in zip(live, layers, strict=True)]
        kept = self._kept_columns(layers, tiles, floor_share(sparsity, weights) - lost)
        return [_mask(of_layer, columns, layer.shape) for of_layer, columns, layer in zip(tiles, kept, layers, strict=True)]

    def tiles(self, live: torch.Tensor, shape: WeightShape) -> Tiles:
        """The tiles of a weight of which these rows are left (bool, one entry per row)."""
        groups = torch.arange(shape.rows, device=live.device).reshape(shape.groups, -1)
        left = [rows[live[rows]] if self.whole_rows else rows for rows in groups]
        return [tile for rows in left if len(rows) for tile in rows.split(self.rows)]

    def columns(self, marked: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        """Which columns of a tile hold any marked weight: columns × taps of the weight, or × 1 with all taps together."""
        any_row = by_taps(marked)[tile].any(0)
        return any_row if self.per_tap else any_row.any(1, keepdim=True)

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        """Blocks are single weights here; those in rows and columns of tiles that are zero throughout are gone."""
        shape = WeightShape(tuple(weight.shape), groups)
        filled = weight != 0
        tiles = self.tiles(filled.flatten(1).any(1), shape)
        kept = _mask(tiles, [self.columns(filled, tile) for tile in tiles], shape).to(weight.device)
        return Census(shape.weights, int((~kept).sum()), kept & ~filled)

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """Values, one index per kept column of a tile, where each tile starts, and the number of each row that is left."""
        tiles = self.tiles(mask.flatten(1).any(1), WeightShape(tuple(mask.shape), groups))
        columns = sum(int(self.columns(mask, tile).sum()) for tile in tiles)
        rows = sum(map(len, tiles)) if self.whole_rows else 0
        return int(mask.sum()) * itemsize + (columns + rows + len(tiles) + 1) * INDEX_BYTES

    def _live_rows(self, layers: Sequence[Scored], sparsity: Fraction, weights: int) -> list[torch.Tensor]:
        """The rows left of each layer after the first stage; all of them where there is none."""
        if not self.whole_rows:
            return [torch.ones(layer.shape.rows, dtype=torch.bool) for layer in layers]
        sums = [row_sums(layer.scores()) for layer in layers]
        lengths = [layer.shape.columns * layer.shape.taps for layer in layers]
        means = [scores / length for scores, length in zip(sums, lengths, strict=True)]
        sizes = torch.cat([torch.full_like(rows, length, dtype=torch.long) for rows, length in zip(sums, lengths, strict=True)])
        ranked = best_spared(means)
        without_score = int(sizes[ranked == 0].sum())
        budget = max(side_share(sparsity, weights), min(without_score, floor_share(sparsity, weights)))
        gone = lowest_within(ranked, sizes, budget)
        return [~rows for rows in gone.split(list(map(len, means)))]

    def _kept_columns(self, layers: Sequence[Scored], tiles: Sequence[Tiles], budget: int) -> list[list[torch.Tensor]]:
        """The columns that each tile of each layer keeps, as ``columns`` has them."""
        sums = [self._column_sums(layer.scores(), of_layer) for layer, of_layer in zip(layers, tiles, strict=True)]
        parts, sizes = [], []
        for layer, of_layer, of_tiles in zip(layers, tiles, sums, strict=True):
            for tile, columns in zip(of_layer, of_tiles, strict=True):
                size = len(tile) * layer.shape.taps // columns.shape[1]
                parts.append(columns.flatten() / size)
                sizes.append(torch.full_like(parts[-1], size, dtype=torch.long))
        gone = lowest_within(best_spared(parts), torch.cat(sizes), budget)
        pieces = iter(gone.split(list(map(len, parts))))
        return [[~next(pieces).reshape(columns.shape) for columns in of_tiles] for of_tiles in sums]

    def _column_sums(self, scores: torch.Tensor, tiles: Tiles) -> list[torch.Tensor]:
        """Sums of scores over the rows of each tile: columns × taps or, with all taps together, columns × 1."""
        sums = [tree_sum(by_taps(scores)[tile].double(), 0) for tile in tiles]
        return sums if self.per_tap else [tree_sum(columns, 1)[:, None] for columns in sums]


def _mask(tiles: Tiles, kept: Sequence[torch.Tensor], shape: WeightShape) -> torch.Tensor:
    """A weight's mask by the columns that each tile keeps."""
    mask = torch.zeros(shape.rows, shape.columns, shape.taps, dtype=torch.bool, device=kept[0].device if kept else "cpu")
    for tile, columns in zip(tiles, kept, strict=True):
        mask[tile.to(mask.device)] = columns
    return mask.reshape(shape.dims)


def by_taps(tensor: torch.Tensor) -> torch.Tensor:
    """A weight, or what has its shape, as rows × columns × taps."""
    return tensor.reshape(*tensor.shape[:2], -1)
