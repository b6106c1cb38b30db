"""Bad requests: one clear error, and a model left as it was."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from zellige.errors import PruneError, ZelligeError
from zellige.patterns import Block
from zellige.prune import prune


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(32, 32))


GOOD: dict[str, Any] = {"pattern": Block(8, 8), "sparsity": 0.5}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *[({"sparsity": value}, "Sparsity") for value in (1, 1.0, -0.1, 2, math.nan, math.inf, "half", None, True)],
        ({"pattern": "blocks"}, "Unknown pattern"),
        ({"pattern": (8, 8)}, "A pattern is"),
        ({"score": "l3"}, "Unknown score 'l3'. Known: l1, l2, variance"),
        ({"score": ["l1"]}, "Unknown score .*. Known: l1, l2, variance"),
        ({"scope": "model"}, "Unknown scope 'model'. Known: layer, global, erk, sensitivity"),
        ({"scope": ["layer"]}, "Unknown scope .*. Known: layer, global, erk, sensitivity"),
        ({"targets": ["nothing"]}, "targets"),
        ({"targets": 5}, "targets takes names of layers and 're:' patterns, not 5"),
        ({"ignore": 5}, "ignore takes names of layers and 're:' patterns, not 5"),
        ({"ignore": ""}, "ignore entry '' matches no"),
        ({"ignore": [""]}, "ignore entry '' matches no"),
        ({"ignore": ["1", "3"]}, "No layer is left"),
        ({"targets": []}, "No layer is left"),
        ({"example_inputs": (torch.zeros(1, 4, 5, 5),)}, "example_inputs"),
        ({"example_inputs": ()}, "example_inputs"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PruneError, match=message):
        prune(model, **{**GOOD, **changed})
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.training


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_weights_that_are_no_numbers_are_named(value: float, layer: int) -> None:
    model = network()
    with torch.no_grad():
        model[layer].weight.view(-1)[5] = value
    before = [model[at].weight.clone() for at in (0, 1, 3)]
    with pytest.raises(PruneError, match=f"layer '{layer}' holds NaN or infinite"):
        prune(model, **GOOD)
    for at, weight in zip((0, 1, 3), before, strict=True):
        assert torch.equal(model[at].weight.nan_to_num(), weight.nan_to_num())


def test_weights_without_numbers_are_refused() -> None:
    with torch.device("meta"):
        model = network()
    with pytest.raises(PruneError, match="layer '0' is on the meta device"):
        prune(model, **GOOD)
    with pytest.raises(PruneError, match="run the model once"):
        prune(nn.Sequential(nn.LazyLinear(32)), **GOOD)
    assert prune(nn.Sequential(nn.LazyBatchNorm2d(), nn.Linear(32, 32)), **GOOD).totals.removed == 8


def test_weights_made_in_inference_mode_are_refused_before_any_is_written() -> None:
    model = network()
    with torch.inference_mode():
        model[3] = nn.Linear(32, 32)
    before = model[1].weight.clone()
    with pytest.raises(PruneError, match="layer '3' was made in inference mode"):
        prune(model, **GOOD)
    assert torch.equal(model[1].weight, before)


def test_models_without_layers_are_refused() -> None:
    with pytest.raises(PruneError, match="no convolution or linear layer"):
        prune(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), **GOOD)
    with pytest.raises(PruneError, match="depthwise"):
        prune(nn.Conv2d(64, 64, 3, groups=64), **GOOD)


class Broken(nn.Module):
    """Its own code fails, as code does."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.layer, self.failure = nn.Linear(64, 64), failure

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise self.failure


@pytest.mark.parametrize("failure", [AttributeError("no such thing"), KeyError("no such key"), ZeroDivisionError("by zero")])
def test_a_model_that_fails_says_how(failure: Exception) -> None:
    model = Broken(failure).train()
    with pytest.raises(PruneError, match=f"can't run on example_inputs: {type(failure).__name__}: .*{failure.args[0]}"):
        prune(model, **GOOD, example_inputs=(torch.zeros(1, 64),))
    assert model.training


def test_exported_programs_keep_no_layers() -> None:
    program = torch.export.export(network().eval(), (torch.zeros(1, 3, 5, 5),))
    with pytest.raises(PruneError, match=r"keeps no layers that could be pruned: prune the model first, then export it"):
        prune(program.module(), **GOOD)
    assert prune(torch.fx.symbolic_trace(network()), **GOOD).totals.removed  # its layers are there


def test_what_was_made_of_layers_keeps_none() -> None:
    with pytest.raises(PruneError, match=r"A scripted model keeps no layers .*: prune the model first, then script it"):
        prune(torch.jit.trace(network().eval(), torch.zeros(1, 3, 5, 5)), **GOOD)
    with pytest.raises(PruneError, match=r"A quantised model keeps no layers .*: prune the model first, then quantise it"):
        prune(torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(64, 64))), **GOOD)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ZelligeError, match=r"torch\.nn\.Module, not Tensor"):
        prune(torch.zeros(64, 64), **GOOD)
