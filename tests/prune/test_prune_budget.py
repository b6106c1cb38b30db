"""Budgets and measured sensitivity: the choice against brute force, curves by hand, and a model left as it was."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zellige.errors import PruneError
from zellige.patterns import NM, Block, Scored, TileVectorWise, TileWise, Unstructured, WeightShape
from zellige.prune import Price, prune
from zellige.prune.budget import parameter_bytes
from zellige.prune.calibration import Calibration
from zellige.prune.curves import LEVELS, levels_of, score_curves
from zellige.prune.layers import find_layers
from zellige.prune.sensitivity import loss_curves
from zellige.prune.trade import UNITS, least_harm

OPTION = st.tuples(st.integers(-3, 20), st.integers(0, 30))
PROBLEMS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=4)


def brute_force(options: list[list[tuple[int, int]]], budget: float) -> float | None:
    sums = [[sum(part) for part in zip(*choice, strict=True)] for choice in itertools.product(*options)]
    return min((harm for harm, cost in sums if cost <= budget), default=None)


@given(PROBLEMS, st.integers(0, 90))
@settings(max_examples=60)
def test_the_choice_is_the_best_that_the_budget_allows(options: list[list[tuple[int, int]]], budget: int) -> None:
    harms = [np.array([harm for harm, _ in layer], float) for layer in options]
    costs = [np.array([cost for _, cost in layer], float) for layer in options]
    chosen, exact = least_harm(harms, costs, budget), brute_force(options, budget)
    assert (chosen is None) == (exact is None)
    if chosen is None:
        return
    harm, cost = (sum(layer[at][part] for layer, at in zip(options, chosen, strict=True)) for part in (0, 1))
    assert cost <= budget
    slack = budget - sum(layer.min() for layer in costs)
    rounded = brute_force(options, budget - len(options) * slack / UNITS)  # what the rounding of costs may take away
    assert exact <= harm and (rounded is None or harm <= rounded)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16))
    with torch.no_grad():
        model[2].weight.mul_(3)
    return model


def untouched(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def squared(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch) - 1).square().mean()


BATCHES = [torch.randn(4, 16, generator=torch.Generator().manual_seed(at)) for at in range(2)]


def test_score_curves_hold_what_every_mask_takes() -> None:
    model, pattern = network(), Block(8, 8)
    layers = find_layers(model)
    scored = [Scored(layer.shape, layer.weight.detach().abs, layer.name) for layer in layers]
    for layer, curve in zip(layers, score_curves(pattern, layers, scored, False), strict=True):
        blocks = sorted(float(part) for part in pattern.block_scores(layer.weight.detach().abs()))
        for level, harm, density, size in zip(LEVELS, curve.harm, curve.density, curve.bytes, strict=True):
            gone = int(level * len(blocks))
            assert harm == pytest.approx(sum(blocks[:gone]) / sum(blocks), rel=1e-9)
            assert density == 1 - gone / len(blocks)
            assert size <= layer.weight.numel() * 4 and (gone == 0 or size >= layer.weight.numel() * density * 4)
        assert len(curve.choices) == 96 and curve.choices[-1] == Fraction(95, 100)
    for share, plain, layer in zip(*(score_curves(pattern, layers, scored, loss) for loss in (False, True)), layers, strict=True):
        total = float(layer.weight.detach().abs().sum(dtype=torch.float64))
        assert [total * harm for harm in share.harm] == pytest.approx(plain.harm, rel=1e-9)


def test_loss_curves_are_measured_one_layer_at_a_time() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = find_layers(model)
    scored = [Scored(layer.shape, layer.weight.detach().abs, layer.name) for layer in layers]
    loss, curves = loss_curves(model, Block(8, 8), layers, scored, Calibration(iter(BATCHES), squared))
    assert untouched(model, before) and model.training
    with torch.no_grad():
        assert loss == pytest.approx(sum(float(squared(model, x)) for x in BATCHES) / 2, rel=1e-6)
    for layer, curve in zip(layers, curves, strict=True):
        assert curve.sparsities == tuple(Fraction(level, 100) for level in (0, 25, 50, 75, 90))
        for level, harm in zip(curve.sparsities, curve.harm, strict=True):
            other = network()
            prune(other, Block(8, 8), {layer.name: float(level)})
            with torch.no_grad():
                rise = sum(float(squared(other, x) - squared(model, x)) for x in BATCHES) / 2
            assert harm == pytest.approx(rise, abs=1e-6)


def test_sensitivity_takes_what_the_loss_does_not_need() -> None:
    """The first layer's weights are next to nothing, so nearly all that goes can go there: 460 of its 512 weights at most."""
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    report = prune(model, Unstructured(), 0.2, scope="sensitivity", data=iter(BATCHES), loss=squared, score="taylor")
    assert report.scope == "sensitivity"
    assert [layer.amounts.removed for layer in report.pruned] == [pytest.approx(410, abs=6), 0, 0]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("pattern", [Block(8, 8), TileWise(8), Unstructured()])
