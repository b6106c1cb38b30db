"""Prune in many small cuts while training, each by the weights as they are then.

``shape="cubic"`` follows Zhu & Gupta (arXiv 1710.01878): much at first, ever less towards the end. ``shape="rest"`` is the second
method of D'Alberto et al. (arXiv 2407.09453): every cut takes 5 % of the blocks that are still to go, and at least one; the
cuts are spread evenly over the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from zellige.errors import PruneError, RecipeError
from zellige.train.choice import Wish
from zellige.train.schedule import cubic_share, cut_at, removals
from zellige.train.schemes.scheme import Scheme, check_count, check_share
from zellige.train.training import SparseTraining

SHAPES = ("cubic", "rest")


@dataclass
class Gradual(Scheme):
    """Cuts until the share ``until`` of the steps, of ``shape`` "cubic" (``cuts`` of them) or "rest" (each ``rate`` of what is
    still to go); the other steps train what is left."""

    shape: str = "cubic"
    until: float = 0.6
    cuts: int = 20
    rate: float = 0.05
    done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise RecipeError(f"shape must be one of {', '.join(SHAPES)}, not {self.shape!r}", "shape")
        check_share("until", self.until)
        check_count("cuts", self.cuts)
        check_share("rate", self.rate)

    def check(self, wish: Wish | None) -> None:
        super().check(wish)
        assert wish is not None
        try:
            wish.check(Fraction(1, 2))
        except PruneError as error:
            raise RecipeError(f"scheme 'gradual' can't cut little by little: {error}") from error

    def begin(self, training: SparseTraining) -> None:
        self.done = 0
        self._cut(training)

    def after_step(self, training: SparseTraining) -> None:
        self._cut(training)

    def finish(self, training: SparseTraining) -> None:
        if self.done < len(self._shares(training)):  # a run that was stopped early is pruned all the same
            training.set_masks(training.choice.from_weights())

    def _cut(self, training: SparseTraining) -> None:
        """Make the cuts that are due before the next step, the last of them only: it takes what the others would have taken."""
        shares = self._shares(training)
        due = cut_at(training.step, len(shares), max(1, int(self.until * training.steps)))
        if due > self.done and training.step < training.steps:
            training.set_masks(training.choice.from_weights(shares[due - 1]))
            self.done = due

    def _shares(self, training: SparseTraining) -> list[Fraction]:
        """The share of the sparsity in the end after each cut."""
        if self.shape == "cubic":
            return [cubic_share((cut + 1) / self.cuts) for cut in range(self.cuts)]
        goal = training.choice.goal
        return [Fraction(gone, goal) for gone in removals(goal, self.rate)]
