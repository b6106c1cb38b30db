"""What a solver is given and gives back: one layer's weight, the Hessian of its output error, and how much has to go.

For rows w of a weight with Hessian H, a change Δ of the weight changes the squared output error by Σ over rows of δ H δᵀ. H is
damped: a share of its mean diagonal is added to the diagonal, so that inputs which the data never moved can't make it singular,
and weights stay near their old values where the data says nothing (as in Frantar and Alistarh, arXiv 2301.00774).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real

import torch

from zellige.errors import PruneError
from zellige.patterns import Pattern, WeightShape

DAMPING = 0.01


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer by name: its ``weight`` in its own form and its ``hessian`` (groups, inputs, inputs), both float64, and the ``share``
    of it that has to go."""

    layer: str
    pattern: Pattern
    share: Fraction
    shape: WeightShape
    weight: torch.Tensor
    hessian: torch.Tensor

    @property
    def rows(self) -> torch.Tensor:
        """The weight as groups × rows × inputs; an input is a column at one tap."""
        return as_rows(self.weight, self.shape)


@dataclass(frozen=True, eq=False)
class Solution:
    """The mask (True stays) and the new weight, float64, both in the form of the weight; zero where the mask says so."""

    mask: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class Solver(ABC):
    """The base of all solvers: ``damping`` is the share of the Hessian's mean diagonal that is added to it.

    Raises:
        PruneError: the damping is no finite number above 0.
    """

    damping: float = DAMPING

    def __post_init__(self) -> None:
        if not isinstance(self.damping, Real) or isinstance(self.damping, bool) or not 0 < self.damping < float("inf"):
            raise PruneError(f"The damping of a solver is a finite number above 0, such as {DAMPING}, not {self.damping!r}.")

    @abstractmethod
    def __str__(self) -> str:
        """Its name."""

    @abstractmethod
    def refusal(self, pattern: Pattern) -> str | None:
        """Why the solver can't do a pattern, and what can; or None."""

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Chooses what goes, and new values for what stays.

        Raises:
            PruneError: the pattern can't have that share.
        """


def as_rows(tensor: torch.Tensor, shape: WeightShape) -> torch.Tensor:
    """What has the form of a weight, as groups × rows × inputs."""
    return tensor.reshape(shape.groups, shape.rows_per_group, shape.columns * shape.taps)


def damped(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """The Hessian with that share of its mean diagonal (over all groups) on its diagonal."""
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    return hessian + damping * diagonal.mean() * torch.eye(hessian.shape[1], dtype=hessian.dtype)


def inverse(hessian: torch.Tensor) -> torch.Tensor:
    """The inverse of a symmetric positive matrix, or of several."""
    factor = torch.linalg.cholesky(hessian)
    identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype).expand_as(hessian)
    solved = torch.linalg.solve_triangular(factor, identity, upper=False)
    return solved.mT @ solved


def output_energy(rows: torch.Tensor, hessian: torch.Tensor) -> float:
    """Σ of squared outputs of weights as groups × rows × inputs: ‖WX‖². Never negative, though rounding may make it so."""
    return max(0.0, float(((rows @ hessian) * rows).sum()))