def test_a_budget_of_bytes_is_kept_and_used(pattern: Any, share: float) -> None:
    model = network()
    whole = parameter_bytes(model)
    assert whole == 4 * sum(value.numel() for value in model.parameters())
    if isinstance(pattern, Unstructured) and share < 0.4:
        share = 0.4  # indices weigh as much as values
    report = prune(model, pattern, budget={"bytes": share})
    taken = 4 * (32 + 32 + 16) + sum(
        min(4 * layer.weight.numel(), pattern.compact_bytes(layer.weight != 0)) for layer in (model[0], model[2], model[4]))
    assert (share - 0.08) * whole <= taken <= (share + 0.02) * whole  # a block, and rows and columns, are some per cent here
    assert report.scope == f"budget of {share:g} bytes" and report.sparsity == report.totals.removed / report.totals.blocks


def test_a_budget_takes_the_least_score_for_a_cost_of_ones_own() -> None:
    """The layer in the middle costs nothing: nothing goes there. The others are counted twice by the cost, and by brute force."""
    def cost(layer: str, density: float) -> float:
        return {"0": 2.0, "2": 0.0, "4": 1.0}[layer] * density

    model, pattern = network(), Unstructured()
    layers = find_layers(model)
    scored = [Scored(layer.shape, layer.weight.detach().abs, layer.name) for layer in layers]
    curves = score_curves(pattern, layers, scored, False)
    best = min(
        (first + last, one, other)
        for one, first, left in zip(curves[0].choices, curves[0].at(curves[0].harm), curves[0].at(curves[0].density), strict=True)
        for other, last, kept in zip(curves[2].choices, curves[2].at(curves[2].harm), curves[2].at(curves[2].density), strict=True)
        if 2 * left + kept + 1 <= 0.6 * 4)
    report = prune(model, pattern, budget={"energy": 0.6}, prices={"energy": Price(cost, 4.0)})
    assert [layer.amounts.removed for layer in report.pruned] == [int(best[1] * 512), 0, int(best[2] * 512)]


