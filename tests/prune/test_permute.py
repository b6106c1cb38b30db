"""Permuting networks: the function stays, more is kept, searches come to the best there is, and errors change nothing."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable

import pytest
import torch
from same_function import assert_same_function
from torch import nn

import zellige as zl
from zellige.errors import InputError, PruneError, UnsupportedModelError
from zellige.graph.from_torch import trace
from zellige.prune.permutation import METHODS, PermuteReport
from zellige.prune.permutation.state import state_of, write


class Residual(nn.Module):
    """A stem, a residual block with batch norms, a flatten and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.one, self.norm = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.two = nn.Conv2d(24, 16, 1)
        self.classifier = nn.Linear(16 * 9, 40)
        self.last = nn.Linear(40, 16)
        with torch.no_grad():
            for vector in (self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias):
                vector.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.two(torch.relu(self.norm(self.one(x)))))
        return self.last(torch.relu(self.classifier(nn.functional.max_pool2d(x, 2).flatten(1))))


X = torch.ones(2, 3, 6, 6)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "annealing"])
@pytest.mark.parametrize("pattern", ["block:8x8", "block:4x1", "block:1x8", "block:16x8", "block:8x8:per-tap", "tile-rows:8"])
def test_a_network_keeps_more_and_computes_the_same(pattern: str, method: str) -> None:
    model = Residual()
    before = copy.deepcopy(model)
    report = zl.permute(model, pattern, 0.5, (X,), method=method)
    assert_same_function(before, model, torch.randn(2, 3, 6, 6))
    assert report.kept > report.kept_before
    assert model.training and [module.training for module in model.modules()] == [True] * 7
    reports = [zl.prune(some, pattern, 0.5, (X,)) for some in (before, model)]
    for pruned, share in zip(reports, (report.kept_before, report.kept), strict=True):
        assert [layer.name for layer in pruned.pruned] == [layer.name for layer in report.layers]
        assert pruned.totals.l1_kept == pytest.approx(share, rel=1e-6)
    for pruned, layer in zip(reports[1].pruned, report.layers, strict=True):
        assert pruned.amounts.l1_left == pytest.approx(layer.kept, rel=1e-6)


@pytest.fixture(scope="module")
def told() -> tuple[PermuteReport, list[str]]:
    """What is reported of a search with everything as it is by default, and what was told on the way."""
    torch.manual_seed(0)
    words: list[str] = []
    return zl.permute(Residual(), "block:8x8", 0.5, (X,), progress=words.append), words


def test_the_report_says_who_shares_channels_and_what_stays(told: tuple[PermuteReport, list[str]]) -> None:
    report, _ = told
    stream, inner, hidden = report.groups
    assert (stream.units, inner.units, hidden.units) == (16, 24, 40)
    assert set(stream.members) == {("stem.weight", "rows"), ("stem.bias", "elements"), ("one.weight", "columns"),
                                   ("two.weight", "rows"), ("two.bias", "elements"), ("classifier.weight", "columns")}
    assert ("norm.running_var", "elements") in inner.members
    assert [layer.name for layer in report.layers] == ["one", "two", "classifier", "last"]
    (fixed,) = report.layers[3].fixed
    assert (fixed.axis, fixed.lines, fixed.reason) == ("rows", 16, "an output of the network")
    assert "all rows: an output of the network" in str(report) and "3 of 3 groups of channels moved" in str(report)
    assert json.loads(report.to_json())["groups"][0]["units"] == 16
    assert json.loads(report.to_json())["kept"] == report.kept


def best_of_all(first: torch.Tensor, second: torch.Tensor, pattern: str, sparsity: float) -> float:
    """The most that any order of the units between two linear layers keeps. What a layer keeps depends only on which units share
    a piece of it, so that each such division of them is looked at once."""
    parsed = zl.parse_pattern(pattern)
    lengths = (parsed.rows, parsed.columns if isinstance(parsed, zl.Block) else 1)
    known: dict[tuple[int, frozenset[frozenset[int]]], float] = {}

    def kept(layer: int, order: tuple[int, ...]) -> float:
        length = lengths[layer]
        key = layer, frozenset(frozenset(order[at : at + length]) for at in range(0, len(order), length))
        if key not in known:
            magnitudes = (second[:, list(order)] if layer else first[list(order)]).double().abs()
            known[key] = float((magnitudes * parsed.mask(magnitudes, sparsity)).sum())
        return known[key]

    return max(kept(0, order) + kept(1, order) for order in itertools.permutations(range(len(first))))


@pytest.mark.parametrize("pattern, share", [("block:2x2", 1), ("block:3x3", 1), ("tile-rows:2", 1), ("block:2x3", 0.98),
                                            ("block:3x2", 0.98)])
