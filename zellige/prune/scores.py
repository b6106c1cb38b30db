"""How much a weight matters, one number per weight, summed per block by the pattern.

L1 and L2 rank a block by the mass it carries. The sum of squares ranks blocks as its root, the L2 norm, would.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from zellige.errors import PruneError

Score = Callable[[torch.Tensor], torch.Tensor]
"""Weight in, scores of the same shape out: never negative, and larger where a weight matters more."""

SCORES: dict[str, Score] = {
    "l1": torch.abs,
    "l2": lambda weight: weight.double().square(),
}


def score_named(name: str) -> Score:
    """The score of that name.

    Raises:
        PruneError: there is none.
    """
    if not isinstance(name, str) or name not in SCORES:
        raise PruneError(f"Unknown score {name!r}. Known: {', '.join(SCORES)}.")
    return SCORES[name]
