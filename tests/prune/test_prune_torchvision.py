"""Real networks: every convolution and linear layer but the stem, and nothing else."""

from typing import Any

import pytest
import torch
from torch import nn

from zellige.models.statistics import warm_statistics
from zellige.patterns import Block
from zellige.prune import prune
from zellige.prune.layers import choose_layers, find_layers
from zellige.prune.selection import Selection

models = pytest.importorskip("torchvision.models")


@pytest.mark.parametrize(
    ("name", "stem", "options"),
    [
        ("resnet50", "conv1", {}),
        ("vgg16", "features.0", {"init_weights": False}),
        ("inception_v3", "Conv2d_1a_3x3.conv", {"init_weights": False}),
    ],
)
def test_all_but_the_stem(name: str, stem: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = getattr(models, name)(weights=None, **options)
    weights = {at for at, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    choices = choose_layers(find_layers(model), Block(8, 8), Selection(None, ()))
    assert {choice.layer.name for choice in choices if choice.reason is None} == weights - {stem}


def test_inception_without_its_auxiliary_classifier() -> None:
    model = models.inception_v3(weights=None, init_weights=False).train()
    report = prune(model, Block(8, 8), 0.5, (torch.zeros(1, 3, 75, 75),))
    skipped = {row.name: str(row.reason) for row in report.skipped}
    assert set(skipped) == {"Conv2d_1a_3x3.conv", "AuxLogits.conv0.conv", "AuxLogits.conv1.conv", "AuxLogits.fc"}
    assert all(("unused" in why) == name.startswith("AuxLogits") for name, why in skipped.items())
    assert model.training and model.AuxLogits.training


def test_depthwise_layers_of_a_mobile_network_are_listed() -> None:
    model = models.mobilenet_v2(weights=None, width_mult=0.5)
    report = prune(model, Block(8, 8), 0.75)
    depthwise = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.groups > 1}
    assert {row.name for row in report.skipped if "depthwise" in str(row.reason)} == depthwise
    for row in report.pruned:
        weight = model.get_submodule(row.name).weight
        assert Block(8, 8).verify(weight).gone == row.amounts.removed


@pytest.mark.full
@pytest.mark.parametrize("name", ["resnet50", "vgg16", "inception_v3"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_full_size_networks_lose_exactly_half_their_blocks(name: str, scope: str) -> None:
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None, **({} if name == "resnet50" else {"init_weights": False}))
    report = prune(model, Block(8, 8), 0.5, scope=scope)
    assert report.totals.removed == report.totals.blocks // 2
    zero = sum(Block(8, 8).verify(model.get_submodule(row.name).weight).gone for row in report.pruned)
    assert zero == report.totals.removed


@pytest.mark.full
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2"])
def test_solvers_beat_magnitude_in_every_layer(name: str) -> None:
    """Residual, dense and depthwise networks: blocks in blocks, layers without a block around them, shared inputs. On the data
    itself: deep layers see fewer pixels of these small images than they have inputs, which says little about others."""
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None).eval()
    warm_statistics(model, (torch.zeros(1, 3, 64, 64),))
    data = torch.randn(2, 16, 3, 64, 64)
    report = prune(model, "block:8x8", 0.5, (data[0, :1],), solver="fixed-order", data=list(data))
    assert len(report.pruned) > 15
    for row in report.pruned:
        assert row.errors is not None and row.errors.solver < row.errors.magnitude, row.name
        assert Block(8, 8).verify(model.get_submodule(row.name).weight.detach(), row.groups).clean
