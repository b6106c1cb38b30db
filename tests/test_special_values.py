"""Numbers that are none: NaN and infinities spread through every operator as PyTorch has them in float64, but for what
``Engine.__call__`` says."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from operator_cases import ACTIVATIONS, Abreast
from torch import nn

import zellige as zl

NAN, INFINITY = float("nan"), float("inf")
Work = Callable[..., torch.Tensor]


def special(shape: tuple[int, ...], value: float) -> torch.Tensor:
    """Random numbers, ``value`` among them here and there; none in the second half of the second dimension."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator)
    chosen = torch.rand(shape, generator=generator) < 0.1
    chosen[:, shape[1] // 2:] = False
    assert chosen.any() and not chosen.all()
    return torch.where(chosen, value, x)


def results(works: dict[str, Work], x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What every work gives compiled, and in float64."""
    model = Abreast(list(works.values())).eval()
    inputs = [[x] for _ in works]
    got = zl.compile(model, (inputs,), threads=1, winograd=False)(inputs)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()([[x.double()] for _ in works])
    return {name: pair for name, *pair in zip(works, got, expected, strict=True)}


def assert_alike(name: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    """The same NaN, the same infinities, and close in between."""
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-6, equal_nan=True, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_activations(value):
    works = {**ACTIVATIONS, "half_power": lambda x: x**2.5, "root": lambda x: x ** (1 / 3), "inverse_root": lambda x: x**-0.3}
    x = special((2, 6, 5, 7), value)
    found = results(works, x)
    if value == -INFINITY:
        ours, right = found.pop("silu")
        at_infinity = torch.isneginf(x)
        assert right[at_infinity].isnan().all() and (ours[at_infinity].abs() < 3e-37).all()
        assert_alike("silu", ours[~at_infinity], right[~at_infinity])
    for name, (ours, right) in found.items():
        assert_alike(name, ours, right)


OTHERS: dict[str, Work] = {
    "max pool": nn.MaxPool2d(3, 2, 1), "listed max pool": nn.MaxPool2d((2, 5), 3), "average pool": nn.AvgPool2d(3, 1, 1),
    "adaptive": nn.AdaptiveMaxPool2d((3, 2)), "adaptive average": nn.AdaptiveAvgPool2d((4, 5)), "LP pool": nn.LPPool2d(2, 2),
    "zeros": nn.ZeroPad2d(1), "reflect": nn.ReflectionPad2d(1), "replicate": nn.ReplicationPad2d(2),
    "circular": nn.CircularPad2d(1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2), "bilinear": lambda x: F.interpolate(x, (9, 11), mode="bilinear"),
    "mean": lambda x: x.mean((2, 3)), "sum": lambda x: x.sum(1), "largest": lambda x: x.amax((1, 3)), "least": lambda x: x.amin(2),
    "variance": lambda x: x.var((2, 3)), "norm": lambda x: torch.linalg.vector_norm(x, 2, 1), "log sum": lambda x: x.logsumexp(1),
    "softmax": lambda x: x.softmax(1), "softmax of rows": lambda x: x.softmax(3), "log softmax": lambda x: x.log_softmax(2),
    "sums": lambda x: x + x.flip(1), "differences": lambda x: x - x.roll(1, 2), "products": lambda x: x * x.flip(2),
    "quotients": lambda x: x / x.flip(3), "larger": lambda x: torch.maximum(x, x.flip(1)),
    "smaller": lambda x: torch.minimum(x.flip(1), x),
    "choice": lambda x: torch.where(x >= x.flip(1), x, -1.0), "different": lambda x: torch.where(x != x, 0.0, x),
    "batch norm": nn.BatchNorm2d(6), "layer norm": nn.LayerNorm(7), "group norm": nn.GroupNorm(3, 6),
    "variance by 0": lambda x: x.var(1, correction=9), "powers of 1": lambda x: 1.0**x,
    "near": lambda x: torch.lerp(x, x.flip(1), 0.3), "far": lambda x: torch.lerp(x, x.flip(1), 0.5),
    "cut": lambda x: torch.cat([x[:, 1::2], x[:, ::3]], 1), "turned": lambda x: x.permute(0, 3, 1, 2),
    "scaled": lambda x: 2 * x + 1, "shuffle": nn.ChannelShuffle(2),
    "linear": nn.Linear(7, 5), "single pixels": lambda x: F.conv2d(x[:, :, :1, :1], torch.ones(9, 6, 1, 1, dtype=x.dtype)),
    "convolution": nn.Conv2d(6, 8, 3), "grouped": nn.Conv2d(6, 6, 3, 2, groups=2),
    "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6), "pointwise": nn.Conv2d(6, 9, 1), "line": lambda x: x[:, :, 0].tanh(),
}


MATRIX_VECTOR = ("linear", "single pixels")


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_every_other_operator(value):
    torch.manual_seed(0)
    for name, (ours, right) in results(OTHERS, special((2, 6, 5, 7), value)).items():
        if name in MATRIX_VECTOR:       # a list of columns may end in one that it has already, times 0
            assert torch.equal(ours.isfinite(), right.isfinite()), name
            ours, right = (torch.where(right.isfinite(), y, 0.0) for y in (ours, right))
        assert_alike(name, ours, right)
