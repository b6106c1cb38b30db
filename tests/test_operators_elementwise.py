"""Activations, arithmetic, reductions and norms, end to end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import ACTIVATIONS, Abreast, Case, Scaled, assert_equal, few, side_by_side
from torch import nn

import zellige as zl


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (3, 6), (1, 6, 1, 1), (2, 6, 5)], ids=str)
def test_activations(shape):
    assert_equal(*(Case(work, (shape,)) for work in ACTIVATIONS.values()))


def test_activations_far_from_zero():
    """Saturated ends are exact, and nothing overflows on the way to them."""
    tame = [name for name in ACTIVATIONS if name not in ("exp", "exp2", "expm1", "cube", "power", "square", "minus_two")]
    for factor in (30.0, 1e4):
        assert_equal(*(Case(Scaled(ACTIVATIONS[name], factor), ((2, 6, 3, 3),)) for name in tame))


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-12])
def test_differences_from_one_keep_their_digits(size):
    """ln(1 + x) and eˣ − 1 are about x where x is small: each result is right to some ulp of itself."""
    x = size * torch.randn(1, 2, 4, 9, generator=torch.Generator().manual_seed(0))
    work = Abreast([torch.log1p, torch.expm1, torch.erf, F.elu, torch.tanh])
    for got, expected in zip(zl.compile(work.eval(), ([[x]] * 5,))([[x]] * 5), work([[x.double()]] * 5), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0.0)


ARITHMETIC = [torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda x, y: x / (y.abs() + 0.5),
              lambda x, y: torch.add(x, y, alpha=0.5), lambda x, y: y - x, lambda x, y: x * y + y, lambda x, y: F.relu(x + y)]


@st.composite
def sums(draw: st.DrawFn) -> Case:
    """Any two shapes that broadcast, maps and others; one of them may be a constant."""
    full = [draw(st.integers(1, 9)) for _ in range(draw(st.sampled_from([2, 3, 4, 4, 4, 5])))]
    thin = [size if draw(st.booleans()) else 1 for size in full][draw(st.integers(0, len(full) - 1)):]
    work = draw(st.sampled_from(ARITHMETIC))
    if draw(st.booleans()):
        constant = torch.randn(thin, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
        if draw(st.booleans()):
            return Case(lambda x: work(x, constant.to(x.dtype)), (tuple(full),))
        return Case(lambda x: work(constant.to(x.dtype), x), (tuple(full),))
    return Case(work, draw(st.permutations((tuple(full), tuple(thin)))))


@st.composite
def reductions(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.integers(1, 9)) for _ in range(draw(st.integers(1, 5))))
    over = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    keep = draw(st.booleans())
    work = draw(st.sampled_from([
        lambda x: x.mean(over, keep), lambda x: x.sum(over, keep), lambda x: x.amax(over, keep), lambda x: x.amin(over, keep),
        lambda x: x.softmax(over[0]), lambda x: x.log_softmax(over[0]), lambda x: x.var(over, unbiased=False, keepdim=keep),
        lambda x: x.logsumexp(over, keep), lambda x: torch.linalg.vector_norm(x, 2, over, keep),
        lambda x: torch.linalg.vector_norm(x, 1, over, keep), lambda x: x.mean(), lambda x: x.mean(over).sum()]))
    return Case(work, (shape,))


@few
@given(cases=side_by_side(sums() | sums() | reductions()))
def test_arithmetic_and_reductions(cases):
    assert_equal(*cases)


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of a map, as ConvNeXt has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StandardizedConv2d(nn.Conv2d):
    """Weights of mean 0 and variance 1, as ResNet v2 and NFNets have them: they are constants all the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


def with_numbers(norm: nn.Module) -> nn.Module:
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5 if "var" in name else -1.0, 1.5)
    return norm


def test_norms():
    torch.manual_seed(3)
    maps, tokens = ((2, 6, 4, 5),), ((2, 6, 8),)
    norms = [
        (nn.BatchNorm2d(6), maps), (nn.BatchNorm2d(6, affine=False), maps), (nn.BatchNorm2d(6, track_running_stats=False), maps),
        (nn.BatchNorm1d(6), tokens), (nn.BatchNorm1d(6), ((3, 6),)), (nn.GroupNorm(3, 6), maps),
        (nn.GroupNorm(2, 6, affine=False), maps), (nn.GroupNorm(1, 6), maps),
        (nn.LayerNorm(8), tokens), (nn.LayerNorm((4, 5)), maps), (LayerNorm2d(6), maps),
        (nn.InstanceNorm2d(6), maps), (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), maps), (nn.RMSNorm(8), tokens),
        (StandardizedConv2d(6, 9, 3, padding=1), maps)]
    own = [lambda x: F.normalize(x, dim=1), lambda x: F.normalize(x, p=1, dim=(2, 3)), lambda x: x / x.std((2, 3), keepdim=True),
           lambda x: torch.var_mean(x, (2, 3))[1], lambda x: F.local_response_norm(x, 3)]
    assert_equal(*(Case(with_numbers(norm), shapes) for norm, shapes in norms), *(Case(work, maps) for work in own))
