"""The walk through a model against the plain way: for every layer, the whole model is run with the weights as they are by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from zellige.demo.network import DigitsNetwork
from zellige.errors import PruneError
from zellige.prune.calibration import Calibration
from zellige.prune.layers import find_layers
from zellige.prune.solvers.walk import Entry, Look, Visit, _visited, planned, walk
from zellige.prune.undisturbed import undisturbed


class Twice(nn.Module):
    """A block that runs twice, as recurrent networks and detection heads do, between layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.block(torch.relu(self.block(self.first(x)))))


class Tied(nn.Module):
    """Two layers of one weight, in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) for _ in range(2))
        self.right[0].weight = self.left[2].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.right(torch.tanh(self.left(x)))


class InPlace(nn.Module):
    """A block that writes into what it is called on, by name, and a hook that changes what a block is called on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.outer = (nn.Linear(6, 6) for _ in range(4))
        self.body = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.inner = Inner(self.second, self.third)
        self.inner.register_forward_pre_hook(lambda module, given, named: (given, {"y": named["y"] * 2}), with_kwargs=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.outer(self.inner(y=y) + y) + sum(layer(y) for layer in self.body)


class Inner(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        y.add_(1)
        return self.layers(torch.relu_(y))


class Branching(nn.Module):
    """Layers and a block inside a block, in another order than defined."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Linear(6, 6), nn.Linear(6, 6)
        self.deep = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 6)), nn.Linear(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.early(x)
        return self.late(self.deep(y) + y)


def inputs_seen(model: nn.Module, layer: Any, batches: list[Any]) -> list[torch.Tensor]:
    """All that a layer is called on, by running the model from end to end."""
    seen: list[torch.Tensor] = []
    users = {id(user): user for user in map(model.get_submodule, layer.names)}
    handles = [user.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone())) for user in users.values()]
    for batch in batches:
        model(batch.clone())
    for handle in handles:
        handle.remove()
    return seen


MODELS: list[Callable[[], nn.Module]] = [Twice, Tied, InPlace, Branching, lambda: nn.Linear(6, 6),
                                         lambda: nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)))]


@pytest.mark.parametrize("make", MODELS)
def test_layers_see_what_a_run_of_the_whole_model_shows_them(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().double()
    batches = [torch.randn(size, 6, dtype=torch.float64) for size in (4, 3)]
    before = [batch.clone() for batch in batches]
    layers = find_layers(model)
    walked = []
    with undisturbed(model):
        for layer, look in walk("test", model, layers, Calibration(), batches):
            seen: list[torch.Tensor] = []
            look(lambda number, module, inputs, into=seen: into.append(inputs.clone()))  # type: ignore[misc]
            expected = inputs_seen(model, layer, batches)
            assert len(seen) == len(expected)
            assert all(map(torch.equal, seen, expected))
            layer.weight.mul_(0.7).add_(0.1)  # what later layers see depends on it
            walked.append(layer)
    assert sorted(layer.name for layer in walked) == sorted(layer.name for layer in layers)
    assert all(map(torch.equal, batches, before))
    assert not any(module._forward_pre_hooks for module in model.modules() if not isinstance(module, Inner))


def names_of(model: nn.Module, steps: list[Look | Entry]) -> list[Any]:
    names = {id(module): name for name, module in model.named_modules()}
    return [step.layer.name if isinstance(step, Look) else (names[id(step.module)], names_of(model, step.steps)) for step in steps]


def plan_of(model: nn.Module, batch: torch.Tensor) -> list[Any]:
    users = {layer: [model.get_submodule(name) for name in layer.names] for layer in find_layers(model)}
    visit: Visit = _visited(model, users, lambda: str(model(batch)) and None)
    return names_of(model, planned(visit, visit.calls()))


def test_what_is_entered() -> None:
    """Blocks are, one in the other; not what holds one layer, nor what runs twice or shares a layer."""
    image, row = torch.zeros(1, 1, 32, 32), torch.zeros(1, 6)
    first = ("stages.0", ["stages.0.first", "stages.0.second"])
    later = [(f"stages.{at}", [f"stages.{at}.first", f"stages.{at}.second", f"stages.{at}.shortcut.0"]) for at in (1, 2)]
    assert plan_of(DigitsNetwork(), image) == ["stem", ("stages", [first, *later]), "classifier"]
    assert plan_of(Twice(), row) == ["first", "block.0", "block.2", "last"]
    assert plan_of(Tied(), row) == ["left.0", "left.2", "right.2"]
    assert plan_of(Branching(), row) == ["early", ("deep", [("deep.0", ["deep.0.0.0", "deep.0.1"]), "deep.1"]), "late"]
    assert plan_of(nn.Linear(6, 6), row) == [""]


def test_a_loss_may_run_the_model_as_often_as_it_likes() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))).double()
    batches = [torch.randn(3, 6, dtype=torch.float64)]
    calibration = Calibration(loss=lambda model, batch: (model(batch) + model(2 * batch)).sum())
    calls: dict[str, int] = {}
    with undisturbed(model):
        for layer, look in walk("test", model, find_layers(model), calibration, batches):
            look(lambda number, module, inputs, name=layer.name: calls.update({name: calls.get(name, 0) + 1}))  # type: ignore[misc]
    assert calls == {"0": 2, "1.0": 2, "1.1": 2}


class Moody(nn.Module):
    """Goes another way on a batch of large numbers."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer, self.block, self.times = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.max()) > 100:
            return self.layer(x) if self.times else x
        return self.block(self.layer(x))


@pytest.mark.parametrize(("times", "message"), [(0, "layer 'layer' is called 1 times on the first batch, and 0"),
                                                (1, "a Sequential is called on the first batch, and not on another")])
def test_batches_that_go_another_way_are_refused(times: int, message: str) -> None:
    model = Moody(times)
    batches = [torch.zeros(2, 6), torch.full((2, 6), 1000.0)]
    with undisturbed(model), pytest.raises(PruneError, match=message):
        for _, look in walk("test", model, find_layers(model), Calibration(), batches):
            look(lambda number, module, inputs: None)


def test_a_layer_that_is_never_called_is_named() -> None:
    model = nn.Sequential(nn.Linear(6, 6))
    model[0].idle = nn.Linear(6, 6)
    with undisturbed(model), pytest.raises(PruneError, match=r"the model never calls '0.idle'\. Name what"):
        list(walk("test", model, find_layers(model), Calibration(), [torch.zeros(2, 6)]))
