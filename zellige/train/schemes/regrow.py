"""Sparse from the first step, with blocks that move: RigL (Evci et al., "Rigging the Lottery", arXiv 1911.11134) with blocks.

Every so many steps, in each layer, the kept blocks of least magnitude are dropped and as many others grown: those, of the ones
that were zero or have just been dropped, where the gradient is largest. What grows begins at zero. The share that is exchanged
falls with a half cosine, and is nothing from the share ``until`` of the steps on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from zellige.patterns import Partition
from zellige.patterns.ranking import lowest
from zellige.patterns.shape import WeightShape
from zellige.train.choice import Wish
from zellige.train.schedule import regrown_share
from zellige.train.schemes.scheme import Scheme, check_count, check_share, free_blocks
from zellige.train.sharding import whole_tensor
from zellige.train.training import SparseTraining


@dataclass
class Regrow(Scheme):
    """``share`` of the kept blocks is exchanged at first, ``every`` so many steps, until the share ``until`` of the steps."""

    share: float = 0.3
    every: int = 100
    until: float = 0.75
    gradients: dict[str, torch.Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_count("every", self.every)
        check_share("until", self.until)

    def check(self, wish: Wish | None) -> None:
        super().check(wish)
        assert wish is not None
        free_blocks(self, wish)

    def begin(self, training: SparseTraining) -> None:
        self.gradients = {}
        training.set_masks(training.choice.from_weights())

    def before_step(self, training: SparseTraining) -> None:
        due = (training.step + 1) % self.every == 0 and training.step + 1 < self.until * training.steps
        self.gradients = {name: whole_tensor(parameter.grad).cpu() for name, parameter in training.parameters().items()
                          if parameter.grad is not None} if due else {}

    def after_step(self, training: SparseTraining) -> None:
        if not self.gradients:
            return
        training.hold()
        share = regrown_share(training.step, max(1, int(self.until * training.steps)), self.share)
        pattern = free_blocks(self, training.choice.wish)
        masks, parameters = dict(training.sparsifier.masks), training.parameters()
        for name, gradient in self.gradients.items():
            weight = whole_tensor(parameters[name]).cpu()
            masks[name] = exchanged(pattern, training.choice.layers[name].shape, masks[name], weight, gradient, share)
        self.gradients = {}
        training.set_masks(masks)


def exchanged(
    pattern: Partition, shape: WeightShape, mask: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, share: float
) -> torch.Tensor:
    """The mask after dropping that share of the kept blocks, and growing as many.

    >>> from zellige.patterns import Unstructured
    >>> weight, gradient = torch.tensor([[3.0, 1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0, -5.0]])
    >>> exchanged(Unstructured(), WeightShape((1, 4)), weight != 0, weight, gradient, 0.5).tolist()
    [[True, False, False, True]]
    """
    kept = pattern.block_scores(mask, shape.groups) > 0
    count = min(int(share * int(kept.sum())), int((~kept).sum()))
    if not count:
        return mask
    magnitude = pattern.mean_scores(weight.abs(), shape.groups).double().masked_fill(~kept, torch.inf)
    stays = kept & ~lowest(magnitude, count)
    slope = pattern.mean_scores(gradient.abs(), shape.groups).double().masked_fill(stays, -torch.inf)
    grown = ~lowest(slope, len(slope) - count)
    return pattern.expand(stays | grown, shape)