@pytest.mark.parametrize("seed", range(2))
def test_the_best_order_of_six_units_is_found(pattern: str, share: float, seed: int) -> None:
    """Exactly, where rows and columns are cut alike; nearly, where exchanges made at once share blocks."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(torch.randn(6, 6) ** 3)
    best = best_of_all(model[0].weight.detach(), model[2].weight.detach(), pattern, 0.5)
    report = zl.permute(model, pattern, 0.5, torch.ones(1, 6))
    assert share * best * (1 - 1e-6) <= report.kept * report.l1 <= best * (1 + 1e-6)


def test_the_gain_of_all_weights_that_share_an_axis_counts() -> None:
    """Sorting for the large weight would hurt the small one; what counts is the sum."""
    small, large = torch.ones(6, 6), torch.ones(6, 6)
    small[::2] = 0.0
    large[:, 3:] = 0.0
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    for scales in ((1.0, 10.0), (10.0, 1.0)):
        with torch.no_grad():
            model[0].weight.copy_(small * scales[0] + 0.01)
            model[2].weight.copy_(large * scales[1] + 0.01)
        report = zl.permute(copy.deepcopy(model), "block:3x3", 0.5, torch.ones(1, 6), targets=["0", "2"])
        best = best_of_all(model[0].weight.detach(), model[2].weight.detach(), "block:3x3", 0.5)
        assert report.kept * report.l1 == pytest.approx(best, rel=1e-6)


def test_the_result_depends_on_the_arguments_alone() -> None:
    threads, found = torch.get_num_threads(), []
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        torch.manual_seed(3)
        model = Residual()
        torch.manual_seed(count)
        report = zl.permute(model, "block:8x8", 0.5, (X,), seed=5)
        assert torch.get_num_threads() == count
        found.append((report.to_json(), model.classifier.weight.detach().clone()))
    torch.set_num_threads(threads)
    assert found[0][0] == found[1][0] == found[2][0]
    assert torch.equal(found[0][1], found[1][1]) and torch.equal(found[0][1], found[2][1])


def test_progress_is_told(told: tuple[PermuteReport, list[str]]) -> None:
    assert "permuting, sweep 1 of 100, group 1 of 3" in told[1]


def test_layers_that_are_not_pruned_move_without_a_say() -> None:
    model = Residual()
    before = copy.deepcopy(model)
    report = zl.permute(model, "block:8x8", 0.5, (X,), targets="classifier", ignore=["one"])
    assert [layer.name for layer in report.layers] == ["classifier"]
    assert not torch.equal(model.stem.weight, before.stem.weight)
    assert not report.groups[1].moved and torch.equal(model.norm.weight, before.norm.weight)
    assert_same_function(before, model, torch.randn(2, 3, 6, 6))


def test_a_weight_that_two_layers_share_moves_once() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 8))
    model[3].weight = model[1].weight
    before = copy.deepcopy(model)
    report = zl.permute(model, "block:4x4", 0.5, torch.ones(1, 8))
    assert [group.units for group in report.groups] == [16] and report.groups[0].moved
    assert model[3].weight is model[1].weight
    assert_same_function(before, model, torch.randn(3, 8))


def test_a_weight_with_a_view_of_it_elsewhere_stays() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    model.register_buffer("view", model[0].weight.detach()[2:5], persistent=False)
    report = zl.permute(model, "block:4x4", 0.5, torch.ones(1, 8))
    assert not report.groups
    assert any("shares memory with view" in fixed.reason for fixed in report.layers[0].fixed)


def test_computed_weights_stay_and_hold_their_channels() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)), nn.ReLU(),
                          nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
    before = copy.deepcopy(model)
    report = zl.permute(model, "block:4x4", 0.5, torch.ones(1, 8))
    assert [group.units for group in report.groups] == [16]
    assert any("is computed from the model's parameters" in fixed.reason for fixed in report.layers[0].fixed)
    assert_same_function(before, model, torch.randn(3, 8))


class ReadsWeights(nn.Module):
    """Two layers, and what a function makes of their output and of their weights beside them."""

    def __init__(self, further: Callable[[ReadsWeights, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.further = nn.Linear(8, 16), nn.Linear(16, 8), further
        self.held = [self.one.weight.detach()]  # neither parameter nor buffer, and the same numbers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.further(self, self.two(torch.relu(self.one(x))))


@pytest.mark.parametrize("further", [
    lambda model, y: nn.functional.linear(y, model.two.weight.t().tanh()),
    lambda model, y: y @ model.one.weight.t(),
    lambda model, y: y @ model.held[0].t(),
    lambda model, y: y + model.one.weight[3],
    lambda model, y: y * model.one.bias[:8],
    lambda model, y: y * model.one.weight.abs().sum(1).topk(8)[0],
    lambda model, y: nn.functional.conv1d(y[:, :, None], model.one.weight[:, :, None]),
    lambda model, y: torch.cat([y, model.two.weight.flatten().expand(3, -1)], 1),
], ids=["transposed and bent", "tied the other way", "held in a list", "a row", "a part of a bias", "the largest", "convolution",
        "output"])
def test_weights_that_something_else_is_made_of_stay(further: Callable[[ReadsWeights, torch.Tensor], torch.Tensor]) -> None:
    model, x = ReadsWeights(further), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
    report = zl.permute(model, "block:4x4", 0.5, x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert not report.groups and report.kept == report.kept_before
    assert any(fixed.reason.endswith("is made of it") for layer in report.layers for fixed in layer.fixed)


def test_parameters_that_something_is_made_of_count_as_read() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                          nn.utils.parametrizations.weight_norm(nn.Linear(16, 8)))
    report = zl.permute(model, "block:4x4", 0.5, torch.ones(1, 8))
    assert [group.moved > 0 for group in report.groups] == [True] and not report.warnings


class Shift(nn.Module):
    """Adds the same numbers to both samples: a parameter of which one row is in memory."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.randn(features).expand(2, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


