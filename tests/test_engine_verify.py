"""``zl.verify``: what it measures, and that nothing hides from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import zellige as zl
from zellige.errors import InputError, UnsupportedModelError


class Two(nn.Module):
    """Two outputs, one of them a hundred times larger."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        y = self.layer(x)
        return y, 100 * torch.tanh(y)


class Altered:
    """An engine whose outputs are changed before anyone sees them."""

    def __init__(self, engine: zl.Engine, index: int, change: float) -> None:
        self.engine, self.index, self.change = engine, index, change

    def __call__(self, *inputs):
        outputs = self.engine(*inputs)
        outputs[self.index].view(-1)[1] += self.change
        return outputs


@pytest.fixture(scope="module")
def model() -> Two:
    torch.manual_seed(0)
    return Two().eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(3, 6)


@pytest.fixture(scope="module")
def engine(model: Two, x: torch.Tensor) -> zl.Engine:
    return zl.compile(model, (x,), threads=1)


def test_rounding_is_all_there_is(model, engine, x):
    found = zl.verify(model, engine, (x,))
    assert 0 < found.max_absolute_error < 1e-4
    assert found.max_relative_error < 1e-6
    assert zl.verify(model, engine, (x.numpy(),)) == found
    assert "largest error" in str(found)


@pytest.mark.parametrize("index", [0, 1])
def test_an_error_in_any_output_is_found(model, engine, x, index):
    found = zl.verify(model, Altered(engine, index, 0.25), (x,))
    largest = max(float(output.abs().max()) for output in model(x))
    assert found.max_absolute_error == pytest.approx(0.25, abs=1e-4)
    assert found.max_relative_error == pytest.approx(0.25 / largest, rel=1e-3)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_hides_in_no_output(model, engine, x, index, value):
    found = zl.verify(model, Altered(engine, index, value), (x,))
    assert not math.isfinite(found.max_absolute_error) and not math.isfinite(found.max_relative_error)


class Divide(nn.Module):
    def forward(self, x):
        return x / torch.relu(x)  # some 0 / 0, some numbers / 0


def test_what_is_no_number_in_both_is_no_error(x):
    x = torch.where(x.abs() < 0.7, 0, x)
    model = Divide().eval()
    engine = zl.compile(model, (x,))
    expected = model(x)
    assert expected.isnan().any() and expected.isinf().any() and expected.isfinite().any()
    found = zl.verify(model, engine, (x,))
    assert found.max_absolute_error < 1e-5


def test_another_models_engine(engine, x):
    with pytest.raises(InputError, match="compiled from another model"):
        zl.verify(nn.Linear(6, 4).eval(), engine, (x,))
    with pytest.raises(InputError, match="compiled from another model"):
        zl.verify(nn.Sequential(nn.Linear(6, 5)).eval(), zl.compile(nn.Linear(6, 4).eval(), (x,)), (x,))


def test_an_exported_program(model, x):
    program = torch.export.export(model, (x,))
    engine = zl.compile(program, (x,))
    assert zl.verify(program, engine, (x,)).max_relative_error < 1e-6
    for ours, right in zip(engine(x.numpy()), model(x), strict=True):
        np.testing.assert_allclose(ours, right.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_the_model_stays_as_it_was(model, engine, x):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    zl.verify(model.train(), engine, (x,))
    assert model.training
    model.eval()
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])


def test_what_is_no_model_no_engine_no_arguments(model, engine, x):
    with pytest.raises(InputError, match=r"inputs must be a tuple of the model's arguments, got Tensor: write \(x,\)"):
        zl.verify(model, engine, x)
    with pytest.raises(InputError, match="inputs must be a tuple of the model's arguments, got NoneType"):
        zl.verify(model, engine, None)
    with pytest.raises(InputError, match="the arguments must be a tuple of 1, got a tuple of 0"):
        zl.verify(model, engine, ())
    with pytest.raises(InputError, match=r"expected an engine.* got NoneType"):
        zl.verify(model, None, (x,))
    for nothing in (None, "model", lambda x: x):
        with pytest.raises(UnsupportedModelError, match=r"expected a torch\.nn\.Module or a torch\.export\.ExportedProgram"):
            zl.verify(nothing, engine, (x,))
    with pytest.raises(InputError, match="Linear itself fails on these inputs in float64: RuntimeError"):
        zl.verify(nn.Linear(7, 4).eval(), engine, (x,))
