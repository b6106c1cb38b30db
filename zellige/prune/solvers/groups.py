"""How blocks lie in a weight's rows and inputs, for solvers that remove blocks one by one.

A block covers the rows of a band and a group of inputs: all taps of its columns, or one tap of them. Inputs are put in an order in
which groups are contiguous and, padded where a group at the edge is smaller, of one width: padded inputs have no weight and are
correlated with nothing, so they change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zellige.patterns import Block, Pattern, Unstructured, WeightShape


def as_blocks(pattern: Pattern) -> Block | None:
    """The pattern as blocks, which number and cut a weight as it does; None if it is none of that kind."""
    if isinstance(pattern, Unstructured):
        return Block(1, 1, per_tap=True)
    return pattern if isinstance(pattern, Block) else None


@dataclass(frozen=True, eq=False)
class Groups:
    """Of a weight, or of one group of a grouped convolution: ``inputs`` (groups, width) are the inputs in each group of inputs, -1
    where it is padded; its rows fall into ``bands`` of ``height`` rows, the last perhaps shorter."""

    shape: WeightShape
    inputs: torch.Tensor
    bands: int
    height: int

    @classmethod
    def of(cls, block: Block, shape: WeightShape) -> Groups:
        _, bands, runs, _ = block.grid(shape)
        width = min(block.columns, shape.columns)
        columns = torch.arange(runs * width, device="cpu").reshape(runs, width, 1)
        inputs = torch.where(columns < shape.columns, columns * shape.taps + torch.arange(shape.taps, device="cpu"), -1)
        cut = inputs.transpose(1, 2).flatten(0, 1) if block.per_tap else inputs.flatten(1)
        return cls(shape, cut, bands, min(block.rows, shape.rows_per_group))

    @property
    def order(self) -> torch.Tensor:
        """The inputs group after group, -1 where there is none."""
        return self.inputs.flatten()

    def banded(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows × inputs, as bands × height × groups × width; zero where there is no row or input."""
        padded = rows.new_zeros(self.bands * self.height, len(self.order))
        padded[: len(rows), self.order >= 0] = rows[:, self.order[self.order >= 0]]
        return padded.reshape(self.bands, self.height, *self.inputs.shape)

    def square(self, hessian: torch.Tensor) -> torch.Tensor:
        """A Hessian in the order of the groups: the identity where inputs are padded."""
        real, order = self.order >= 0, self.order[self.order >= 0]
        padded = torch.eye(len(real), dtype=hessian.dtype)
        padded[real.nonzero(), real.nonzero().squeeze(1)] = hessian[order[:, None], order]
        return padded

    def sizes(self) -> torch.Tensor:
        """Weights in each block: bands × groups."""
        starts = torch.arange(self.bands, device="cpu") * self.height
        heights = (self.shape.rows_per_group - starts).clamp(max=self.height)
        return heights[:, None] * (self.inputs >= 0).sum(1)
