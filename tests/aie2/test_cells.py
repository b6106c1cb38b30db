"""The cells that are compared with the paper's: each is lowered whole, and checked for all that a device would refuse."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from families import torchvision_model
from torch import nn

import zellige as zl
from zellige.aie2.check import check
from zellige.aie2.device import DEVICES
from zellige.aie2.lowering.lower import lower
from zellige.aie2.overlay import overlay
from zellige.api import quantized_graph
from zellige.graph.quantized import QuantizedGraph


@cache
def network(name: str, sparsity: float) -> QuantizedGraph:
    """With random weights; VGG-16 without its linear layers, as in the paper."""
    side = 299 if name == "inception_v3" else 224
    inputs = (torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)),)
    model = torchvision_model(name)
    model = nn.Sequential(model.features).eval() if name == "vgg16" else model
    if sparsity:
        linear = [part for part, module in model.named_modules() if isinstance(module, nn.Linear)]
        zl.prune(model, "block:8x8", sparsity, inputs, ignore=linear)
    return quantized_graph(model, inputs)


@pytest.mark.full
@pytest.mark.parametrize("side", range(2, 9))
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "vgg16"])
def test_every_cell_fits_its_device(name: str, sparsity: float, side: int) -> None:
    on = overlay(DEVICES["paper"], side, side)
    check(lower(network(name, sparsity), on), on.device)
