"""How a weight is looked at: rows × columns × taps, cut into groups.

Rows are outputs and columns are inputs, in PyTorch's order: a ``Linear`` weight is ``(rows, columns)``, a convolution's
is ``(rows, columns, taps…)``. A grouped convolution is a stack of independent smaller ones, so its columns are the
inputs *of one group*, and its rows fall into as many runs of equal length as there are groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zellige.errors import PruneError


@dataclass(frozen=True)
class WeightShape:
    """The dimensions of a weight and the number of its groups.

    >>> shape = WeightShape((64, 16, 3, 3), groups=4)
    >>> shape.rows, shape.rows_per_group, shape.columns, shape.taps
    (64, 16, 16, 9)
    """

    dims: tuple[int, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(int(size) for size in self.dims))
        if len(self.dims) < 2 or min(self.dims) < 1:
            raise PruneError(f"A weight needs at least rows and columns, none of them empty; this one is {self.dims}.")
        if self.groups < 1 or self.rows % self.groups:
            raise PruneError(f"{self.rows} rows can't be shared evenly by {self.groups} groups.")

    @property
    def rows(self) -> int:
        """Outputs, of all groups together."""
        return self.dims[0]

    @property
    def rows_per_group(self) -> int:
        """Outputs of one group."""
        return self.rows // self.groups

    @property
    def columns(self) -> int:
        """Inputs that each output sees: those of its own group."""
        return self.dims[1]

    @property
    def taps(self) -> int:
        """Weights between one input and one output: kh × kw for a two-dimensional convolution, 1 for a linear layer."""
        return math.prod(self.dims[2:])

    @property
    def weights(self) -> int:
        """Numbers in the weight."""
        return math.prod(self.dims)

    @property
    def depthwise(self) -> bool:
        """Whether every output sees one input alone, as in a depthwise convolution."""
        return self.groups > 1 and self.columns == 1

    @property
    def matrix(self) -> tuple[int, int, int, int]:
        """Groups, rows of a group, columns, taps: what a weight is reshaped to where a pattern looks at it."""
        return self.groups, self.rows_per_group, self.columns, self.taps

    def __str__(self) -> str:
        """Rows × columns, of each group where there are several."""
        return f"{self.rows_per_group}×{self.columns}" + (" per group" if self.groups > 1 else "")
