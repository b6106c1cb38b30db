"""Networks that are legal and unusual: layers in another type than the rest, results that are None, names that meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from interpreter import widen_bfloat16
from test_network import TOLERANCE, compiled
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from zellige.cuda.engine import prepare
from zellige.cuda.network.layers import layer_of
from zellige.cuda.network.trace import trace
from zellige.errors import InputError, UnsupportedModelError


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


class Model(nn.Module):
    """Of modules and parameters by name, and what is computed from them."""

    def __init__(self, compute: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        return self.compute(self, *inputs)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


UNUSUAL: dict[str, tuple[Model, tuple[torch.Tensor, ...]]] = {
    "a linear layer in float32": (
        Model(lambda own, x: functional.linear(x.float(), own.one.weight.float(), own.one.bias.float()).type_as(x) + own.two(x),
              one=nn.Linear(32, 32), two=nn.Linear(32, 32)), (normal(4, 32),)),
    "a norm in float32": (
        Model(lambda own, x: own.one(functional.layer_norm(x.float(), (32,), own.scale.float()).type_as(x)),
              one=nn.Linear(32, 32), scale=nn.Parameter(normal(32))), (normal(4, 32),)),
    "a convolution and its norm in float32": (
        Model(lambda own, x: functional.batch_norm(
            functional.conv2d(x.float(), own.one.weight.float()), own.norm.running_mean.float(), own.norm.running_var.float()
        ).type_as(x), one=nn.Conv2d(8, 8, 3), norm=nn.BatchNorm2d(8)), (normal(2, 8, 6, 6),)),
    "a bias for every token": (
        Model(lambda own, x: functional.linear(x, own.one.weight, own.more), one=nn.Linear(32, 32),
              more=nn.Parameter(normal(4, 32))), (normal(4, 32),)),
    "one bias for all": (
        Model(lambda own, x: functional.linear(x, own.one.weight, own.more), one=nn.Linear(32, 32), more=nn.Parameter(normal(1))),
        (normal(4, 32),)),
    "None among the results": (Model(lambda own, x: (None, own.one(x), {"more": None, "x": x}), one=nn.Linear(32, 32)),
                               (normal(4, 32),)),
    "a parameter that nothing reads, named as a folded weight would be": (
        Model(lambda own, x: own.norm(own.first(x)), first=nn.Conv2d(8, 8, 3), norm=nn.BatchNorm2d(8), conv2d=nn.Conv2d(8, 8, 3)),
        (normal(2, 8, 6, 6),)),
    "one layer twice, its result and its input as results": (
        Model(lambda own, x: (own.one(torch.relu(own.one(x))) + own.one(x), x, own.one.weight), one=nn.Linear(32, 32)),
        (normal(4, 32),)),
    "one layer twice of one input, and what follows each": (
        Model(lambda own, x: (own.one(x), own.two(own.one(x)), own.three(own.two(x))), one=nn.Linear(32, 32), two=nn.Linear(32, 32),
              three=nn.Linear(32, 32)), (normal(4, 32),)),
    "no weight left": (
        Model(lambda own, x: own.two(torch.relu(own.one(x))), one=nn.Linear(32, 32), two=nn.Linear(32, 32)), (normal(1, 32),)),
}
with torch.no_grad():
    for layer in UNUSUAL["no weight left"][0].children():
        layer.weight.zero_()  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("way, order, dtype", [("dense", "tokens", torch.float16), ("columns", "features", torch.float16),
                                               ("steps", "tokens", torch.bfloat16)])
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_networks(name: str, way: str, order: str, dtype: torch.dtype) -> None:
    model, inputs = UNUSUAL[name]
    engine = compiled(model, inputs, way, order, dtype)
    found, expected = engine(*inputs), model(*inputs)
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            assert one.shape == other.shape and (one - other).abs().max() <= TOLERANCE[dtype] * other.abs().max()
    assert engine.profile(1).rows


def test_tied_weights_are_known_exactly_by_both_names() -> None:
    model = nn.Sequential(nn.Linear(32, 32, bias=False), nn.ReLU(), nn.Linear(32, 32, bias=False)).eval()
    model[2].weight = model[0].weight  # type: ignore[union-attr]
    program = prepare(model, (normal(4, 32),), torch.bfloat16)
    layers = [found for node in program.graph.nodes if (found := layer_of(node)) is not None]
    assert len(layers) == 2
    for one in layers:
        assert torch.equal(one.weight, model[0].weight)  # type: ignore[union-attr, arg-type]


def test_shapes_that_depend_on_values() -> None:
    shape = Model(lambda own, x: own.one(x)[x.sum(1) > 0].sum(0), one=nn.Linear(32, 32))
    number = Model(lambda own, x: own.one(x) * x.sum().item(), one=nn.Linear(32, 32))
    for model in (shape, number):
        with pytest.raises(UnsupportedModelError, match="shape or a number that depends on values"):
            trace(model, (normal(4, 32),), torch.float16)


def test_a_model_that_does_not_run_in_the_type() -> None:
    model = Model(lambda own, x: torch.linalg.inv(own.one(x)), one=nn.Linear(32, 32))
    with pytest.raises(UnsupportedModelError, match=r"in float32, but not as model.to\(torch.float16\): RuntimeError: linalg.inv"):
        trace(model, (normal(32, 32),), torch.float16)
    with pytest.raises(InputError, match=r"Model itself fails on example inputs of shapes \[\(4, 31\)\]"):
        trace(model, (normal(4, 31),), torch.float16)


@pytest.mark.parametrize("array, said", [
    (np.array([["one"] * 32] * 4), "array of"), (np.zeros((4, 32), object), "O"), (np.zeros((4, 32), ">f4"), ">f4"),
    (np.zeros((4, 32)), "float64")])
def test_arrays_that_no_tensor_holds(array: Any, said: str) -> None:
    engine = compiled(nn.Linear(32, 32).eval(), (normal(4, 32),), "dense", "tokens")
    with pytest.raises(InputError, match=said):
        engine(array)


def test_why_a_convolution_is_left_to_cudnn() -> None:
    model, inputs = UNUSUAL["a convolution and its norm in float32"]
    assert compiled(model, inputs).layers[0].reason == "dense, through cuDNN: the model has it in torch.float32"
