"""Batch norms after pruning: their means and variances are those of a network that isn't there any more, until taken again.

No weight is trained. The usual second step of one-shot pruning (Frantar and Alistarh, arXiv 2208.11580, section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zellige.errors import PruneError
from zellige.prune.calibration import Calibration, Loss

PURPOSE = "taking statistics"


def take_statistics(
    model: nn.Module, data: Iterable[Any], loss: Loss | None = None, progress: Callable[[str], None] | None = None
) -> int:
    """Sets the statistics of every batch norm to those of these batches, all batches counting alike; returns how many were set.

    Only the batch norms are in training mode meanwhile, so dropout stays out; modes and momenta are as before afterwards. Batch
    norms that no batch reaches keep their statistics, and all of them do on any error.

    Args:
        data: batches, as ``zl.prune`` takes them; each should hold many samples.
        loss: where a batch is more than the model's arguments, what runs the model on it.

    Raises:
        PruneError: there is no data, or the model can't run on it.

    >>> model = nn.Sequential(nn.BatchNorm1d(1)).eval()
    >>> take_statistics(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    1
    >>> model[0].running_mean, model[0].running_var
    (tensor([4.]), tensor([2.]))
    """
    if not isinstance(model, nn.Module):
        raise PruneError(f"take_statistics takes a torch.nn.Module, not {type(model).__name__}.")
    calibration = Calibration(data, loss, progress)
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    with measuring(model) as norms, torch.no_grad():
        for batch in calibration.batches(PURPOSE, device):
            calibration.run(PURPOSE, model, batch)
        return sum(map(_reached, norms))


@contextmanager
def measuring(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """In here the batch norms that track statistics, which it gives, start from none and average what they see; all else is in
    evaluation mode. Those that saw nothing, and all of them if it fails, get their statistics back."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    modes = [(module, module.training) for module in model.modules()]
    before = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    done = False
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None
        yield norms
        done = True
    finally:
        for norm, (momentum, statistics) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if not (done and _reached(norm)):
                for name, buffer in norm.named_buffers():
                    buffer.copy_(statistics[name])
        for module, training in modes:
            module.training = training


def _reached(norm: _BatchNorm) -> bool:
    """Whether it has seen a batch since its statistics were reset."""
    return norm.num_batches_tracked is not None and bool(norm.num_batches_tracked > 0)
