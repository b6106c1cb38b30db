"""Vector-wise sparsity in blocks: tile-vector-wise (Guo et al., arXiv 2402.10876) whose columns come and go in runs.

Blocks of rows × columns go as ``Block`` has it, by the scores of what they would keep; in those that stay, every row keeps n of
every m neighbours (at each tap). The columns of a block are a multiple of m, so that neighbours are the same ones as in N:M without
blocks: those that 2:4 hardware multiplies where they lie, and that one box of memory holds. No rows go beforehand, and no other
order of columns would do.

At the right edge the last few columns count as a full group padded with zeros: up to n of them stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import torch

from zellige.errors import PruneError
from zellige.patterns.block import Block
from zellige.patterns.fixed_share import index_bits
from zellige.patterns.pattern import INDEX_BYTES, Census
from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape
from zellige.patterns.vector_wise import VectorWise


@dataclass(frozen=True)
class BlockVectorWise(VectorWise):
    """``Block(rows, columns, per_tap)``, and ``n`` of every ``m`` columns inside: the sparsity is 1 − n ÷ m or more.

    >>> str(BlockVectorWise(128, 64, 2, 4))
    'tvw:128x64:2:4'
    >>> BlockVectorWise(1, 4, 2, 4).mask(torch.tensor([[4.0, 1.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0]]), 0.75).int().tolist()
    [[1, 0, 1, 0, 0, 0, 0, 0]]

    Raises:
        PruneError: as ``Block`` and ``NM``, or ``columns`` is no multiple of m.
    """

    rows: int
    columns: int
    n: int
    m: int
    per_tap: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.block, self.inside  # they check their arguments
        if self.columns % self.m:
            raise PruneError(f"Blocks hold whole groups of columns: a multiple of {self.m} for {self.n}:{self.m}, as in "
                             f"BlockVectorWise(128, 64, 2, 4); not {self.columns} columns.")

    @property
    def block(self) -> Block:
        """What decides on blocks."""
        return Block(self.rows, self.columns, self.per_tap)

    def __str__(self) -> str:
        return f"tvw:{self.rows}x{self.columns}:{self.n}:{self.m}" + (":per-tap" if self.per_tap else "")

    def too_small(self, shape: WeightShape) -> str | None:
        return self.block.too_small(shape)

    def choose(self, layers: Sequence[Scored], sparsity: Fraction) -> list[torch.Tensor]:
        blocks = self.block.choose([replace(layer, compute=partial(self._kept, layer)) for layer in layers],
                                   self.outer_sparsity(sparsity))
        return [mask & self.inside.mask_of(layer.scores(), layer.shape) for layer, mask in zip(layers, blocks, strict=True)]

    def _kept(self, layer: Scored) -> torch.Tensor:
        """The scores of what stays if its block does: by these blocks are chosen."""
        scores = layer.scores()
        return scores * self.inside.mask_of(scores, layer.shape)

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        """Counts single weights, as N:M: all of a block that keeps nothing are gone, like the zeros of any other.

        Groups that hold too many weights break the pattern, and nothing else does: whatever keeps to N:M may have kept all blocks.
        """
        return self.inside.verify(weight, groups)

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """n values of every group in blocks that keep any, padded ones as well, and the place of each in its group, in bits; one
        index per kept block, and where the list of each band starts (and the last one ends)."""
        shape = WeightShape(tuple(mask.shape), groups)
        kept = self.block.block_scores(mask, groups).cpu() > 0
        of_groups = Block(self.rows, self.columns // self.m, self.per_tap)  # the same blocks, of a weight whose columns are groups
        narrow = WeightShape((shape.rows, -(-shape.columns // self.m), *shape.dims[2:]), groups)
        values = self.n * int(of_groups.block_sizes(narrow)[kept].sum())
        _, bands, _, _ = self.block.grid(shape)
        places = -(-values * index_bits(self.m) // 8)
        return values * itemsize + places + (int(kept.sum()) + groups * bands + 1) * INDEX_BYTES
