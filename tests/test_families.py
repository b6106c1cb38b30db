"""Whole families of networks, compiled, equal PyTorch in float64: torchvision's classifiers and timm's CNNs, dense and pruned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from families import (
    FAMILIES,
    LEAST_SIDE,
    OTHERS,
    QUICK_FAMILIES,
    SHORTENED,
    TIMM,
    timm_model,
    torchvision_model,
    without_repetitions,
)
from torch import nn

import zellige as zl
from zellige.bench.accuracy import Reference, largest_relative_error
from zellige.models.statistics import warm_statistics

torch.set_num_threads(1)

TOLERANCE = 1e-5
"""Relative to the largest output, unless PyTorch in f32 shows that a network amplifies rounding more than that."""

SIZES = {"alexnet": (1, 67, 71), "vgg11_bn": (2, 33, 39), "inception_v3": (1, 75, 83), "googlenet": (2, 37, 41),
         **dict.fromkeys(("resnetaa34d", "dla34", "dla46x_c", "hrnet_w18_small", "tresnet_m"), (1, 64, 96))}
"""Batch, height and width, where not the usual ones: these networks take multiples of 32 alone, or no small images."""
PRUNED = ["resnet18", "googlenet", "mobilenet_v2"]
QUICK_TIMM = ["convnext_atto", "tf_mixnet_s", "hgnetv2_b0", "resnest14d", "lcnet_050"]


def images(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def input_for(name: str) -> torch.Tensor:
    """A batch of one or two images of an odd size, as small as the network takes."""
    least = LEAST_SIDE.get(name, 33)
    return images(*SIZES.get(name, (1 + len(name) % 2, least, least + 6)))


def assert_compiles(model: nn.Module, x: torch.Tensor, sparsity: float = 0.0) -> zl.Engine:
    """The compiled network gives what PyTorch does, whatever it was called with before."""
    warm_statistics(model, (x,))
    if sparsity:
        zl.prune(model, zl.Block(8, 8), sparsity=sparsity, example_inputs=(x,))
    engine = zl.compile(model, (x,), threads=2)
    engine(100.0 * torch.ones_like(x))
    reference = Reference.of(model, (x,))
    error = largest_relative_error([engine(x).numpy()], reference.answer)
    assert error <= reference.allowed(TOLERANCE), f"off by {error:.2g}; PyTorch in f32 by {reference.torch_error:.2g}"
    return engine


@pytest.mark.parametrize("name", [*QUICK_FAMILIES, *(pytest.param(name, marks=pytest.mark.full) for name in SHORTENED)])
def test_torchvision(name):
    assert_compiles(torchvision_model(name), input_for(name.removeprefix("short ")))


@pytest.mark.full
@pytest.mark.parametrize("name", [name for names in OTHERS.values() for name in names])
def test_other_variants(name):
    assert_compiles(torchvision_model(name), images(2, 64, 64))


@pytest.mark.parametrize("name", [name if name in PRUNED else pytest.param(name, marks=pytest.mark.full) for name in FAMILIES])
def test_pruned(name):
    engine = assert_compiles(torchvision_model(name), input_for(name), sparsity=0.5)
    assert any(layer.density <= 0.55 for layer in engine.layers), "what was pruned must be skipped"


@pytest.mark.parametrize("name", QUICK_TIMM)
def test_short_ones_of_timm(name):
    assert_compiles(without_repetitions(timm_model(name)), input_for(name))


@pytest.mark.full
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    assert_compiles(timm_model(name), input_for(name))


@pytest.mark.full
@pytest.mark.parametrize("name", TIMM[::5])
def test_timm_pruned(name):
    assert_compiles(timm_model(name), input_for(name), sparsity=0.5)


def test_an_exported_program(tmp_path: Path):
    """A ``.pt2`` file is as good as the module it came from."""
    model, x = torchvision_model("squeezenet1_1"), images(1, 33, 39)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    assert torch.equal(zl.compile(program, (x,), threads=1)(x), zl.compile(model, (x,), threads=1)(x))


def small_network(layers: Sequence[nn.Module] = ()) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *layers).eval()


def test_float64_is_refused():
    x = images(1, 9, 9)
    with pytest.raises(zl.ZelligeError, match=r"weight is float64, expected float32.*model.float\(\)"):
        zl.compile(small_network().double(), (x,))
    with pytest.raises(zl.ZelligeError, match="must be float32, got float64"):
        zl.compile(small_network(), (x.double(),))
    with pytest.raises(zl.ZelligeError, match="expected float32 of shape"):
        zl.compile(small_network(), (x,), threads=1)(x.double())
