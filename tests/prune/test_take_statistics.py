"""Batch-norm statistics taken again: against means and variances by hand, everything else as it was."""

from collections.abc import Iterator
from typing import Any

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


def failing() -> Iterator[torch.Tensor]:
    yield BATCHES[0]
    raise RuntimeError("no more")


@pytest.mark.parametrize(("data", "message"), [
    ([torch.zeros(1, 5, 8, 8)], "taking statistics: the model can't run on a batch"),
    ([BATCHES[0], torch.zeros(1, 5, 8, 8)], "taking statistics: the model can't run on a batch"),
    (failing(), "taking statistics: the data fails after batch 1: RuntimeError: no more"),
    ([], "there is no batch in it"),
    (BATCHES[0], "needs data"),
    (None, "needs data"),
])  # fmt: skip
def test_modes_and_statistics_come_back_after_a_failure(data: Any, message: str) -> None:
    model = network()
    zl.take_statistics(model, BATCHES[1:])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PruneError, match=message):
        zl.take_statistics(model, data)
    assert model[1].momentum == 0.3 and not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dropout_stays_out_of_a_model_in_training() -> None:
    resting, training = (nn.Sequential(nn.Dropout(0.5), network()) for _ in range(2))
    random = torch.get_rng_state()
    zl.take_statistics(resting.eval(), BATCHES)
    zl.take_statistics(training.train(), BATCHES)
    assert torch.equal(resting[1][1].running_mean, training[1][1].running_mean) and torch.equal(random, torch.get_rng_state())
    assert all(module.training for module in training.modules())


def test_norms_that_nothing_reaches_keep_their_statistics() -> None:
    model = network()
    model[1].spare = nn.BatchNorm2d(8)
    model[1].spare.running_mean.fill_(3)
    assert zl.take_statistics(model, BATCHES) == 1
    assert bool((model[1].spare.running_mean == 3).all()) and int(model[1].spare.num_batches_tracked) == 0


def test_only_modules_have_statistics() -> None:
    with pytest.raises(PruneError, match=r"takes a torch.nn.Module, not str"):
        zl.take_statistics("resnet50", BATCHES)
