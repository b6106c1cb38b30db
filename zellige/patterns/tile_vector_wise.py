"""Tile-vector-wise sparsity (Guo et al., arXiv 2402.10876): tile-wise, and N:M inside the tiles.

Tile-wise takes the first part; then, in every row of a tile, n of every m consecutive columns that the tile kept stay, at
each tap. The last few columns of a tile count as a full group padded with zeros: up to n of them stay.

``ordered``, for 2:4: the columns of each tile are put first into an order in which 2:4 keeps more (``column_order``). It costs
nothing where columns are gathered, and is kept nowhere: whoever packs the weight finds groups again (``fours``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch.nn.functional import pad

from zellige.errors import PruneError
from zellige.patterns.column_order import order_columns
from zellige.patterns.fixed_share import index_bits
from zellige.patterns.fours import arrange, worth_packing
from zellige.patterns.nm import best_of_groups, overfull
from zellige.patterns.pattern import Census
from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape
from zellige.patterns.tile_wise import TileWise, by_taps
from zellige.patterns.vector_wise import VectorWise


@dataclass(frozen=True)
class TileVectorWise(VectorWise):
    """``TileWise(rows, …)``, and ``n`` of every ``m`` columns inside: the sparsity is 1 − n ÷ m or more.

    With ``ordered`` the groups of m are not neighbours, but chosen so that more stays.

    >>> str(TileVectorWise(128, 2, 4)), str(TileVectorWise(128, 2, 4, ordered=True))
    ('tvw:128:2:4', 'tvw:128:2:4:ordered')

    Raises:
        PruneError: as ``TileWise`` and ``NM``; ``ordered`` with anything else than 2:4.
    """

    rows: int
    n: int
    m: int
    whole_rows: bool = True
    per_tap: bool = False
    ordered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.tile, self.inside  # they check their arguments
        if self.ordered and (self.n, self.m) != (2, 4):
            raise PruneError(f"An order of columns is looked for 2:4 alone, as in tvw:128:2:4:ordered; not {self.n}:{self.m}.")

    @property
    def tile(self) -> TileWise:
        """What decides on rows and on the columns of tiles."""
        return TileWise(self.rows, self.whole_rows, self.per_tap)

    def __str__(self) -> str:
        options = (":tile-rows" if not self.whole_rows else "") + (":per-tap" if self.per_tap else "")
        options += ":ordered" if self.ordered else ""
        return f"tvw:{self.rows}:{self.n}:{self.m}{options}"

    def too_small(self, shape: WeightShape) -> str | None:
        return self.tile.too_small(shape) or self.inside.too_small(shape)

    def choose(self, layers: Sequence[Scored], sparsity: Fraction) -> list[torch.Tensor]:
        tiled = self.tile.choose(layers, self.outer_sparsity(sparsity))
        return [self._thinned(layer.scores(), mask, layer.shape) for layer, mask in zip(layers, tiled, strict=True)]

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        """Blocks are single weights. A tile's columns are those that show a weight, and whichever others make its groups fit.

        With ``ordered``, a tile breaks the pattern if no groups were found by which it can be packed (``fours.worth_packing``).
        """
        shape = WeightShape(tuple(weight.shape), groups)
        filled = weight != 0
        violations = torch.zeros_like(by_taps(filled))
        for part in self._parts(filled, shape):
            lines = part.lines(filled)
            shown = lines.any(0)
            broken = overfull(lines[:, shown], self.n, self.m)
            if broken.any() and not self._can_be_grouped(lines):
                part.write(violations, shown, broken)
        return Census(shape.weights, int((~filled).sum()), violations.reshape(shape.dims))

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """As tile-wise, and the place of each value in its group, in bits."""
        places = -(-int(mask.sum()) * index_bits(self.m) // 8)
        return self.tile.compact_bytes(mask, groups, itemsize) + places

    def _thinned(self, scores: torch.Tensor, mask: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        """A tile-wise mask without what N:M takes away from it."""
        thinned = torch.zeros_like(by_taps(mask))
        for part in self._parts(mask, shape):
            columns = part.lines(mask).any(0)
            part.write(thinned, columns, self._best(part.lines(scores)[:, columns]))
        return thinned.reshape(shape.dims)

    def _best(self, lines: torch.Tensor) -> torch.Tensor:
        """What stays of the columns that a tile kept, by their scores: lines × columns."""
        if not self.ordered:
            return best_of_groups(lines, self.n, self.m)
        columns = lines.shape[1]
        whole = columns - columns % self.m  # the last few stay where they are
        order = torch.cat([torch.from_numpy(order_columns(lines[:, :whole].double().cpu().numpy())), torch.arange(whole, columns)])
        best = torch.zeros_like(lines, dtype=torch.bool)
        best[:, order.to(lines.device)] = best_of_groups(lines[:, order.to(lines.device)], self.n, self.m)
        return best

    def _can_be_grouped(self, lines: torch.Tensor) -> bool:
        if not self.ordered:
            return _can_be_grouped(lines, self.n, self.m)
        marks = lines.cpu().numpy()
        return worth_packing(marks, arrange(marks))

    def _parts(self, marked: torch.Tensor, shape: WeightShape) -> Iterator[Part]:
        """The parts of a weight whose rows share their columns: a tile, or one of its taps."""
        for rows in self.tile.tiles(marked.flatten(1).any(1), shape):
            if self.per_tap:
                yield from (Part(rows, slice(tap, tap + 1)) for tap in range(shape.taps))
            else:
                yield Part(rows, slice(None))


@dataclass(frozen=True, eq=False)
class Part:
    """Rows and taps of a weight. Its lines are rows × taps, each of which holds all columns."""

    rows: torch.Tensor
    taps: slice

    def lines(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a weight, or of what has its shape: lines × columns."""
        return by_taps(tensor)[self.rows][:, :, self.taps].transpose(1, 2).flatten(0, 1)

    def write(self, target: torch.Tensor, columns: torch.Tensor, lines: torch.Tensor) -> None:
        """Writes lines × (marked columns) back, into rows × columns × taps."""
        cut = lines.unflatten(0, (len(self.rows), -1)).transpose(1, 2)
        target[self.rows[:, None], columns.nonzero().squeeze(1), self.taps] = cut


def _can_be_grouped(lines: torch.Tensor, n: int, m: int) -> bool:
    """Whether columns can be chosen, all that show a mark among them, so that no line has over n marks in m consecutive ones.

    A column that a tile kept may show nothing, if all rows decided against it; then groups are not what they seem. Columns fall
    into runs, each of which gives m of its columns, or fewer at the end. Runs are found from left to right: ``end`` is as far as
    the run from ``start`` may go, and never decreases.
    """
    columns = lines.shape[1]
    counts = pad(lines.cumsum(1), (1, 0))
    shown = pad(lines.any(0).cumsum(0), (1, 0)).tolist()
    starts, end = {0}, 0
    for start in range(columns):
        if start not in starts:
            continue
        while end < columns and shown[end + 1] - shown[start] <= m and int((counts[:, end + 1] - counts[:, start]).max()) <= n:
            end += 1
        if end == columns:
            return True
        starts.update(range(start + m, end + 1))
    return False