def test_what_cannot_be_written_stays() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), Shift(16), nn.ReLU(),
                          nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
    with torch.inference_mode():
        model[1].running_mean = torch.randn(16)
    before = copy.deepcopy(model)
    report = zl.permute(model, "block:4x4", 0.5, torch.ones(2, 8))
    assert [group.units for group in report.groups] == [16] and report.groups[0].moved
    reasons = " ".join(fixed.reason for layer in report.layers for fixed in layer.fixed)
    assert "1.running_mean can't be permuted: it was made in inference mode" in reasons
    assert "4.by can't be permuted: several of its numbers share one place in memory" in reasons
    assert_same_function(before, model, torch.randn(2, 8))


def test_writing_is_all_or_none() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)).eval()
    state = state_of(model, trace(model, (torch.ones(1, 8),)))
    before = copy.deepcopy(model.state_dict())
    moved = {"0.weight": model[0].weight.flip(0).detach(), "2.weight": torch.ones(3, 3)}  # the second can't be written
    with pytest.raises(RuntimeError):
        write(state, moved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class WithHead(nn.Module):
    """A head that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.side = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.body(x))
        return self.head(x) + self.side(x).sum() if self.training else self.head(x)


def test_parameters_that_evaluation_does_not_read_are_warned_of() -> None:
    report = zl.permute(WithHead(), "block:8x8", 0.5, torch.ones(1, 8))
    assert len(report.warnings) == 1 and "2 parameters are not read in evaluation (side.weight, side.bias)" in report.warnings[0]
    assert "warning: 2 parameters" in str(report)


def test_nothing_moves_where_nothing_goes() -> None:
    model = Residual()
    before = copy.deepcopy(model.state_dict())
    report = zl.permute(model, "block:8x8", 0.0, (X,))
    assert report.kept == report.kept_before == 1.0 and not any(group.moved for group in report.groups)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class StoppedError(Exception):
    pass


def stop(text: str) -> None:
    if "sweep 2" in text:
        raise StoppedError


@pytest.mark.parametrize("arguments, error, words", [
    ({"pattern": "tile:8"}, PruneError, "Networks are permuted for Block"),
    ({"pattern": "nm:2:4"}, PruneError, "Networks are permuted for Block"),
    ({"sparsity": 1.5}, PruneError, "Sparsity"),
    ({"method": "tetris"}, PruneError, "Known: exchange, annealing, mass"),
    ({"method": ["mass"]}, PruneError, "Known: exchange, annealing, mass"),
    ({"progress": "loud"}, PruneError, "progress is a function that takes a text"),
    ({"seed": -1}, PruneError, "whole number"),
    ({"targets": "nobody"}, PruneError, "matches no convolution or linear layer"),
    ({"ignore": "re:.*"}, PruneError, "No layer is left"),
    ({"example_inputs": None}, PruneError, "needs example_inputs"),
    ({"example_inputs": torch.ones(1, 5)}, PruneError, "can't run on example_inputs"),
    ({"example_inputs": X.double()}, PruneError, "can't run on example_inputs"),
    ({"progress": stop}, StoppedError, ""),
])
def test_errors_leave_the_model_as_it_was(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    model = Residual()
    before = copy.deepcopy(model.state_dict())
    given = {"pattern": "block:8x8", "sparsity": 0.5, "example_inputs": X, **arguments}
    with pytest.raises(error, match=words):
        zl.permute(model, **given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_models_that_are_no_graph_are_refused() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x)) if x.sum() > 0 else x

    with pytest.raises(UnsupportedModelError, match="decides by a tensor's values"):
        zl.permute(Deciding(), "block:4x4", 0.5, torch.ones(1, 8))
    with pytest.raises(InputError, match="must be float32, got float64"):
        zl.permute(Residual().double(), "block:8x8", 0.5, X.double())
    with pytest.raises(PruneError, match="takes a torch"):
        zl.permute("resnet50", "block:8x8", 0.5, X)
    with pytest.raises((InputError, PruneError)):
        zl.permute(Residual(), "block:8x8", 0.5, (X, X))
