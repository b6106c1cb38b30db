"""How much a weight matters, one number per weight, summed per block by the pattern.

L1 and L2 rank a block by the mass it carries. The sum of squares ranks blocks as its root, the L2 norm, would. Variance is the
mean square of what sets a block's weights apart from the mean of the whole weight; these are the three scores of D'Alberto et
al. (arXiv 2407.09453), who also take the mean of the block itself, which no score of single weights can know.

These look at the weight alone. Those that look at data have a file each, and a row in ``DATA_SCORES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.patterns import Scored
from zellige.patterns.sums import row_sums, tree_sum
from zellige.prune.calibration import Calibration
from zellige.prune.data_score import DataScore
from zellige.prune.gradients import Fisher, Taylor
from zellige.prune.hessian import Hessian
from zellige.prune.layers import Layer
from zellige.prune.wanda import Wanda

Score = Callable[[torch.Tensor], torch.Tensor]
"""Weight in, scores of the same shape out: never negative, and larger where a weight matters more."""


def variance(weight: torch.Tensor) -> torch.Tensor:
    """The squared distance of each weight from the mean of all.

    >>> variance(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).tolist()
    [[4.0, 1.0], [0.0, 9.0]]
    """
    return (weight.double() - tree_sum(row_sums(weight), 0) / weight.numel()).square()


SCORES: dict[str, Score] = {
    "l1": torch.abs,
    "l2": lambda weight: weight.double().square(),
    "variance": variance,
}
DATA_SCORES: dict[str, DataScore] = {"taylor": Taylor(), "fisher": Fisher(), "wanda": Wanda(), "hessian": Hessian()}


def score_named(score: str | Score | DataScore) -> Score | DataScore:
    """The score of that name; one that is given as a function or as an object is itself.

    Raises:
        PruneError: there is none.
    """
    if isinstance(score, DataScore) or (callable(score) and not isinstance(score, type)):
        return score
    known: dict[str, Score | DataScore] = {**SCORES, **DATA_SCORES}
    if not isinstance(score, str) or score not in known:
        raise PruneError(f"Unknown score {score!r}. Known: {', '.join(known)}; or give a function of the weight, or a score with "
                         "settings of its own, such as Hessian(probes=8).")
    return known[score]


def name_of(score: str | Score | DataScore) -> str:
    """What a report calls a score."""
    return score if isinstance(score, str) else getattr(score, "__name__", None) or str(score)


def scores_of(
    score: Score | DataScore, model: nn.Module, layers: Sequence[Layer], calibration: Calibration
) -> Callable[[Layer], torch.Tensor]:
    """What gives the scores of a layer, on the CPU; whatever runs the model has run when this returns.

    Raises:
        PruneError: data is lacking, or the model or the loss doesn't fit it.
    """
    if isinstance(score, DataScore):
        measured = score.measure(model, layers, calibration)
        return lambda layer: measured(layer).cpu()
    given = score not in SCORES.values()
    return lambda layer: _of_weight(score, layer, layer.weight.detach().to("cpu", copy=given))


def scored_layers(
    score: Score | DataScore, model: nn.Module, layers: Sequence[Layer], calibration: Calibration
) -> list[Scored]:
    """The layers with their scores, which are computed when they are asked for; the model has run by then.

    Raises:
        PruneError: as ``scores_of``.
    """
    scores = scores_of(score, model, layers, calibration)
    return [Scored(layer.shape, partial(scores, layer), layer.name) for layer in layers]


def _of_weight(score: Score, layer: Layer, weight: torch.Tensor) -> torch.Tensor:
    """The scores of one weight by a function, a user's perhaps."""
    try:
        scores = score(weight)
    except FAILURES as error:
        raise PruneError(f"The score fails on the weight of layer '{layer.name}': {in_one_line(error)}") from error
    if not isinstance(scores, torch.Tensor) or scores.is_meta:
        return scores  # which the pattern refuses by name
    return scores.detach().cpu()
