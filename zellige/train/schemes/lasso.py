"""Group lasso: blocks are pulled to zero as wholes, by λ Σ √size ‖w‖₂ over the blocks (Yuan & Lin, 2006; Wen et al., arXiv
1608.03665).

After every step each block shrinks by what the penalty's proximal operator takes: lr · λ · √size of its norm, or all of it if
that is less. Small blocks become exactly zero without being masked, and may come back, until at the share ``until`` of the
steps the smallest go, as many as the sparsity says; then what is left is trained without the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from zellige.patterns import Partition, WeightShape
from zellige.train.choice import Wish
from zellige.train.schemes.scheme import Scheme, check_share, free_blocks, refuse_frozen, refuse_shards
from zellige.train.training import SparseTraining


@dataclass
class Lasso(Scheme):
    """``strength`` is λ, for a penalty beside a loss that is a mean over samples."""

    strength: float = 1e-3
    until: float = 0.5
    hardened: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_share("strength", self.strength, most=float("inf"))
        check_share("until", self.until)

    def check(self, wish: Wish | None) -> None:
        super().check(wish)
        assert wish is not None
        free_blocks(self, wish)

    def begin(self, training: SparseTraining) -> None:
        self.hardened = False
        refuse_shards(self, training)
        refuse_frozen(self, training)

    @torch.no_grad()
    def after_step(self, training: SparseTraining) -> None:
        if self.hardened:
            return
        pattern = free_blocks(self, training.choice.wish)
        for name, parameter in training.parameters().items():
            shrink(parameter, pattern, training.choice.layers[name].shape, training.learning_rate * self.strength)
        if training.step >= self.until * training.steps:
            self._harden(training)

    def finish(self, training: SparseTraining) -> None:
        if not self.hardened:
            self._harden(training)

    def _harden(self, training: SparseTraining) -> None:
        training.set_masks(training.choice.from_weights())
        self.hardened = True


def shrink(weight: torch.Tensor, pattern: Partition, shape: WeightShape, amount: float) -> None:
    """Takes ``amount`` · √size from the norm of every block, in place; a block with less becomes zero.

    >>> from zellige.patterns import Block
    >>> weight = torch.tensor([[3.0, 4.0, 0.1, 0.0]])
    >>> shrink(weight, Block(1, 2), WeightShape((1, 4)), 2.5 / 2 ** 0.5)
    >>> weight.tolist()
    [[1.5, 2.0, 0.0, 0.0]]
    """
    norms = pattern.block_scores(weight.double().square(), shape.groups).sqrt()
    sizes = pattern.block_sizes(shape).to(norms.device)
    left = (1 - amount * sizes.double().sqrt() / norms).clamp(min=0).nan_to_num(0.0)
    weight.mul_(pattern.expand(left.to(weight.dtype), shape))
