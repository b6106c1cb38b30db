"""Sensitivity as a user asks for it: curves against pruning by hand, a model left as it was, a table, and a plot."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import zellige as zl
from zellige.errors import PruneError, ZelligeError
from zellige.prune.layer_sensitivity import MOST_NAMED

BATCHES = [torch.randn(4, 16, generator=torch.Generator().manual_seed(at)) for at in range(2)]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16)).eval()


def squared(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch) - 1).square().mean()


def mean_loss(model: nn.Module) -> float:
    with torch.no_grad():
        return sum(float(squared(model, batch)) for batch in BATCHES) / len(BATCHES)


@pytest.mark.parametrize("score", ["l1", "taylor"])
def test_curves_are_what_pruning_one_layer_does(score: str) -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = zl.sensitivity(model, "block:8x8", data=iter(BATCHES), loss=squared, score=score, levels=(0.25, 0.5), ignore="4")
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.loss == pytest.approx(mean_loss(network()), rel=1e-6)
    assert [curve.layer for curve in found.curves] == ["0", "2"]
    for curve in found.curves:
        assert curve.sparsities == (Fraction(1, 4), Fraction(1, 2)) and curve.density == (0.75, 0.5)
        for level, rise in zip(curve.sparsities, curve.harm, strict=True):
            other, data = network(), {"data": BATCHES, "loss": squared} if score == "taylor" else {}
            zl.prune(other, "block:8x8", float(level), targets=curve.layer, score=score, **data)
            assert rise == pytest.approx(mean_loss(other) - mean_loss(network()), abs=1e-6)


def test_it_prints_and_is_plain_data() -> None:
    found = zl.sensitivity(network(), "block:8x8", data=BATCHES, loss=squared)
    head, _, *rows = str(found).splitlines()
    assert head.split() == ["layer", "0%", "25%", "50%", "75%", "90%"]
    assert [row.split()[0] for row in rows[:3]] == ["0", "2", "4"] and rows[0].split()[1] == "+0"
    facts = json.loads(json.dumps(found.as_dict()))
    assert facts["layers"][1]["rise"] == list(found.curves[1].harm) and facts["score"] == "l1"
    assert zl.Sensitivity.from_dict(facts).as_dict() == found.as_dict() and str(zl.Sensitivity.from_dict(facts)) == str(found)


def test_levels_that_a_pattern_lacks_are_left_out() -> None:
    found = zl.sensitivity(network(), zl.TileVectorWise(16, 2, 4), data=BATCHES, loss=squared)
    assert [float(level) for level in found.curves[0].sparsities] == [0.5, 0.75, 0.9]


@pytest.mark.parametrize("changed, message", [
    ({"levels": (0.5, 0.25)}, "levels are sparsities that rise"),
    ({"levels": (0.5, 0.5)}, "levels are sparsities that rise"),
    *[({"levels": levels}, "levels are sparsities that rise") for levels in ((), 5, "0.5")],
    ({"levels": (0.5, 1)}, "less than 1, not 1"),
    ({"levels": (0.5,)}, "leaves no choice of sparsities"),
    ({"pattern": "nm:2:4"}, "leaves no choice of sparsities"),
    ({"data": None}, "measured on data"),
    ({"data": []}, "there is no batch"),
    ({"loss": None}, "needs a loss"),
    ({"model": "resnet50"}, "not str"),
    ({"ignore": "re:.*"}, "No layer is left to prune"),
])  # fmt: skip
def test_what_does_not_fit_is_said(changed: dict[str, object], message: str) -> None:
    asked = {"model": network(), "pattern": "block:8x8", "data": BATCHES, "loss": squared, **changed}
    with pytest.raises(PruneError, match=message):
        zl.sensitivity(asked.pop("model"), asked.pop("pattern"), **asked)


def test_the_plot_names_the_most_sensitive_layers(tmp_path: Path) -> None:
    deep = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(MOST_NAMED + 3))).eval()
    with torch.no_grad():
        for layer in deep:
            layer.weight.add_(torch.eye(16))
    found = zl.sensitivity(deep, zl.Unstructured(), data=BATCHES, loss=squared, levels=(0, 0.5))
    first, second = found.plot(tmp_path / "first.svg"), found.plot(tmp_path / "second.svg")
    assert first.read_bytes() == second.read_bytes()
    ranked = sorted(found.curves, key=lambda curve: -max(curve.harm))
    text = first.read_text()
    assert all((f"<!-- {curve.layer} -->" in text or f">{curve.layer}<" in text) for curve in ranked[:MOST_NAMED])
    with pytest.raises(ZelligeError, match="must end in"):
        found.plot(tmp_path / "figure.jpeg")


def test_losses_below_zero_can_be_drawn(tmp_path: Path) -> None:
    """A logarithmic axis would leave them out."""
    found = zl.sensitivity(network(), "block:8x8", data=BATCHES, loss=lambda model, batch: -1 - squared(model, batch))
    axes = Figure().subplots()
    found.draw(axes)
    assert found.loss < 0 and axes.get_yscale() == "linear" and axes.get_ylim()[0] < found.loss
