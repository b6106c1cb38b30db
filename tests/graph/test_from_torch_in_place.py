"""Programs made plain without a second trace: where nobody sees the difference, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from against_torch import Calls, assert_equal_to_torch, random
from families import FAMILIES, LEAST_SIDE, TIMM, timm_model, torchvision_model
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import nn

from zellige.graph import from_torch as way_in
from zellige.graph.from_torch import from_torch
from zellige.graph.from_torch_in_place import make_plain
from zellige.graph.from_torch_trace import export
from zellige.graph.ir import Graph
from zellige.passes.pipeline import optimize

X = random(2, 4, 6, 6)
COPIED = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 12)
"""Whether PyTorch, where it traces twice, takes a dropout that does nothing for a copy, which misses what is written later."""


class Residual(nn.Module):
    """What the networks of torchvision change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(144, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm(self.conv(x)), inplace=True)
        z = F.hardswish(self.norm(self.conv(y)), inplace=True)
        z += y
        left, right = F.dropout(F.relu6(z, inplace=True), 0.5, self.training, inplace=True).chunk(2, 1)
        return self.last(torch.cat([right, left], 1).flatten(1))


def test_a_network_is_traced_once(monkeypatch):
    monkeypatch.setattr(way_in, "decompose", None)
    graph = assert_equal_to_torch(Residual(), X)
    assert [node.op for node in graph] == ["conv2d", "batch_norm", "activation"] * 2 + [
        "add", "activation", "slice", "slice", "concat", "reshape", "linear"]


@pytest.mark.parametrize("function", [
    lambda x, y: (y.view(2, 144), y.relu_())[0],
    lambda x, y: (y.flatten(1), y.add_(1))[0], lambda x, y: (y.chunk(2, 1)[1], y.mul_(x))[0],
    lambda x, y: y[:, 1:].relu_(), lambda x, y: (y[:, 1:].relu_(), y)[1], lambda x, y: y.transpose(2, 3).neg_(),
    lambda x, y: (F.dropout(y, training=False), y.relu_())[0], lambda x, y: y.add_(y.view(2, 4, 6, 6)),
    lambda x, y: y.pow_(2), lambda x, y: y.masked_fill_(x > 0, 0.5),
], ids=["through a view", "through a flat one", "through a piece", "written through a slice", "and read whole",
        "written through a transpose", "through dropout", "and read through a view", "other arguments than in place",
        "of two types"])
def test_what_somebody_reads_on_is_not_made_plain_by_a_look(function, request):
    """PyTorch itself has to say then what is read."""
    model = Calls(result=lambda x: function(x, x + 1)).eval()
    assert not make_plain(export(model, (X,)))
    if not (COPIED and "dropout" in request.node.name):
        assert_equal_to_torch(model, X)


def test_what_compares_in_place_writes_numbers():
    assert not make_plain(export(Calls(result=lambda x: (x + 1).gt_(0) * 2).eval(), (X,)))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4),
                                   Calls(noise=lambda x: F.dropout(x, training=True))])
def test_layers_in_training_are_left_to_pytorch(layer):
    assert not make_plain(export(layer.eval(), (X,)))


@pytest.mark.parametrize("function", [
    lambda y: y.add_(y), lambda y: (y.relu_(), y), lambda y: y.relu_() + y, lambda y: (y * 2, y.relu_()),
], ids=["by itself", "a result", "read after it", "read before it"])
def test_who_reads_on_reads_what_was_written(function):
    model = Calls(result=lambda x: function(x + 1)).eval()
    assert make_plain(export(model, (X,)))
    assert_equal_to_torch(model, X)


STEPS: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    lambda x, y: x.relu_(), lambda x, y: x.add_(y), lambda x, y: x.mul_(0.5), lambda x, y: x.clamp_(-1, 1), lambda x, y: x + y,
    lambda x, y: F.silu(x), lambda x, y: torch.cat(x.chunk(2, 1)[::-1], 1), lambda x, y: x.flatten(1).sub_(1).view(2, 4, 3, 3),
    lambda x, y: x.transpose(2, 3), lambda x, y: x + 1 if COPIED else F.dropout(x, training=False),
    lambda x, y: x.reshape(2, 4, 3, 3),
    lambda x, y: torch.cat([x[:, :2].neg_(), y[:, 2:]], 1)]


class Anything(nn.Module):
    """Steps one after the other, each on any of what was made before, which some of them change; everything is a result."""

    def __init__(self, steps: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        made = [x + 1, x * 2]
        for step, first, second in self.steps:
            made.append(STEPS[step](made[first % len(made)], made[second % len(made)]))
        return made[-self.steps[0][1] - 1:]


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_any_program_that_changes_things(steps):
    model, x = Anything(steps), random(2, 4, 3, 3)
    try:
        model(x)
    except RuntimeError as refused:  # what is added lies across what is written
        assert "single memory location" in str(refused)
        reject()
    assert_equal_to_torch(model, x)


def normal(graph: Graph) -> list[object]:
    """What every output computes, by structure alone."""
    found: dict[str, object] = {name: name for name in graph.inputs}
    found |= {name: (array.shape, array.tobytes()) for name, array in graph.constants.items()}
    for node in graph:
        steps = [(step.op, step.attributes, step.operand and found[step.operand]) for step in node.epilogue]
        found[node.name] = hash((node.op, repr(node.attributes), node.type, *(found[name] for name in node.inputs), repr(steps)))
    return [found[name] for name in graph.outputs]


@pytest.mark.full
@pytest.mark.parametrize("name", [*FAMILIES, *(f"timm {name}" for name in TIMM)])
def test_families_are_what_pytorch_makes_of_them(name, monkeypatch):
    side = LEAST_SIDE.get(name.removeprefix("timm "), 64)
    model = timm_model(name.removeprefix("timm ")) if name.startswith("timm ") else torchvision_model(name)
    ours = from_torch(model, (random(1, 3, side, side),))
    monkeypatch.setattr(way_in, "make_plain", lambda program: False)
    assert normal(optimize(ours)) == normal(optimize(from_torch(model, (random(1, 3, side, side),))))
