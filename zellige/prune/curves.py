"""What a layer loses and keeps at each of several sparsities, it alone being pruned: what allocations weigh against costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
import torch

from zellige.errors import PruneError
from zellige.patterns import Pattern, Scored
from zellige.prune.layers import Layer
from zellige.prune.on_cpu import on_cpu

LEVELS = tuple(Fraction(level, 20) for level in range(20))  # 0, 5 %, … 95 %
STEP = Fraction(1, 100)  # between the sparsities that can be chosen: in between levels, curves are straight


@dataclass(frozen=True, eq=False)
class Curve:
    """At rising ``sparsities`` of a layer: the ``harm`` that is done, the ``density`` left and the bytes of the compact form."""

    layer: str
    sparsities: tuple[Fraction, ...]
    harm: tuple[float, ...]
    density: tuple[float, ...]
    bytes: tuple[int, ...]

    @property
    def choices(self) -> list[Fraction]:
        """The sparsities that can be chosen: every hundredth from the first to the last."""
        first, last = self.sparsities[0], self.sparsities[-1]
        return [first + step * STEP for step in range(int((last - first) / STEP) + 1)]

    def at(self, values: Sequence[float]) -> np.ndarray:
        """What has these values at the sparsities of the curve has at its choices."""
        return np.interp([float(choice) for choice in self.choices], [float(level) for level in self.sparsities], values)


def levels_of(pattern: Pattern, levels: Sequence[Fraction] = LEVELS) -> list[Fraction]:
    """Those of the levels that the pattern can have.

    Raises:
        PruneError: there are fewer than two, so that nothing can be chosen.
    """
    possible = []
    for level in levels:
        try:
            pattern.check(float(level))
        except PruneError:
            continue
        possible.append(level)
    if len(possible) < 2:
        raise PruneError(f"{pattern} leaves no choice of sparsities, so layers can't be given different ones; take scope 'layer'.")
    return possible


def masks_at(pattern: Pattern, layer: Scored, levels: Sequence[Fraction]) -> list[torch.Tensor]:
    """The masks of one layer at several sparsities; its scores are computed once."""
    scores = layer.scores()
    held = Scored(layer.shape, partial(_same, scores), layer.name)
    return [pattern.masks([held], float(level))[0] for level in levels]


def score_curves(pattern: Pattern, layers: Sequence[Layer], scored: Sequence[Scored], of_loss: bool) -> list[Curve]:
    """For every layer the curve whose harm is the sum of the scores that go: as it is where scores are ``of_loss``, otherwise as a
    share of the layer's own, since magnitudes of layers of several sizes and scales don't compare.

    Raises:
        PruneError: the pattern leaves no choice of sparsities, or scores can't be ranked.
    """
    levels, curves = levels_of(pattern), []
    for layer, of_layer in zip(layers, scored, strict=True):
        with on_cpu():
            scores = of_layer.scores()
            masks = masks_at(pattern, Scored(layer.shape, partial(_same, scores), layer.name), levels)
            unit = 1.0 if of_loss else float(scores.sum(dtype=torch.float64))
            harm = [float(scores[~mask].sum(dtype=torch.float64)) / unit for mask in masks]
            curves.append(curve_of(pattern, of_layer, layer.weight.element_size(), levels, masks, harm))
    return curves


def _same(scores: torch.Tensor) -> torch.Tensor:
    return scores


def curve_of(
    pattern: Pattern, layer: Scored, itemsize: int, levels: Sequence[Fraction], masks: Sequence[torch.Tensor], harm: Sequence[float]
) -> Curve:
    """The curve of a layer by its masks and the harm they do. A weight that loses nothing is kept as it is, without indices."""
    dense = layer.shape.weights * itemsize
    sizes = [min(dense, pattern.compact_bytes(mask, layer.shape.groups, itemsize)) for mask in masks]
    kept = [float(mask.sum()) / layer.shape.weights for mask in masks]
    return Curve(layer.name, tuple(levels), tuple(harm), tuple(kept), tuple(sizes))
