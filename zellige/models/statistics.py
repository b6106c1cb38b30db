"""Batch-norm statistics for networks that nobody trained.

Fresh batch norms claim mean 0 and variance 1, which random filters do not give: activations would grow or vanish from
layer to layer, and an error could hide in the noise. One forward pass on random inputs sets the statistics to what the
network really computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.modules.batchnorm import _BatchNorm

SAMPLES = 4


def warm_statistics(model: torch.nn.Module, inputs: Sequence[torch.Tensor], seed: int = 0) -> int:
    """Set every batch norm's statistics from one seeded forward pass; returns how many were set.

    The pass runs on at least ``SAMPLES`` random samples shaped like ``inputs`` (batch first). Only batch norms are in
    training mode, so dropout and auxiliary heads stay out; modes and momenta are as before afterwards.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return 0
    generator = torch.Generator().manual_seed(seed)
    samples = [
        torch.randn((max(SAMPLES, tensor.shape[0]), *tensor.shape[1:]), generator=generator) for tensor in inputs
    ]
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None
    try:
        with torch.no_grad():
            model(*samples)
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.train(training)
            norm.momentum = momentum
    return len(norms)
