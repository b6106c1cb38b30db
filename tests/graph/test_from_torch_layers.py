"""Linear layers, products with constants and normalisations equal PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from against_torch import Calls, assert_equal_to_torch, random
from torch import nn


class Parts(Calls):
    """``Calls`` with parameters of its own."""

    def __init__(self, **functions: object) -> None:
        super().__init__(**functions)
        self.weight = nn.Parameter(random(6, 4))
        self.vector = nn.Parameter(random(4, seed=2))

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        return {name: function(x, self.weight, self.vector) for name, function in self.functions.items()}


def test_products_with_constants():
    model = Parts(
        linear=lambda x, w, v: F.linear(x, w), matrix=lambda x, w, v: x @ w.t(), vector=lambda x, w, v: x @ v,
        flat=lambda x, w, v: torch.mm(x.view(-1, 4), w.t()),
        biased=lambda x, w, v: torch.addmm(v, x.view(-1, 4), w[:4].contiguous()),
        summed=lambda x, w, v: torch.addmm(x.view(-1, 4), x.view(-1, 4), w[:4].contiguous()))
    assert_equal_to_torch(model, random(2, 3, 4))


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (2, 3, 4, 5), (4,), (2, 4, 1)])
def test_products_with_a_constant_from_the_left(shape):
    """Token mixing, also as einsum writes it out: with a batch of one matrix."""
    model = Parts(
        plain=lambda x, w, v: w @ x, batch=lambda x, w, v: w[None] @ x, deeper=lambda x, w, v: w[None, None, None] @ x,
        columns=lambda x, w, v: torch.einsum("st,...t->...s" if x.dim() == 1 else "st,...td->...sd", w, x))
    assert_equal_to_torch(model, random(*shape))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 2, 3, 4)])
def test_linear_works_on_the_last_dimension(shape):
    assert_equal_to_torch(nn.Linear(4, 5), random(*shape))


def randomized(norm: nn.Module) -> nn.Module:
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5 if "var" in name else -1.0, 1.5)
    return norm


@pytest.mark.parametrize("affine", [False, True])
def test_batch_norms(affine):
    torch.manual_seed(3)
    assert_equal_to_torch(randomized(nn.BatchNorm2d(6, eps=1e-3, affine=affine)), random(2, 6, 3, 3))
    assert_equal_to_torch(randomized(nn.BatchNorm1d(6, affine=affine)), random(2, 6))
    assert_equal_to_torch(randomized(nn.BatchNorm1d(6, affine=affine)), random(2, 6, 4))


@pytest.mark.parametrize("norm", [
    nn.LayerNorm(5), nn.LayerNorm((4, 5), elementwise_affine=False), nn.GroupNorm(3, 6), nn.GroupNorm(2, 6, affine=False),
    nn.InstanceNorm2d(6), nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
    nn.BatchNorm2d(6, track_running_stats=False)], ids=str)
def test_norms_without_an_operator_are_written_out(norm):
    torch.manual_seed(3)
    # epsilon is a float32 constant here: 1e-5 · 2⁻²⁴ against variances near 1
    assert_equal_to_torch(randomized(norm), random(2, 6, 4, 5), tolerance=1e-8)
