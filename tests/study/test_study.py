"""Studies: the grid against itertools, rows against ``zl.prune`` by hand, the Pareto front against brute force, one real race."""

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import zellige as zl
from zellige.bench.clock import Ratio
from zellige.errors import PruneError, ZelligeError
from zellige.prune.calibration import Calibration
from zellige.prune.gradients import Taylor
from zellige.prune.layers import find_layers
from zellige.study import LeftOut, Row, Speed, Study, Trial
from zellige.study.axes import AS_TRAINED, CRITERIA, ORDERS, Criterion, Order
from zellige.study.held_score import HeldScore
from zellige.study.trial import grid


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16)).eval()


INPUTS = (torch.ones(1, 32),)
BATCHES = [torch.randn(4, 32, generator=torch.Generator().manual_seed(at)) for at in range(2)]


def squared(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch) - 1).square().mean()


def test_the_grid_is_all_that_patterns_can_have() -> None:
    patterns, sparsities, criteria = ["block:8x8", "nm:2:4", zl.NM(1, 4)], [0.5, 0.75], ["l1", "taylor"]
    trials, left_out = grid(patterns, sparsities, criteria, [AS_TRAINED])
    impossible = {("nm:2:4", 0.75), ("nm:1:4", 0.5)}
    every = product(map(str, patterns), sparsities, criteria)
    assert trials == [Trial(*one) for one in every if one[:2] not in impossible]
    assert {(one.pattern, one.sparsity) for one in left_out} == impossible
    assert all("its sparsity is" in one.reason for one in left_out)


def test_what_a_criterion_or_an_order_cant_do_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks_alone(pattern: zl.Block) -> str | None:
        return None if isinstance(pattern, zl.Block) else "no block"

    monkeypatch.setitem(CRITERIA, "picky", Criterion({"score": "l2"}, refusal=blocks_alone))
    monkeypatch.setitem(ORDERS, "turned", Order(lambda model, *_, **layers: model[0].weight.data.neg_(), blocks_alone))
    found = zl.compare(network(), ["block:8x8", "unstructured"], [0.5], INPUTS, criteria=["l1", "picky"],
                       orders=[AS_TRAINED, "turned"], timed=(), evaluate=lambda model: float(model[0].weight.sum()))  # fmt: skip
    assert [(one.trial.pattern, one.trial.criterion, one.trial.order) for one in found.rows] == [
        ("block:8x8", "l1", AS_TRAINED), ("block:8x8", "l1", "turned"), ("block:8x8", "picky", AS_TRAINED),
        ("block:8x8", "picky", "turned"), ("unstructured", "l1", AS_TRAINED)]  # fmt: skip
    assert found.rows[0].accuracy == -found.rows[1].accuracy
    assert "left out: unstructured at 0.5 (picky): no block" in str(found)
    assert "block:8x8, turned" not in str(found) and "order" in str(found)


def remembering() -> nn.Module:
    """A network that holds something computed from its weights, which PyTorch doesn't copy."""
    model = network()
    model.twice = 2 * model[0].weight
    return model


