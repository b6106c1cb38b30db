"""Batch-norm statistics for networks that nobody trained.

Fresh batch norms claim mean 0 and variance 1, which random filters do not give: activations would grow or vanish from
layer to layer, and an error could hide in the noise. One forward pass on random inputs sets the statistics to what the
network really computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from zellige.prune.statistics import measuring

SAMPLES = 4


def warm_statistics(model: torch.nn.Module, inputs: Sequence[torch.Tensor], seed: int = 0) -> int:
    """Set every batch norm's statistics from one seeded forward pass; returns how many there are.

    The pass runs on at least ``SAMPLES`` random samples shaped like ``inputs`` (batch first). Only batch norms are in
    training mode, so dropout and auxiliary heads stay out; modes and momenta are as before afterwards.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = [
        torch.randn((max(SAMPLES, tensor.shape[0]), *tensor.shape[1:]), generator=generator) for tensor in inputs
    ]
    with measuring(model) as norms, torch.no_grad():
        if norms:
            model(*samples)
        return len(norms)
