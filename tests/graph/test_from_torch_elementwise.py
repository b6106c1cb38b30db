"""Activations, arithmetic and reductions equal PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from against_torch import Calls, assert_equal_to_torch, few, random
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zellige.graph.operators import ACTIVATIONS

FUNCTIONS = {
    "relu": F.relu, "relu6": F.relu6, "hard_tanh": F.hardtanh, "clamp": lambda x: x.clamp(-0.75, 1.25),
    "clamp_low": lambda x: x.clamp(min=-0.5), "clamp_high": lambda x: x.clamp_max(0.5),
    "clamp_tensor": lambda x: x.clamp(x * 0.5, x.abs()),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.125), "elu": lambda x: F.elu(x, 1.5), "selu": F.selu,
    "celu": lambda x: F.celu(x, 2.0), "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu, "mish": F.mish, "sigmoid": torch.sigmoid, "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish, "tanh": torch.tanh, "softplus": lambda x: F.softplus(x, 2.0, 3.0),
    "softsign": F.softsign, "tanhshrink": F.tanhshrink, "log_sigmoid": F.logsigmoid, "exp": torch.exp,
    "log": lambda x: x.abs().log(), "sqrt": lambda x: x.abs().sqrt(), "rsqrt": lambda x: x.abs().rsqrt(),
    "reciprocal": torch.reciprocal, "absolute": torch.abs, "negate": torch.neg, "square": torch.square,
    "power": lambda x: x.abs() ** 1.5, "cube": lambda x: x**3, "root": lambda x: x.abs() ** 0.5,
    "rrelu": lambda x: F.rrelu(x, 0.25, 0.5), "glu": lambda x: F.glu(x, 1), "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, -1), "dropout": F.dropout2d, "in_place": lambda x: (x + 1).relu_(),
    "expm1": torch.expm1, "log1p": lambda x: x.abs().log1p(), "sign": torch.sign, "erf": torch.erf,
    "hard_shrink": lambda x: F.hardshrink(x, 1.5), "soft_shrink": lambda x: F.softshrink(x, 0.25),
    "threshold": lambda x: F.threshold(x, 1.5, -20.0), "threshold_kept": lambda x: F.threshold(x, 0.5, 0.5),
}


def test_activations():
    functions = {**FUNCTIONS, "dropout": lambda x: F.dropout2d(x, training=False)}
    graph = assert_equal_to_torch(Calls(**functions), 4.0 * random(2, 6, 5, 4))
    used = {str(node.attributes["function"]) for node in graph if node.op == "activation"}
    assert used == set(ACTIVATIONS) - {"hard_tanh"}, "a hard tanh is a clamp"


def test_choices():
    known = torch.tensor([[True, False, True, False]]).T
    model = Calls(
        slope=lambda x, y: torch.where(x > 0, x, 0.125 * x), between=lambda x, y: torch.where(x >= y, x * 2, y),
        less=lambda x, y: torch.where(x < 0.5, 1.0, x), at_most=lambda x, y: torch.where(x <= y[:, :1], x, 2.0),
        numbers=lambda x, y: torch.where(x.relu() == 0, -1.0, 3.0), unequal=lambda x, y: torch.where(x.relu() != 0, y, x),
        filled=lambda x, y: x.masked_fill(y > 0.25, 7.0), tensor=lambda x, y: x.masked_fill(x < y, torch.tensor(2.0)),
        known=lambda x, y: torch.where(known, x, y), mask=lambda x, y: x.masked_fill(~known, -5.0),
        broadcast=lambda x, y: torch.where(y[:1, :1] > 0, x, y[:, :, :1]))
    graph = assert_equal_to_torch(model, random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1))
    assert "where" in {node.op for node in graph}


def test_activation_modules():
    modules = [nn.Softplus(), nn.ReLU6(inplace=True), nn.Hardswish(inplace=True), nn.SiLU(inplace=True),
               nn.PReLU(), nn.PReLU(6, 0.125), nn.LeakyReLU(inplace=True), nn.Softmax2d(), nn.Dropout(), nn.Identity(),
               nn.ELU(inplace=True), nn.Hardtanh(0.0, 6.0)]
    graph = assert_equal_to_torch(nn.Sequential(*modules), random(1, 6, 3, 3))
    assert list(graph.nodes) == ["0", "1", "2", "3", "4", "5", "6", "7", "10", "11"]


@few
@given(data=st.data())
def test_arithmetic_broadcasts(data):
    full = [2, 3, 4, 5]
    thin = [size if data.draw(st.booleans()) else 1 for size in full][data.draw(st.integers(0, 3)):]
    model = Calls(
        add=lambda x, y: x + y, add_factor=lambda x, y: torch.add(x, y, alpha=2), subtract=lambda x, y: y - x,
        subtract_factor=lambda x, y: torch.sub(x, y, alpha=0.5), multiply=lambda x, y: x * y,
        divide=lambda x, y: x / (y.abs() + 1), maximum=torch.maximum, minimum=lambda x, y: torch.min(y, x),
        expand=lambda x, y: y.expand_as(x), both=lambda x, y: x[:1].expand_as(x) + y.expand_as(x),
        expand_product=lambda x, y: x * y.expand_as(x),
        lerp=lambda x, y: torch.lerp(x, y.expand_as(x), 0.25), addcmul=lambda x, y: torch.addcmul(x, x, y, value=2.0),
        addcdiv=lambda x, y: torch.addcdiv(x, x, y.abs() + 0.5))
    assert_equal_to_torch(model, random(*full), random(*thin, seed=1))


def test_arithmetic_with_scalars():
    model = Calls(
        add=lambda x: x + 3, subtract=lambda x: x - 0.5, reverse=lambda x: 1 - x, multiply=lambda x: 0.25 * x,
        divide=lambda x: x / 4, inverse=lambda x: 2 / x, factor=lambda x: torch.rsub(x, 2, alpha=0.5),
        hard_swish=lambda x: x * F.relu6(x + 3) / 6, tensor=lambda x: x + torch.tensor(2.0))
    assert_equal_to_torch(model, random(2, 3))


@pytest.mark.parametrize("dimensions", [(1,), (2, 3), (-1,), (0, 2), (0, 1, 2, 3), ()])
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(dimensions, keep):
    model = Calls(
        mean=lambda x: x.mean(dimensions, keep), sum=lambda x: x.sum(dimensions, keep),
        greatest=lambda x: x.amax(dimensions, keep), least=lambda x: x.amin(dimensions, keep))
    assert_equal_to_torch(model, random(2, 3, 4, 5))


def test_reductions_of_everything():
    model = Calls(
        mean=lambda x: x.mean(), sum=lambda x: x.sum(), greatest=lambda x: x.max(), least=lambda x: x.min(),
        values=lambda x: x.max(1)[0], low=lambda x: x.min(2, keepdim=True).values,
        variance=lambda x: x.var((2, 3)), biased=lambda x: x.var(1, unbiased=False, keepdim=True))
    assert_equal_to_torch(model, random(2, 3, 4, 5))