@pytest.mark.parametrize("changed, message", [
    ({"patterns": "block:8x8"}, "patterns is a list of one or more"),
    ({"patterns": []}, "patterns is a list of one or more"),
    ({"patterns": ["block:8x8", zl.Block(8, 8)]}, "patterns names something twice"),
    ({"patterns": ["round:8"]}, "Unknown pattern"),
    ({"patterns": ["nm:2:4"], "sparsities": [0.9]}, "Nothing is left to compare: nm:2:4 keeps 2 of every 4"),
    ({"sparsities": [0.5, 1.5]}, "at least 0 and less than 1, not 1.5"),
    ({"criteria": ["l3"]}, "Unknown criterion 'l3'. Known: l1, l2"),
    ({"criteria": ["taylor"]}, "'taylor' is measured on data"),
    ({"orders": ["sorted"]}, "Unknown order 'sorted'. Known: as trained, permuted"),
    ({"timed": ["l2"]}, "timed names criteria that are not compared: l2"),
    ({"timed": None, "example_inputs": None}, "give a tuple of the model's arguments"),
    ({"timed": None, "example_inputs": INPUTS[0]}, "give a tuple of the model's arguments"),
    *[({name: value}, f"{name} is a whole number above 0") for name in ("rounds", "threads") for value in (0, -1, 1.5, "2", True)],
    *[({name: 5}, f"{name} is a function, not 5") for name in ("evaluate", "recover", "progress")],
    ({"recover": lambda model: model.nothing}, "recover fails on a network (block:8x8 at 0.5 by l1): AttributeError"),
    *[({"timed": value}, "timed is a list of criteria, not") for value in ("l1", 5)],
    ({"sparsities": [0.5, np.float32(0.5)]}, "sparsities names something twice"),
    ({"criteria": ["wanda"], "data": torch.ones(2, 3)}, "compare needs data: an iterable of batches, .*not Tensor"),
    ({"criteria": ["wanda"], "data": 5}, "compare needs data: an iterable of batches, .*not int"),
    ({"model": remembering()}, "compare prunes copies of the model, which can't be copied: RuntimeError"),
    ({"model": "resnet50"}, "compare takes a torch.nn.Module, not str"),
    ({"evaluate": lambda model: float("nan")}, "evaluate gave nan"),
    ({"evaluate": lambda model: model.nothing}, "evaluate fails on a network: AttributeError"),
    ({"ignore": "re:.*"}, "Nothing is left to compare: No layer is left to prune"),
])  # fmt: skip
def test_what_does_not_fit_is_said(changed: dict[str, object], message: str) -> None:
    asked = {"model": network(), "patterns": ["block:8x8"], "sparsities": [0.5], "example_inputs": INPUTS, "timed": ()}
    with pytest.raises(PruneError, match=message.replace("(", r"\(").replace(")", r"\)")):
        zl.compare(**{**asked, **changed})


def test_rows_hold_what_pruning_by_hand_gives() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[float] = []

    def evaluate(one: nn.Module) -> float:
        assert not one.training and not torch.is_grad_enabled()
        seen.append(-float(squared(one, BATCHES[0])))
        return seen[-1]

    found = zl.compare(model, ["block:8x8", "unstructured"], [0.5, 0.75], INPUTS, criteria=["l1", "taylor", "wanda"], timed=(),
                       evaluate=evaluate, data=iter(BATCHES), loss=squared, ignore="4")  # fmt: skip
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(found.rows) == 12 and len(seen) == 13 and found.dense_accuracy == seen[0] and found.dense_ms is None
    for row in found.rows:
        other, data = network(), {"data": BATCHES, "loss": squared} if row.trial.criterion != "l1" else {}
        report = zl.prune(other, row.trial.pattern, row.trial.sparsity, INPUTS, score=row.trial.criterion, ignore="4", **data)
        with torch.no_grad():
            assert row.accuracy == -float(squared(other, BATCHES[0]))
        kept = sum(float(layer.weight.detach().abs().sum(dtype=torch.float64)) for layer in other if isinstance(layer, nn.Linear))
        whole = sum(float(layer.weight.detach().abs().sum(dtype=torch.float64)) for layer in model if isinstance(layer, nn.Linear))
        assert row.kept_l1 == pytest.approx(kept / whole, rel=1e-9)
        assert (row.sparsity, row.layers, row.speed) == (report.model_totals.sparsity, 2, None)


def test_networks_recover_before_they_are_evaluated() -> None:
    def halve(model: nn.Module) -> None:
        model.train()
        with torch.no_grad():
            model[0].bias.fill_(7.0)

    found = zl.compare(network(), ["block:8x8"], [0.5], INPUTS, timed=(), recover=halve,
                       evaluate=lambda model: float(model[0].bias[0]) + model.training)  # fmt: skip
    assert found.dense_accuracy != 7.0 and found.rows[0].accuracy == 7.0


def test_a_pattern_that_takes_no_layer_is_left_out() -> None:
    found = zl.compare(network(), ["block:8x8", "block:64x64"], [0.5], INPUTS, timed=())
    assert [row.trial.pattern for row in found.rows] == ["block:8x8"]
    assert [one.pattern for one in found.left_out] == ["block:64x64"]
    assert "left out: block:64x64 at 0.5: No layer is left to prune" in str(found)


