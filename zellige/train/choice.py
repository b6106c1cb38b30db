"""Which weights a scheme may prune, and the masks over them at a given sparsity: what ``zl.prune`` decides, without the cut.

Layers are chosen once, before training, from the bare model. Masks are chosen as often as a scheme likes, from the weights as
they are then, or from any other scores; always on the CPU, from whole weights, by arithmetic whose order is fixed: so neither
the device nor the number of processes has a say in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from zellige.errors import PruneError, TrainingError
from zellige.patterns import Pattern, Scored
from zellige.prune.allocation import ALLOCATIONS, GLOBAL, apart
from zellige.prune.calibration import Calibration
from zellige.prune.data_score import DataScore
from zellige.prune.layers import Layer, choose_layers, find_layers, uses
from zellige.prune.on_cpu import on_cpu
from zellige.prune.scores import Score, score_named, scores_of
from zellige.prune.selection import Selection
from zellige.prune.table import sparsity_in
from zellige.train.names import bare_module, bare_name, bare_parameters
from zellige.train.sharding import is_sharded, whole_tensor

Sparsity = float | Mapping[str, float]


@dataclass(frozen=True)
class Wish:
    """What is to be zero in the end: the arguments of ``zl.prune``, which explains them."""

    pattern: Pattern
    sparsity: Sparsity
    score: str | Score | DataScore = "l1"
    scope: str = "layer"
    targets: str | Sequence[str] | None = None
    ignore: str | Sequence[str] | None = None

    def check(self, share: Fraction = Fraction(1)) -> None:
        """Refuse a sparsity, or that share of it, which the pattern can't have.

        Raises:
            PruneError: it can't.
        """
        for sparsity in self.sparsity.values() if isinstance(self.sparsity, Mapping) else [self.sparsity]:
            self.pattern.check(cast(float, self.pattern.check(sparsity) * share))  # fractions are taken as they are


class Choice:
    """The layers that a wish is about in a model, and their masks.

    Raises:
        PruneError: the wish doesn't fit the model: no such layers, none that may be pruned, no such score or scope.
        TrainingError: a chosen weight is in shards already.
    """

    def __init__(self, model: nn.Module, wish: Wish, example_inputs: Any = None, calibration: Calibration | None = None) -> None:
        wish.check()
        self.model, self.wish, self.calibration = bare_module(model), wish, calibration or Calibration()
        self.score = score_named(wish.score)
        _check_scope(wish.scope)
        layers = find_layers(self.model)
        table = wish.sparsity if isinstance(wish.sparsity, Mapping) else None
        if table is not None and (wish.targets is not None or wish.scope != "layer"):
            raise PruneError("A table of sparsities says itself which layers lose how much: leave out targets and scope beside it.")
        wanted = wish.targets if table is None else tuple(table)
        for layer in layers:
            if is_sharded(layer.weight):
                raise TrainingError(f"layer '{layer.name}' is in shards: choose what to prune before the model is sharded")
        selection = Selection.of(wanted, wish.ignore, (name for layer in layers for name in layer.names))
        choices = choose_layers(layers, wish.pattern, selection, uses(self.model, layers, example_inputs))
        self.layers = {_parameter_of(choice.layer): choice.layer for choice in choices if choice.reason is None}
        """The layers that may be pruned, by the bare name of their weight."""
        self.left_alone = {choice.layer.name: choice.reason for choice in choices if choice.reason is not None}
        if not self.layers:
            why = "; ".join(f"'{name}' ({reason})" for name, reason in list(self.left_alone.items())[:5])
            raise PruneError(f"No layer is left to prune{': ' + why if why else ': the model has no convolution or linear layer'}.")

    @property
    def blocks(self) -> int:
        """How many blocks the layers have together, as the pattern counts them."""
        one = torch.ones((), dtype=torch.bool)
        return sum(self.wish.pattern.verify(one.expand(layer.shape.dims), layer.shape.groups).blocks
                   for layer in self.layers.values())

    @property
    def goal(self) -> int:
        """How many of these blocks are to go in the end; the largest sparsity counts where layers have their own."""
        sparsity = self.wish.sparsity
        most = max(sparsity.values()) if isinstance(sparsity, Mapping) else sparsity
        return max(1, int(self.wish.pattern.check(most) * self.blocks))

    def names(self, entries: str | Sequence[str]) -> list[str]:
        """The weights of those layers that entries name, as ``targets`` does.

        Raises:
            PruneError: an entry names none.
        """
        layers = self.layers.values()
        selection = Selection.of(entries, None, [name for layer in layers for name in layer.names])
        return [name for name, layer in self.layers.items() if selection.wants(layer.names)]

    def from_weights(self, share: float | Fraction = 1, among: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """The masks, by the scores of the weights as they are, at that share of the sparsity in the end."""
        if isinstance(self.score, DataScore):
            live = {_parameter_of(layer): layer for layer in find_layers(self.model)}
            measured = scores_of(self.score, self.model, [live[name] for name in self._among(among)], self.calibration)
            return self._masks({name: partial(measured, live[name]) for name in self._among(among)}, share)
        score, parameters = self.score, bare_parameters(self.model)
        return self._masks({name: partial(_scores, score, parameters[name]) for name in self._among(among)}, share)

    def from_scores(self, scores: Mapping[str, torch.Tensor], share: float | Fraction = 1) -> dict[str, torch.Tensor]:
        """The masks by scores of one's own, tensors of the weights' shapes."""
        return self._masks({name: partial(torch.Tensor.cpu, tensor) for name, tensor in scores.items()}, share)

    def _among(self, names: Sequence[str] | None) -> list[str]:
        return list(self.layers) if names is None else list(names)

    def _masks(self, scores: Mapping[str, Callable[[], torch.Tensor]], share: float | Fraction) -> dict[str, torch.Tensor]:
        layers, pattern = [self.layers[name] for name in scores], self.wish.pattern
        scored = [Scored(layer.shape, compute, layer.name) for layer, compute in zip(layers, scores.values(), strict=True)]
        part, sparsity = Fraction(share), self.wish.sparsity
        with on_cpu():
            if isinstance(sparsity, Mapping):
                masks = apart(pattern, scored, [pattern.check(sparsity_in(sparsity, layer.names)) * part for layer in layers])
            elif self.wish.scope == GLOBAL:
                masks = pattern.masks(scored, cast(float, pattern.check(sparsity) * part))
            else:
                shares = ALLOCATIONS[self.wish.scope]([layer.shape for layer in layers], pattern.check(sparsity) * part)
                masks = apart(pattern, scored, shares)
        return dict(zip(scores, masks, strict=True))


def _check_scope(name: str) -> None:
    known = (*ALLOCATIONS, GLOBAL)
    if not isinstance(name, str) or name not in known:
        raise PruneError(f"Unknown scope {name!r} for training. Known: {', '.join(known)}.")


def _scores(score: Score, parameter: torch.Tensor) -> torch.Tensor:
    scores = score(whole_tensor(parameter).cpu())
    return scores if scores.is_floating_point() else scores.double()


def _parameter_of(layer: Layer) -> str:
    return bare_name(f"{layer.name}.weight".removeprefix("."))