@pytest.mark.parametrize(("score", "free"), [("l1", 0), ("taylor", 1)])
def test_shares_of_magnitudes_compare_and_losses_add_up(score: str, free: int) -> None:
    """The second of two like layers has a hundredth of the first one's influence on the loss, and all of its magnitude."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])

    def loss(model: nn.ModuleList, batch: torch.Tensor) -> torch.Tensor:
        return (model[0](batch).square() + model[1](batch).square() / 100).mean()

    with torch.no_grad():
        model[1].weight.copy_(model[0].weight)
        model[0].weight.mul_(10 if score == "l1" else 1)
    data = {} if score == "l1" else {"data": BATCHES, "loss": loss}
    price = Price(lambda layer, density: density * (1.1 if layer == str(free) else 1.0), 2.1)
    report = prune(model, Unstructured(), score=score, budget={"time": 0.7}, prices={"time": price}, **data)
    removed = [layer.amounts.removed for layer in report.pruned]
    assert removed[free] > removed[1 - free]


def test_weights_under_several_names_cost_all_of_them() -> None:
    model = network()
    model.append(nn.ReLU()).append(nn.Linear(16, 32))
    model[6].weight = model[0].weight
    asked = set()

    def cost(layer: str, density: float) -> float:
        asked.add(layer)
        return density

    prune(model, Unstructured(), budget={"time": 0.5}, prices={"time": Price(cost, 4.0)})
    assert asked == {"0", "2", "4", "6"}


def test_levels_are_those_that_a_pattern_can_have() -> None:
    assert levels_of(TileVectorWise(8, 2, 4))[0] == Fraction(1, 2)
    with pytest.raises(PruneError, match="nm:2:4 leaves no choice of sparsities"):
        levels_of(NM(2, 4))
    assert WeightShape((8, 8)).weights == 64


PRICES = {"time": Price(lambda layer, density: density, 4.0)}


@pytest.mark.parametrize(("options", "message"), [
    ({"budget": {"bytes": 0.4}, "sparsity": 0.5}, "give no sparsity beside it"),
    ({"budget": {"bytes": 0.4}, "scope": "global"}, "no scope but 'sensitivity'"),
    ({"budget": {}}, "one share of one cost"),
    ({"budget": {"bytes": 0.4, "time": 0.3}, "prices": PRICES}, "one share of one cost"),
    ({"budget": 0.5}, "one share of one cost"),
    ({"budget": {"time": 0.5}}, "Unknown cost 'time' in the budget. Known: bytes"),
    *[({"budget": {"bytes": share}}, "above 0 and at most 1") for share in (0, -1, 1.5, "half", True, float("nan"))],
    ({"budget": {"bytes": 0.01}}, "budget of 0.01 bytes can't be had: at the highest sparsities tried"),
    ({"budget": {"time": 0.2}, "prices": PRICES}, "it still takes 0.328, of which 0.250 is not in the layers"),
    ({"budget": {"time": 0.5}, "prices": {"time": Price(lambda layer, density: float("nan"), 4.0)}}, "The costs of layer '0'"),
    ({"budget": {"time": 0.5}, "prices": {"time": Price(lambda layer, density: {}[layer], 4.0)}},
     "cost of layer '0' can't be had from its Price: KeyError: '0'"),
    ({"budget": {"time": 0.5}, "prices": 5}, "prices is a table"),
    ({"budget": {"time": 0.5}, "prices": {"time": 5}}, "prices is a table"),
    ({"sparsity": 0.5, "prices": PRICES}, "prices are for a budget"),
    ({"sparsity": 0.5, "progress": 5}, "progress is a function that takes a text"),
    ({"budget": {"bytes": 0.5}, "pattern": NM(2, 4)}, "leaves no choice"),
    ({"budget": {"bytes": 0.5}, "scope": "sensitivity"}, "Scope 'sensitivity' is measured on data"),
    ({"sparsity": 0.5, "scope": "sensitivity"}, "Scope 'sensitivity' is measured on data"),
    ({"sparsity": 0.5, "scope": "sensitivity", "data": BATCHES}, "needs a loss"),
    ({"sparsity": 0.5, "scope": "sensitivity", "data": [], "loss": squared}, "there is no batch"),
    ({"sparsity": 0.5, "scope": "sensitivity", "data": 3, "loss": squared, "score": "taylor"}, "not int"),
    ({"sparsity": 0.95, "scope": "sensitivity", "data": BATCHES, "loss": squared}, "more than was measured: at most"),
    ({}, "Sparsity is missing"),
])
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PruneError, match=message):
        prune(model, **{"pattern": Block(8, 8), **options})
    assert untouched(model, before)


@pytest.mark.parametrize(("cost", "whole", "message"), [
    (3.0, 4.0, "function cost"), *[(max, whole, "finite number above 0") for whole in (0, -1.0, float("nan"), float("inf"), "4")],
])
def test_prices_that_are_none(cost: Any, whole: Any, message: str) -> None:
    with pytest.raises(PruneError, match=message):
        Price(cost, whole)


def test_a_loss_that_fails_halfway_leaves_the_weights() -> None:
    model, calls = network(), itertools.count()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def tired(model: nn.Module, batch: Any) -> torch.Tensor:
        if next(calls) == 7:
            raise RuntimeError("enough")
        return squared(model, batch)

    with pytest.raises(PruneError, match="the loss fails on a batch: RuntimeError: enough"):
        prune(model, Block(8, 8), 0.5, scope="sensitivity", data=BATCHES, loss=tired)
    assert untouched(model, before)
