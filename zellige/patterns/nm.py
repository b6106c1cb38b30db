"""N:M, fine-grained structured sparsity: n of every m neighbouring weights stay (Mishra et al., arXiv 2104.08378; 2:4 is what
sparse tensor cores multiply).

Neighbours are consecutive inputs of the same output, at the same tap; or consecutive outputs of the same input. Counting
starts anew in each group of a grouped convolution. Where m doesn't divide the inputs, the last few count as a full group
padded with zeros: up to n of them stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from zellige.errors import PruneError
from zellige.patterns.fixed_share import FixedShare, check_share, index_bits
from zellige.patterns.pattern import Census
from zellige.patterns.ranking import highest_of_few
from zellige.patterns.shape import WeightShape
from zellige.patterns.sums import SLAB

AXES = {"inputs": 2, "outputs": 1}  # of a weight seen as groups × rows × columns × taps


@dataclass(frozen=True)
class NM(FixedShare):
    """``n`` of every ``m`` consecutive ``along`` ("inputs" or "outputs") stay.

    >>> NM(2, 4).mask(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 0.5).tolist()
    [[True, False, True, False]]

    Raises:
        PruneError: not 1 ≤ n < m, or another direction.
    """

    n: int
    m: int
    along: str = "inputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("NM", self.n, self.m)
        if self.along not in AXES:
            raise PruneError(f"NM counts along one of {', '.join(AXES)}, not {self.along!r}.")

    def __str__(self) -> str:
        return f"nm:{self.n}:{self.m}" + (":outputs" if self.along == "outputs" else "")

    def too_small(self, shape: WeightShape) -> str | None:
        length = shape.matrix[AXES[self.along]]
        return f"too small: {length} {self.along} are less than one group of {self.m}" if length < self.m else None

    def mask_of(self, scores: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        lines = self._lines(scores, shape)
        lines_at_once = max(1, SLAB // lines.shape[1])
        kept = torch.cat([best_of_groups(slab, self.n, self.m) for slab in lines.split(lines_at_once)])
        return self._from_lines(kept, shape)

    def verify(self, weight: torch.Tensor, groups: int = 1) -> Census:
        shape = WeightShape(tuple(weight.shape), groups)
        filled = self._lines(weight != 0, shape)
        return Census(shape.weights, int((~filled).sum()), self._from_lines(overfull(filled, self.n, self.m), shape))

    def compact_bytes(self, mask: torch.Tensor, groups: int = 1, itemsize: int = 4) -> int:
        """n values of every group, padded ones as well, and the place of each in its group, in bits."""
        lines = self._lines(mask, WeightShape(tuple(mask.shape), groups))
        values = len(lines) * -(-lines.shape[1] // self.m) * self.n
        return values * itemsize + -(-values * index_bits(self.m) // 8)

    def _lines(self, tensor: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        """The weight as lines of neighbours: two axes, the second of which the pattern counts along."""
        return tensor.reshape(shape.matrix).movedim(AXES[self.along], 3).flatten(0, 2)

    def _from_lines(self, lines: torch.Tensor, shape: WeightShape) -> torch.Tensor:
        groups, rows, columns, taps = shape.matrix
        dims = (groups, rows, taps, columns) if self.along == "inputs" else (groups, columns, taps, rows)
        return lines.reshape(dims).movedim(3, AXES[self.along]).reshape(shape.dims).contiguous()


def best_of_groups(lines: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Marks the n highest of every m in lines of scores (along the second axis). What is missing to a whole group of m is less
    than any score."""
    length = lines.shape[1]
    few = pad(lines, (0, -length % m), value=-1).unflatten(1, (-1, m))
    return highest_of_few(few, n).flatten(1)[:, :length]


def overfull(lines: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Marks what is marked in those groups of m (along the second axis) that have more than n marks."""
    length = lines.shape[1]
    few = pad(lines, (0, -length % m)).unflatten(1, (-1, m))
    return (few & (few.sum(2, keepdim=True) > n)).flatten(1)[:, :length]
