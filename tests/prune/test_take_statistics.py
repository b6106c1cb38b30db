"""Batch-norm statistics taken again: against means and variances by hand, everything else as it was."""

import pytest
import torch
from torch import nn

import zellige as zl
from zellige.errors import PruneError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 3),
                         nn.BatchNorm2d(4, track_running_stats=False)).eval()  # fmt: skip


BATCHES = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(at)) for at in range(3)]


@pytest.mark.parametrize("with_loss", [False, True])
def test_statistics_are_the_mean_over_the_batches(with_loss: bool) -> None:
    model, zero = network(), torch.zeros(1)
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    data = [(batch, zero) for batch in BATCHES] if with_loss else BATCHES
    assert zl.take_statistics(model, iter(data), (lambda model, batch: model(batch[0]).mean()) if with_loss else None) == 1
    with torch.no_grad():
        seen = [model[0](batch).transpose(0, 1).flatten(1).double() for batch in BATCHES]
    norm = model[1]
    assert torch.allclose(norm.running_mean.double(), sum(one.mean(1) for one in seen) / 3, atol=1e-6)
    assert torch.allclose(norm.running_var.double(), sum(one.var(1) for one in seen) / 3, rtol=1e-5)
    assert norm.momentum == 0.3 and not any(module.training for module in model.modules())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_modes_come_back_after_a_failure() -> None:
    model = network()
    with pytest.raises(PruneError, match="taking statistics: the model can't run on a batch"):
        zl.take_statistics(model, [torch.zeros(1, 5, 8, 8)])
    assert model[1].momentum == 0.3 and not any(module.training for module in model.modules())
    with pytest.raises(PruneError, match="there is no batch in it"):
        zl.take_statistics(model, [])
    with pytest.raises(PruneError, match="needs data"):
        zl.take_statistics(model, BATCHES[0])
