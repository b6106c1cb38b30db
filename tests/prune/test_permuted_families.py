"""Torchvision's networks with their channels moved: at random, and by the search; what they compute stays."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from families import FAMILIES, OTHERS, torchvision_model
from same_function import assert_same_function
from torch import nn

import zellige as zl
from zellige.graph.axes import find_axes, sources
from zellige.graph.from_torch import trace
from zellige.models.statistics import warm_statistics
from zellige.prune.permutation.state import moved_tensors, state_of, write


def permuted_at_random(model: nn.Module, x: torch.Tensor, seed: int = 0) -> nn.Module:
    """A copy of the model with all of its channels that can move somewhere else."""
    moved = copy.deepcopy(model)
    traced = trace(moved, (x,))
    state = state_of(moved, traced)
    axes = find_axes(traced.graph, state.fixed, state.same)
    assert axes.groups
    random = np.random.default_rng(seed)
    orders = [random.permutation(group.units) for group in axes.groups]
    write(state, moved_tensors(state, sources(axes, orders, {name: tuple(t.shape) for name, t in state.tensors.items()})))
    return moved


def images(side: int = 32, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def narrow_networks() -> dict[str, Callable[[], nn.Module]]:
    """Torchvision's families, as narrow and as shallow as their constructors make them."""
    models = pytest.importorskip("torchvision").models
    regnet, efficientnet = models.regnet, models.efficientnet
    resnet, mobile = models.resnet, efficientnet.MBConvConfig
    return {
        "vgg": lambda: torchvision_model("vgg11_bn"),
        "resnet": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]),
        "bottleneck": lambda: resnet.ResNet(resnet.Bottleneck, [2, 1, 1, 1], width_per_group=16),
        "resnext": lambda: resnet.ResNet(resnet.Bottleneck, [2, 1, 1, 1], groups=4, width_per_group=8),
        "densenet": lambda: models.DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16),
        "mobilenet_v2": lambda: models.mobilenet_v2(width_mult=0.1),
        "mobilenet_v3": lambda: models.mobilenet_v3_small(width_mult=0.25),
        "mnasnet": lambda: models.MNASNet(0.1),
        "shufflenet": lambda: models.ShuffleNetV2([2, 2, 1], [8, 16, 32, 64, 128]),
        "regnet_x": lambda: regnet.RegNet(regnet.BlockParams.from_init_params(5, 16, 12.0, 2.0, 8)),
        "regnet_y": lambda: regnet.RegNet(regnet.BlockParams.from_init_params(5, 16, 12.0, 2.0, 8, se_ratio=0.25)),
        "efficientnet": lambda: models.EfficientNet([mobile(1, 3, 1, 16, 8, 1, 1, 1), mobile(4, 3, 2, 8, 12, 2, 1, 1)], 0.2),
        "convnext": lambda: models.ConvNeXt([models.convnext.CNBlockConfig(8, 16, 1), models.convnext.CNBlockConfig(16, None, 2)]),
    }


@pytest.mark.parametrize("name", ["vgg", "resnet", "bottleneck", "resnext", "densenet", "mobilenet_v2", "mobilenet_v3", "mnasnet",
                                  "shufflenet", "regnet_x", "regnet_y", "efficientnet", "convnext"])
def test_narrow_networks_of_every_family_stay_the_same(name: str) -> None:
    model, x = narrow_networks()[name]().eval(), images()
    warm_statistics(model, (x,))
    assert_same_function(model, permuted_at_random(model, x), x)


@pytest.mark.full
@pytest.mark.parametrize("name", [*FAMILIES, *(name for names in OTHERS.values() for name in names)])
def test_whole_families_stay_the_same(name: str) -> None:
    model, x = torchvision_model(name), images(75 if name == "inception_v3" else 64)
    warm_statistics(model, (x,))
    assert_same_function(model, permuted_at_random(model, x), x)


@pytest.mark.full
@pytest.mark.parametrize("name", ["alexnet", "resnet18", "googlenet", "mobilenet_v2", "resnext50_32x4d", "squeezenet1_1",
                                  "shufflenet_v2_x0_5", "densenet121"])
def test_whole_networks_keep_more(name: str) -> None:
    model, x = torchvision_model(name), images(67 if name == "alexnet" else 64)
    warm_statistics(model, (x,))
    before = copy.deepcopy(model)
    report = zl.permute(model, "block:8x8", 0.5, (x,))
    assert report.kept > report.kept_before + 0.003
    assert_same_function(before, model, x)