def test_permuted_networks_keep_more_and_answer_alike() -> None:
    found = zl.compare(network(), ["block:8x8", "unstructured"], [0.5], INPUTS, orders=[AS_TRAINED, "permuted"], timed=(),
                       ignore="4")  # fmt: skip
    assert [(one.trial.pattern, one.trial.order) for one in found.rows] == [
        ("block:8x8", AS_TRAINED), ("block:8x8", "permuted"), ("unstructured", AS_TRAINED)]  # fmt: skip
    by_hand = network()
    report = zl.permute(by_hand, "block:8x8", 0.5, INPUTS, ignore="4")
    assert found.rows[1].kept_l1 == zl.prune(by_hand, "block:8x8", 0.5, INPUTS, ignore="4").model_totals.l1_kept
    assert report.kept > report.kept_before and found.rows[1].kept_l1 > found.rows[0].kept_l1
    assert "left out: unstructured at 0.5 (permuted): Networks are permuted for Block" in str(found)


def test_a_held_score_is_measured_once_for_each_weight() -> None:
    passes: list[int] = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        return squared(model, batch)

    held, model, given = HeldScore(Taylor()), network(), Calibration(BATCHES, loss)
    first, rest = find_layers(model)[:1], find_layers(model)
    held.measure(model, first, given)
    scores = held.measure(model, rest, given)
    copied = network()
    again = held.measure(copied, find_layers(copied), given)
    assert len(passes) == 4
    other = network()
    theirs = find_layers(other)
    plain = Taylor().measure(other, theirs, given)
    for mine, one, copy in zip(rest, theirs, find_layers(copied), strict=True):
        assert torch.equal(scores(mine), plain(one)) and torch.equal(again(copy), plain(one))
    with torch.no_grad():
        copied[0].weight.mul_(2)
    passes.clear()
    held.measure(copied, find_layers(copied), given)
    assert len(passes) == 2


def row(pattern: str, sparsity: float, accuracy: float | None, times: float | None, criterion: str = "l1") -> Row:
    speed = None if times is None else Speed(1 / times, Ratio(times, (times, times)))
    return Row(Trial(pattern, sparsity, criterion), sparsity, 1 - sparsity / 2, 3, accuracy, speed)


def study(rows: list[Row], dense: float | None = 1.0) -> Study:
    return Study(tuple(rows), (LeftOut("nm:2:4", 0.75, "its sparsity is 0.5"),), dense, 1.0, {"threads": 1})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    rows = [row(str(at), 0.5, right / 8, float(times)) for at, (right, times) in enumerate(points)]
    found = [(round(8 * one.accuracy), int(one.speed.over_dense.median)) for one in study(rows).best()]
    rivals = [*points, (8, 1)]  # the dense network
    unbeaten = {one for one in points if not any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in rivals)}
    assert sorted(found, key=lambda one: one[1]) == found and sorted(unbeaten) == sorted(found)


@pytest.mark.parametrize("number", [np.float32, Fraction])
def test_sparsities_of_any_kind_are_written_down(number: Callable[[str], float]) -> None:
    found = zl.compare(network(), ["block:8x8", "nm:2:4"], [number("0.5"), number("0.29")], INPUTS, timed=())
    assert [row["sparsity"] for row in json.loads(json.dumps(found.as_dict()))["rows"]] == [0.5, 0.29, 0.5]
    assert "left out: nm:2:4 at 0.29" in str(found)


def test_a_study_is_written_down_and_read_back() -> None:
    found = study([row("block:8x8", 0.5, 0.9, 1.5), row("block:8x8", 0.5, 0.8, None, "l2")])
    again = Study.from_dict(json.loads(json.dumps(found.as_dict())))
    assert (again.rows, again.left_out, again.dense_accuracy, again.dense_ms) == (found.rows, found.left_out, 1.0, 1.0)
    assert again.as_dict() == found.as_dict()
    assert [one.trial.criterion for one in found.only(criteria=["l2"]).rows] == ["l2"]
    with pytest.raises(PruneError, match="no row of taylor"):
        found.only(["taylor"])


