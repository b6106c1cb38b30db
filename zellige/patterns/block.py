"""Rectangular blocks: a band of rows by a run of columns (D'Alberto et al., arXiv 2407.09453).

A weight is seen as a matrix of rows × columns whose entries are filters: an 8×8 block of a 3×3 convolution is 8×8×9
numbers, unless each tap is cut by itself. Where the block doesn't divide the matrix, the blocks at its lower and right
edges are ragged: smaller, but blocks like the others. The cut starts anew in each group of a grouped convolution, so no
block mixes two groups.

Blocks are numbered group by group, in each group band by band, in each band column by column (then tap by tap).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from zellige.errors import PruneError
from zellige.patterns.partition import Partition
from zellige.patterns.pattern import FEWEST_CHOICES, INDEX_BYTES
from zellige.patterns.shape import WeightShape
from zellige.patterns.sums import SLAB, tree_sum


@dataclass(frozen=True)
class Block(Partition):
    """Blocks of ``rows`` outputs by ``columns`` inputs; with ``per_tap`` each tap of a filter has blocks of its own.

    >>> Block(8, 8).blocks(WeightShape((64, 20, 3, 3)))
    24
    >>> str(Block(8, 1, per_tap=True))
    'block:8x1:per-tap'

    Raises:
        PruneError: ``rows`` or ``columns`` is not a positive whole number.
    """

    rows: int
    columns: int
    per_tap: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for side, size in (("rows", self.rows), ("columns", self.columns)):
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise PruneError(f"Block {side} must be a positive whole number, as in Block(8, 8), not {size!r}.")

    def __str__(self) -> str:
        return f"block:{self.rows}x{self.columns}" + (":per-tap" if self.per_tap else "")

    def too_small(self, shape: WeightShape) -> str | None:
        """A weight can gain if each of its groups holds a whole block, and the weight ``FEWEST_CHOICES`` or more."""
        if shape.rows_per_group < self.rows or shape.columns < self.columns:
            return f"too small: {shape} is less than one {self.rows}×{self.columns} block"
        if (blocks := self.blocks(shape)) < FEWEST_CHOICES:
            return f"too small: {shape} is only {blocks} block{'s' * (blocks > 1)} of {self.rows}×{self.columns}"
        return None

    def blocks(self, shape: WeightShape) -> int:
        groups, bands, runs, taps = self.grid(shape)
        return groups * bands * runs * taps

    def block_sizes(self, shape: WeightShape) -> torch.Tensor:
        groups, bands, runs, taps = self.grid(shape)
        heights = _lengths(shape.rows_per_group, self.rows)
        widths = _lengths(shape.columns, self.columns)
        sizes = heights[:, None] * widths[None, :] * (shape.taps // taps)
        return sizes[None, :, :, None].expand(groups, bands, runs, taps).flatten()

    def block_scores(self, scores: torch.Tensor, groups: int = 1) -> torch.Tensor:
        shape = WeightShape(tuple(scores.shape), groups)
        matrix = scores.reshape(shape.matrix)
        height, width = self._sides(shape)
        bands_at_once = max(1, SLAB * shape.rows_per_group // (shape.weights * height))
        slabs = matrix.split(bands_at_once * height, dim=1)
        return torch.cat([self._slab_scores(slab, height, width) for slab in slabs], dim=1).flatten()

    def expand(self, kept: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        groups, bands, runs, taps = self.grid(shape)
        height, width = self._sides(shape)
        grid = kept.reshape(groups, bands, 1, runs, 1, taps)
        cut = grid.expand(groups, bands, height, runs, width, shape.taps)
        padded = cut.reshape(groups, bands * height, runs * width, shape.taps)
        return padded[:, : shape.rows_per_group, : shape.columns].reshape(shape.dims).contiguous()

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """Values, one index per kept block, and where the list of each band starts (and the last one ends)."""
        shape = WeightShape(tuple(mask.shape), groups)
        kept = self.block_scores(mask, groups).cpu() > 0
        _, bands, _, _ = self.grid(shape)
        values = int(self.block_sizes(shape)[kept].sum())
        return values * itemsize + (int(kept.sum()) + groups * bands + 1) * INDEX_BYTES

    def _slab_scores(self, matrix: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Sums per block in some bands of every group: (groups, rows, columns, taps) → (groups, bands, runs, taps)."""
        groups, rows, columns, taps = matrix.shape
        matrix = matrix.double()
        if not self.per_tap:
            matrix, taps = tree_sum(matrix, 3).unsqueeze(3), 1
        padded = pad(matrix, (0, 0, 0, -columns % width, 0, -rows % height))
        cut = padded.reshape(groups, -(-rows // height), height, -(-columns // width), width, taps)
        return tree_sum(tree_sum(cut, 4), 2)

    def _sides(self, shape: WeightShape) -> tuple[int, int]:
        """Rows and columns of the largest block there is: less than the pattern's where the weight has fewer."""
        return min(self.rows, shape.rows_per_group), min(self.columns, shape.columns)

    def grid(self, shape: WeightShape) -> tuple[int, int, int, int]:
        """Groups, bands in a group, runs of columns in a band, and the taps that have blocks of their own."""
        bands = -(-shape.rows_per_group // self.rows)
        runs = -(-shape.columns // self.columns)
        return shape.groups, bands, runs, shape.taps if self.per_tap else 1


def _lengths(total: int, step: int) -> torch.Tensor:
    """The lengths of the pieces that ``total`` falls into when cut every ``step``: all full but perhaps the last."""
    starts = torch.arange(0, total, step, device="cpu")
    return (total - starts).clamp(max=step)
