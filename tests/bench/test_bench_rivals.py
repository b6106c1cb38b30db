"""Every rival must compute what PyTorch computes in float64, or say why it can't take part."""

import copy

import numpy as np
import pytest
import torch
from stand_in import tiny_network
from torch import nn

from zellige.bench.accuracy import largest_relative_error, reference_answer
from zellige.bench.rivals import NEEDS, RIVALS, UnavailableRivalError, torch_compile, why_unavailable

F32_ROUNDING = 1e-5
"""Sums of at most 144 products in f32; bf16 would be off by 1e-3 and more."""

SLOW = {"torch-compile"}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name in SLOW else name for name in RIVALS]
)
def test_a_rival_is_right_in_f32(name: str, batch: int) -> None:
    if lacking := why_unavailable(name):
        pytest.skip(lacking)
    model = tiny_network()
    before = copy.deepcopy(model.state_dict())
    inputs = (torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1)),)
    rival = RIVALS[name](model, inputs, 1)
    assert rival.name == name and rival.version and rival.settings
    for _ in range(2):
        answer = rival.answer()
        assert [array.dtype for array in answer] == [np.float32]
        assert largest_relative_error(answer, reference_answer(model, inputs)) < F32_ROUNDING
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class TwoHeads(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x) + y, torch.sigmoid(x)


@pytest.mark.parametrize("name", [name for name in RIVALS if name not in SLOW])
def test_several_inputs_and_outputs_keep_their_order(name: str) -> None:
    if lacking := why_unavailable(name):
        pytest.skip(lacking)
    inputs = (torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8) + 5)
    rival = RIVALS[name](TwoHeads().eval(), inputs, 1)
    assert largest_relative_error(rival.answer(), reference_answer(TwoHeads(), inputs)) < F32_ROUNDING


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEEDS, "openvino", ("openvino", "no_such_package"))
    assert "no_such_package" in (why_unavailable("openvino") or "")


def test_inductor_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile.shutil, "which", lambda name: None)
    assert why_unavailable("torch-compile") == torch_compile.NO_COMPILER
    with pytest.raises(UnavailableRivalError, match=r"C\+\+ compiler"):
        RIVALS["torch-compile"](tiny_network(), (torch.zeros(1, 3, 16, 16),), 1)


class Unsized(nn.Module):
    """Its output's size depends on the values: no engine with fixed shapes takes it, tracing bakes one size in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        raise RuntimeError("this way leads nowhere")


def test_a_network_that_cant_be_exported_is_unavailable_not_a_crash() -> None:
    with pytest.raises(UnavailableRivalError, match="ONNX"):
        RIVALS["onnxruntime"](Unsized(), (-torch.ones(1, 3),), 1)