def test_accuracies_and_speeds_may_be_measured_apart() -> None:
    right = study([row("block:8x8", 0.5, 0.9, None), row("channel", 0.5, 0.8, None)])
    found = right.with_speeds(study([row("channel", 0.5, None, 2.0)], dense=None)).joined([study([row("nm:2:4", 0.5, 0.7, None)])])
    assert [(one.trial.pattern, one.accuracy, one.speed and one.speed.over_dense.median) for one in found.rows] == [
        ("block:8x8", 0.9, None), ("channel", 0.8, 2.0), ("nm:2:4", 0.7, None)]  # fmt: skip
    assert found.dense_accuracy == 1.0 and found.left_out == right.left_out and found.conditions["speed"] == {"threads": 1}


def test_the_table_says_what_is_known() -> None:
    text = str(study([row("block:8x8", 0.5, 0.9, 1.5)]))
    assert "block:8x8    50%  l1         50.0%    75.0%     90.0%  10.0  0.667     1.50" in text
    assert "the dense network: accuracy 100.0%, 1 ms compiled" in text
    assert "left out: nm:2:4 at 0.75: its sparsity is 0.5" in text
    bare = study([row("block:8x8", 0.5, None, None)], dense=None)
    assert [column.heading for column in bare.table().columns] == ["pattern", "asked", "criterion", "zero", "L1 kept"]
    assert bare.lost(bare.rows[0]) == 0.25


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_plot_depends_on_the_rows_alone(tmp_path: Path, suffix: str) -> None:
    found = study([row("block:8x8", 0.5, 0.9, 1.5), row("block:8x8", 0.75, 0.5, 2.5), row("channel", 0.5, 0.7, 1.9)])
    first, second, other = (tmp_path / f"{name}{suffix}" for name in ("first", "second", "other"))
    assert found.plot(first) == first and found.plot(second) == second
    study([row("block:8x8", 0.5, 0.9, 1.6)]).plot(other)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    if suffix == ".svg":
        assert all(f">{text}<" in first.read_text() for text in ("block:8x8", "channel", "Pareto front", "accuracy lost, points"))


def test_plots_that_cant_be_drawn_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed, untimed = study([row("block:8x8", 0.5, 0.9, 1.5)]), study([row("block:8x8", 0.5, 0.9, None)])
    with pytest.raises(ZelligeError, match=r"must end in \.svg, \.png, \.pdf"):
        timed.plot(tmp_path / "figure.txt")
    with pytest.raises(ZelligeError, match="there is no directory"):
        timed.plot(tmp_path / "no" / "figure.svg")
    with pytest.raises(ZelligeError, match="has no speeds"):
        untimed.plot(tmp_path / "figure.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ZelligeError, match=r"pip install 'zellige\[report\]'"):
        timed.plot(tmp_path / "figure.svg")


def test_compiled_networks_race_the_dense_one() -> None:
    said: list[str] = []
    found = zl.compare(network(), ["block:8x8", "unstructured"], [0.75], INPUTS, criteria=["l1", "l2"], timed=["l2"], threads=1,
                       rounds=2, progress=said.append)  # fmt: skip
    assert [row.speed is None for row in found.rows] == [True, False, True, False]
    assert found.dense_ms > 0 and all(row.speed.median_ms > 0 for row in found.rows if row.speed)
    assert found.conditions["rounds"] == 2 and found.conditions["inputs"] == [[1, 32]] and "torch" in found.conditions["versions"]
    assert said[0] == "compiling the dense network" and said[-1] == "timing: round 2 of 2"
    json.dumps(found.as_dict())


def test_every_criterion_is_one_that_pruning_knows() -> None:
    assert {"l1", "l2", "variance", "taylor", "fisher", "hessian", "wanda", "obs"} <= set(CRITERIA)
    found = zl.compare(network(), ["block:8x8"], [0.5], INPUTS, criteria=list(CRITERIA), timed=(), data=BATCHES, loss=squared)
    assert [one.trial.criterion for one in found.rows] == list(CRITERIA)
