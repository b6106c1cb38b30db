"""How much the loss rises when one layer alone is pruned, at several sparsities: measured (Li et al., arXiv 1608.08710).

Every layer loses its blocks, the loss is taken over all batches, and the weight is put back to the bit. The batches are kept:
all measurements see the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from zellige.patterns import Pattern, Scored
from zellige.prune.calibration import Calibration
from zellige.prune.curves import Curve, curve_of, levels_of, masks_at
from zellige.prune.layers import Layer
from zellige.prune.on_cpu import on_cpu
from zellige.prune.undisturbed import undisturbed

PURPOSE = "sensitivity"
LEVELS = tuple(Fraction(level, 100) for level in (0, 25, 50, 75, 90))


def loss_curves(
    model: nn.Module, pattern: Pattern, layers: Sequence[Layer], scored: Sequence[Scored], calibration: Calibration,
    levels: Sequence[Fraction] = LEVELS,
) -> tuple[float, list[Curve]]:
    """The mean loss, and for every layer the curve whose harm is what it rises by. The model is left as it was.

    Raises:
        PruneError: there is no data, the loss doesn't fit it, or the pattern leaves no choice of sparsities.
    """
    possible = levels_of(pattern, levels)
    curves = []
    with undisturbed(model):
        batches = list(calibration.batches(PURPOSE, layers[0].weight.device))
        before = _mean_loss(model, batches, calibration)
        for number, (layer, scores) in enumerate(zip(layers, scored, strict=True), 1):
            calibration.tell(f"{PURPOSE}: layer {number} of {len(layers)}, {layer.name}")
            with on_cpu():
                masks = masks_at(pattern, scores, possible)
            harm = [_rise(model, layer, mask, batches, calibration, before) for mask in masks]
            with on_cpu():
                curves.append(curve_of(pattern, scores, layer.weight.element_size(), possible, masks, harm))
    return before, curves


def _rise(
    model: nn.Module, layer: Layer, mask: torch.Tensor, batches: Sequence[Any], calibration: Calibration, before: float
) -> float:
    """What the loss rises by when a layer is cut; its weight is as it was afterwards."""
    if bool(mask.all()):
        return 0.0
    kept = layer.weight.detach().clone()
    try:
        layer.weight.masked_fill_(~mask.to(layer.weight.device), 0)
        return _mean_loss(model, batches, calibration) - before
    finally:
        layer.weight.copy_(kept)


def _mean_loss(model: nn.Module, batches: Sequence[Any], calibration: Calibration) -> float:
    """The mean over the batches, each counted once."""
    return sum(float(calibration.loss_of(PURPOSE, model, batch)) for batch in batches) / len(batches)
