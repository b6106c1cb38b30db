"""Profiles of networks for GPUs: what is a step, whose its time is, what stands beside it. A clock of our own stands for events."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
from device_networks import network
from test_network import compiled

from zellige.cuda.engine import CudaEngine
from zellige.cuda.network import steps
from zellige.cuda.network.layers import TOKENS
from zellige.errors import InputError, ZelligeError


@pytest.fixture(scope="module")
def dense() -> CudaEngine:
    return compiled(*network("encoder"), "dense", TOKENS)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th step of a replay takes n µs longer than the one before it: stamps at 0, 1, 3, 6, … µs."""
    clock = itertools.accumulate(itertools.count())
    monkeypatch.setattr(steps, "host_clock", lambda: 1e-6 * next(clock))


def test_every_layer_in_its_place_beside_its_price(ticks: None) -> None:
    model, inputs = network("encoder")
    engine = compiled(model, inputs)
    found = engine.profile(rounds=1)
    assert [row.op for row in found.rows if row.op not in ("copy", "turn")] == [layer.op for layer in engine.layers]
    layers = {row.name: row for row in found.rows}
    for plan in engine.layers:
        row = layers[plan.name]
        assert (row.path, row.reason, row.density) == (plan.path, plan.reason, plan.density)
        assert row.predicted_microseconds == pytest.approx(1e6 * plan.seconds)
        assert row.dense_microseconds == pytest.approx(1e6 * plan.dense_seconds)
        assert row.gflops == pytest.approx(2e-3 * plan.kept_macs / row.microseconds)
    assert [row.op for row in found.rows].count("turn") == 2
    times = [row.microseconds for row in found.rows]
    assert times == pytest.approx([times[0] + index for index in range(len(times))])  # each step has its own span, in order
    assert found.total_microseconds == pytest.approx(sum(times)) and found.whole_microseconds > 0
    assert found.priced_microseconds[1] == pytest.approx(1e6 * sum(plan.seconds for plan in engine.layers))


def test_operators_have_rows_and_views_have_none(ticks: None) -> None:
    model, inputs = network("residual")
    engine = compiled(model, inputs, "dense", TOKENS)
    rows = engine.profile(1).rows
    assert not any(row.op in ("view", "reshape", "transpose", "flatten") for row in rows)
    operators = [row for row in rows if row.reason == "an operator of PyTorch's"]
    assert operators and all(row.predicted_microseconds is None for row in operators)
    assert sum(row.op == "conv2d" for row in rows) == sum(layer.op == "conv2d" for layer in engine.layers) > 0


def test_medians_over_rounds_and_the_first_is_left_out(monkeypatch: pytest.MonkeyPatch, dense: CudaEngine) -> None:
    spans = iter([9.0, 1.0, 5.0, 2.0])

    class Replays(steps.DirectSteps):
        def replay(self) -> dict[Any, float]:
            span = next(spans)
            return dict.fromkeys(super().replay(), 1e-6 * span)

    monkeypatch.setattr("zellige.cuda.engine.STEPS", {dense._runner: Replays})
    assert all(row.microseconds == pytest.approx(2.0) for row in dense.profile(3).rows)


def test_as_text_and_as_json(dense: CudaEngine) -> None:
    found = dense.profile(2)
    text, value = str(found), json.loads(json.dumps(found.to_json()))
    for expected in ("query, key, value", "price", "attention", "dense, tokens to tokens", "own graph", "operators as they are"):
        assert expected in text
    assert value["total_microseconds"] == found.total_microseconds and value["rows"][0].keys() >= {"name", "microseconds"}
    assert "peak_share" not in value["rows"][0]


def test_the_engine_answers_as_before_and_whole_numbers_are_taken() -> None:
    for name in ("encoder", "decoder"):
        model, inputs = network(name)
        engine = compiled(model, inputs, "dense", TOKENS)
        before = torch.utils._pytree.tree_leaves(engine(*inputs))
        engine.profile(1)
        assert all(map(torch.equal, torch.utils._pytree.tree_leaves(engine(*inputs)), before))


def test_rounds_that_are_none(dense: CudaEngine) -> None:
    for rounds in (0, True, 1.5):
        with pytest.raises(InputError, match="rounds"):
            dense.profile(rounds)  # type: ignore[arg-type]


def test_memory_that_runs_out(monkeypatch: pytest.MonkeyPatch, dense: CudaEngine) -> None:

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")

    monkeypatch.setattr("zellige.cuda.engine.STEPS", {dense._runner: full})
    with pytest.raises(ZelligeError, match="not enough memory on cpu to time Encoder"):
        dense.profile(1)
