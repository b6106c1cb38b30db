"""Stages of rising sparsity, layer groups in turn, each trained until the accuracy is back (Guo et al., SC 2020, their code).

In every stage the groups are cut one after the other; after a cut, training goes on for ``mini`` steps at a time until the
accuracy reaches the floor. A group that hasn't got there after ``patience`` times gets back what the cut took, and is frozen: no
later stage touches it. So what is reached may be less sparse than what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import torch

from zellige.errors import PruneError, RecipeError
from zellige.patterns.fixed_share import FixedShare
from zellige.train.choice import Wish
from zellige.train.schedule import STAGES, stages_up_to
from zellige.train.schemes.scheme import Scheme, check_count, check_share, one_sparsity, refuse_shards
from zellige.train.training import SparseTraining


@dataclass
class Stages(Scheme):
    """``floor`` is an accuracy, or without it ``drop`` below the accuracy at first; ``groups`` are lists of ``targets``, all layers
    together if None; ``stages`` are sparsities, those of the paper if None."""

    floor: float | None = None
    drop: float = 0.01
    mini: int = 100
    patience: int = 9
    groups: list[list[str]] | None = None
    stages: list[float] | None = None

    least: float | None = field(default=None, init=False)
    at: int = field(default=-1, init=False)
    since: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    frozen: list[int] = field(default_factory=list, init=False)
    before: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, init=False)
    """Mask and weight of the group in hand before its cut, by the weight's name."""

    def __post_init__(self) -> None:
        check_share("drop", self.drop)
        if self.floor is not None:
            check_share("floor", self.floor)
        check_count("mini", self.mini)
        check_count("patience", self.patience)
        for stage in self.stages or ():
            check_share("a stage", stage)
        if self.stages is not None and sorted(set(self.stages)) != self.stages:
            raise RecipeError(f"stages must rise, and these don't: {self.stages}", "stages")

    def check(self, wish: Wish | None) -> None:
        super().check(wish)
        assert wish is not None
        one_sparsity(self, wish)
        try:
            for stage in self._sparsities(wish):
                wish.pattern.check(stage)
        except PruneError as error:
            raise RecipeError(f"scheme 'stages' can't have all of its stages: {error}") from error

    def begin(self, training: SparseTraining) -> None:
        self.least, self.at, self.since, self.failures, self.frozen, self.before = None, -1, 0, 0, [], {}
        self._groups(training)
        refuse_shards(self, training)

    def wants_evaluation(self, training: SparseTraining) -> bool:
        return self.least is None or (self.at < self._places(training) and training.step - self.since >= self.mini)

    def evaluated(self, training: SparseTraining, accuracy: float) -> None:
        if not self.wants_evaluation(training):
            return
        if self.least is None:
            self.least = self.floor if self.floor is not None else accuracy - self.drop
            self._next(training)
        elif accuracy >= self.least:
            self._next(training)
        else:
            self.failures, self.since = self.failures + 1, training.step
            if self.failures >= self.patience:
                self._give_back(training)
                self.frozen.append(self.at % len(self._groups(training)))
                self._next(training)

    def _next(self, training: SparseTraining) -> None:
        """Cut the next group that isn't frozen, in this stage or the next."""
        groups = self._groups(training)
        self.failures, self.since, self.before = 0, training.step, {}
        self.at += 1
        while self.at < self._places(training) and self.at % len(groups) in self.frozen:
            self.at += 1
        if self.at >= self._places(training):
            return
        wish, names = training.choice.wish, groups[self.at % len(groups)]
        sparsity = self._sparsities(wish)[self.at // len(groups)]
        masks, parameters = training.sparsifier.masks, training.parameters()
        for name in names:
            mask = masks.get(name, torch.ones(parameters[name].shape, dtype=torch.bool))
            self.before[name] = (mask, parameters[name].detach().cpu().clone())
        share = Fraction(repr(sparsity)) / Fraction(repr(one_sparsity(self, wish)))
        training.set_masks({**masks, **training.choice.from_weights(share, names)})

    @torch.no_grad()
    def _give_back(self, training: SparseTraining) -> None:
        """What the last cut took gets the values that it had; the rest keeps what it has learnt since."""
        masks, parameters = dict(training.sparsifier.masks), training.parameters()
        for name, (mask, weight) in self.before.items():
            taken = (mask & ~masks[name]).to(parameters[name].device)
            parameters[name].copy_(torch.where(taken, weight.to(parameters[name].device), parameters[name]))
            masks[name] = mask
        training.set_masks(masks)

    def _groups(self, training: SparseTraining) -> list[list[str]]:
        """The weights of each group, by name."""
        if self.groups is None:
            return [list(training.choice.layers)]
        return [training.choice.names(entries) for entries in self.groups]

    def _places(self, training: SparseTraining) -> int:
        """All cuts there are: of every group in every stage."""
        return len(self._groups(training)) * len(self._sparsities(training.choice.wish))

    def _sparsities(self, wish: Wish) -> list[float]:
        sparsity = one_sparsity(self, wish)
        if isinstance(wish.pattern, FixedShare):  # which has one sparsity alone
            return [sparsity]
        return stages_up_to(sparsity, STAGES if self.stages is None else self.stages)
