"""What does not fit is one error, before training or where it comes up, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from small_runs import SAMPLES, Perceptron, network, quiet, recipe
from torch import nn

import zellige as zl
from zellige.errors import RecipeError, ZelligeError
from zellige.train import Distillation


@pytest.mark.parametrize("arguments, said", [
    ({"recipe": recipe(batch=200)}, "lower batch"), ({"recipe": recipe(accumulate=3)}, "make batch a multiple of 3"),
    ({"resume": True}, "which checkpoint"), ({"log": "run.txt"}, "ends in .csv or .json"),
    ({"log": "no/such/log.csv"}, "no directory"),
    ({"checkpoint": "no/such/checkpoint"}, "no directory"), ({"model": "resnet"}, "takes a torch.nn.Module"),
    ({"data": [(torch.zeros(16), torch.zeros(2, dtype=torch.long))] * 20}, "logits of shape"),
    ({"data": [torch.zeros(16)] * 20}, "a pair of inputs and labels"),
])
def test_what_does_not_fit_is_refused(arguments: dict[str, object], said: str) -> None:
    whole = {"model": Perceptron(), "recipe": recipe(), "data": SAMPLES, "progress": quiet} | arguments
    with pytest.raises(ZelligeError, match=said):
        zl.finetune(**whole)  # type: ignore[arg-type]


def test_layers_of_distillation_must_be_there() -> None:
    with pytest.raises(RecipeError, match="legs"):
        zl.finetune(network(), recipe(distillation=Distillation(features=1.0, layers=["legs"])), SAMPLES, progress=quiet)


def _frozen() -> nn.Module:
    return Perceptron().requires_grad_(False)


def _nowhere() -> nn.Module:
    with torch.device("meta"):
        return Perceptron()


def _failing(model: nn.Module, pair: object) -> torch.Tensor:
    raise KeyError("labels")


@pytest.mark.parametrize("arguments, said", [
    ({"data": [(x[:3], y) for x, y in SAMPLES]}, r"can't run on a batch of torch.float32 of \(16, 3\): RuntimeError"),
    ({"data": [(x.double(), y) for x, y in SAMPLES]}, "can't run on a batch of torch.float64"),
    ({"data": [{"pixels": x, "labels": y} for x, y in SAMPLES]}, "a batch of pixels torch.float32 of .*, labels torch.int64 of"),
    ({"data": [(x, y.float()) for x, y in SAMPLES]}, "whole numbers, those of their classes; these are torch.float32"),
    ({"data": [(x, f"class {int(y)}") for x, y in SAMPLES]}, "whole numbers, those of their classes; these are (list|tuple)"),
    ({"data": [(x, y + 4) for x, y in SAMPLES]}, "logits of 4 classes, and labels lie between 4 and 7"),
    ({"data": [(x[:int(y) + 1], y) for x, y in SAMPLES]}, "samples can't be put into a batch"),
    ({"data": type("Torn", (list,), {"__getitem__": lambda self, number: 1 // 0})(SAMPLES)}, "fails to give sample .*ZeroDivision"),
    ({"data": (SAMPLES, [])}, "no samples to validate by"),
    ({"loss": _failing}, "the loss fails on a batch: KeyError: 'labels'"),
    ({"loss": lambda model, pair: model(pair[0])}, r"a tensor of one number.*not torch.float32 of \(16, 4\)"),
    ({"loss": lambda model, pair: 1.0}, "a tensor of one number.*not float"),
    ({"loss": lambda model, pair: model(pair[0]).mean().detach()}, "depends on no weight that is trained"),
    ({"model": _frozen()}, "nothing to train"), ({"model": _nowhere()}, "meta device"),
    ({"model": Perceptron().half()}, "float16, in which an optimiser's steps are lost"),
    ({"recipe": None}, "path of a file"),
])
def test_what_a_user_s_own_code_and_data_get_wrong_is_one_error(arguments: dict[str, object], said: str) -> None:
    whole = {"model": Perceptron(), "recipe": recipe(), "data": SAMPLES, "progress": quiet} | arguments
    with pytest.raises(ZelligeError, match=said):
        zl.finetune(**whole)  # type: ignore[arg-type]


def test_a_teacher_that_lacks_a_layer_leaves_no_listener() -> None:
    model, options = network(), recipe(distillation=Distillation(features=1.0, layers=["body"]))
    with pytest.raises(RecipeError, match="body"):
        zl.finetune(model, options, SAMPLES, progress=quiet, teacher=nn.Sequential(nn.Linear(16, 4)))
    assert not any(module._forward_hooks for module in model.modules())


def test_memory_that_runs_out_says_so_itself() -> None:
    class Full(Perceptron):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("tried to allocate much")

    with pytest.raises(torch.OutOfMemoryError, match=r"^tried to allocate much"):
        zl.finetune(Full(), recipe(), SAMPLES, progress=quiet)
