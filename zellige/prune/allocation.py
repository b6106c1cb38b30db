"""How many blocks each layer loses.

A block counts with its mean score per weight, so that blocks of all sizes compare: ragged edges would otherwise always
go first, and with them, say, the last classes of a classifier.

``layer``: every layer loses the same share of its blocks.

``global``: the same share of all blocks together, by one threshold. The best block of every layer is set aside first:
no layer collapses.

Among equals the earlier layer loses first, and in a layer the block of lower position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from zellige.errors import PruneError
from zellige.patterns import Pattern, WeightShape
from zellige.patterns.pattern import floor_share


@dataclass(frozen=True, eq=False)
class Scored:
    """A layer's shape and the scores of its blocks (sums over the block: float64, on the CPU)."""

    shape: WeightShape
    block_scores: torch.Tensor


def mean_scores(pattern: Pattern, layers: Sequence[Scored]) -> list[torch.Tensor]:
    """The score per weight of each layer's blocks."""
    return [layer.block_scores / pattern.block_sizes(layer.shape) for layer in layers]


def within_layers(pattern: Pattern, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
    """The kept blocks of each layer when every layer loses its share."""
    return [pattern.choose(mean, pattern.removable(layer.shape, sparsity), layer.shape)
            for mean, layer in zip(mean_scores(pattern, layers), layers, strict=True)]


def across_layers(pattern: Pattern, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
    """The kept blocks of each layer when all blocks compete.

    Raises:
        PruneError: so many blocks must go that not every layer could keep one.
    """
    means = mean_scores(pattern, layers)
    owner = torch.repeat_interleave(torch.arange(len(means)), torch.tensor([len(mean) for mean in means]))
    removed = floor_share(sparsity, len(owner))
    if removed > len(owner) - len(means):
        raise PruneError(f"Sparsity {sparsity} takes {removed} of {len(owner)} blocks, but each of the {len(means)} "
                         f"layers must keep one. Lower the sparsity, or take smaller blocks than {pattern}.")
    ranked = owner[torch.argsort(torch.cat(means), stable=True)]
    best = torch.zeros(len(means), dtype=torch.long).scatter_reduce_(0, ranked, torch.arange(len(ranked)), "amax")
    free = torch.ones(len(ranked), dtype=torch.bool)
    free[best] = False
    counts = torch.bincount(ranked[free][:removed], minlength=len(means)).tolist()
    return [pattern.choose(mean, count, layer.shape) for mean, count, layer in zip(means, counts, layers, strict=True)]


SCOPES: dict[str, Callable[[Pattern, Sequence[Scored], float], list[torch.Tensor]]] = {
    "layer": within_layers,
    "global": across_layers,
}


def scope_named(name: str) -> Callable[[Pattern, Sequence[Scored], float], list[torch.Tensor]]:
    """The allocation of that name.

    Raises:
        PruneError: there is none.
    """
    if name not in SCOPES:
        raise PruneError(f"Unknown scope {name!r}. Known: {', '.join(SCOPES)}.")
    return SCOPES[name]
