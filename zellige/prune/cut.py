"""Decided cuts: what stays of a layer, what that amounts to, and the one place where weights are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch

from zellige.patterns import Pattern
from zellige.prune.layers import Layer
from zellige.prune.report import Amounts

SLAB = 1 << 20  # weights measured at once, so that copies of a large layer stay small


@dataclass(frozen=True, eq=False)
class Cut:
    """A layer, the mask over its weight (True stays; on the CPU), and the blocks that it has and loses. ``weight`` is what a solver
    made of the weight; without one, what stays keeps its values."""

    layer: Layer
    mask: torch.Tensor
    blocks: int
    removed: int
    weight: torch.Tensor | None = None

    @classmethod
    def of(cls, layer: Layer, mask: torch.Tensor, pattern: Pattern, weight: torch.Tensor | None = None) -> Cut:
        census = pattern.verify(mask, layer.shape.groups)
        return cls(layer, mask, census.blocks, census.gone, weight)


def measure(layer: Layer, cut: Cut | None) -> Amounts:
    """What a layer will hold after its cut, or holds now if there is none. Reads the weight, changes nothing."""
    weight = layer.weight.detach()
    if not layer.plain:
        return Amounts(weights=weight.numel())
    l1 = l1_left = 0.0
    nonzeros = 0
    rows = max(1, SLAB * len(weight) // weight.numel())
    masks: Iterable[torch.Tensor | None] = repeat(None) if cut is None else cut.mask.split(rows)
    after = weight if cut is None or cut.weight is None else cut.weight
    for slab, new, mask in zip(weight.split(rows), after.split(rows), masks, strict=False):
        l1 += float(slab.abs().sum(dtype=torch.float64))
        magnitudes = new.cpu().abs()
        if mask is not None:
            magnitudes.masked_fill_(~mask, 0)
        l1_left += float(magnitudes.sum(dtype=torch.float64))
        nonzeros += int(magnitudes.count_nonzero())
    blocks, removed = (cut.blocks, cut.removed) if cut is not None else (0, 0)
    return Amounts(weight.numel(), weight.numel() - nonzeros, blocks, removed, l1, l1_left)


def write(cuts: Sequence[Cut]) -> None:
    """Writes the zeros into the weights, and what solvers made of the rest; everything else stays, to the bit."""
    with torch.no_grad():
        for cut in cuts:
            if cut.weight is not None:
                cut.layer.weight.copy_(cut.weight)
            cut.layer.weight.masked_fill_(~cut.mask.to(cut.layer.weight.device), 0)
