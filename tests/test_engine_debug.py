"""What the compiler shows of its work: ``ZELLIGE_DEBUG``, the list of layers, profiles, choices by the clock."""

from __future__ import annotations

import json
import re
import weakref

import numpy as np
import pytest
import torch
from engine_checks import assert_close, compiled, random_inputs
from small_networks import Build
from torch import nn

import zellige as zl
from zellige.cpu import cache
from zellige.engine import Engine
from zellige.graph.ir import Graph


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def printed(model: nn.Module, level: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of what is printed to stderr while a model is compiled anew at a level; nothing goes to stdout."""
    monkeypatch.setenv("ZELLIGE_DEBUG", level)
    monkeypatch.setattr(cache, "_loaded", weakref.WeakValueDictionary())
    capsys.readouterr()
    zl.compile(model, (torch.zeros(1, 3, 6, 6),), threads=1)
    out, err = capsys.readouterr()
    assert out == ""
    return re.findall(r"^── zellige: (.*) ──$", err, re.MULTILINE)


GRAPHS = ["graph from PyTorch", "graph after fold", "graph after fuse"]


def test_levels(model, capsys, monkeypatch):
    assert printed(model, "0", capsys, monkeypatch) == []
    assert printed(model, "1", capsys, monkeypatch) == ["plan"]
    second = printed(model, "2", capsys, monkeypatch)
    assert set(GRAPHS) <= set(second) and "plan" in second and not any("IR" in title for title in second)
    third, fourth = (printed(model, level, capsys, monkeypatch) for level in ("3", "4"))
    of_ir = [title for title in fourth if title.startswith("LLVM IR ")]
    assert of_ir and set(of_ir) <= set(third) and not any(title.startswith("assembly") for title in third)
    assert [title.replace("assembly", "LLVM IR") for title in fourth if title.startswith("assembly")] == of_ir


def test_what_the_levels_show(model, capsys, monkeypatch):
    monkeypatch.setenv("ZELLIGE_DEBUG", "4")
    monkeypatch.setattr(cache, "_loaded", weakref.WeakValueDictionary())
    zl.compile(model, (torch.zeros(1, 3, 6, 6),), threads=1)
    shown = capsys.readouterr().err
    assert re.search(r"^plan for \S+: \d+ calls, \d+ kernels, \d+ buffers$", shown, re.MULTILINE)
    assert "batch_norm(" in shown.split("graph after")[1] and "batch_norm(" not in shown.split("graph after fuse")[1]
    assert "▸ relu" in shown.split("graph after fuse")[1]
    assert re.search(r"^define void @\"?bandkernel_", shown, re.MULTILINE) and re.search(r"^bandkernel_\w+:$", shown, re.MULTILINE)


def pruned() -> Graph:
    b = Build(1, 32, 14, 14, dtype="float32")
    y = b.conv(b.x, 32, 3, bias=True, padding=(1, 1, 1, 1))
    b.graph.constants[b.graph.nodes[y].inputs[1]][:, 8:24] = 0
    y = b("add", b.conv(b.activation(y, "relu"), 32), b.x)
    return b.done(b("linear", b("mean", y, dimensions=(2, 3), keep=False), b.random(10, 32)))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return compiled(pruned(), threads=2)


def test_every_layer_says_what_runs_and_why(engine):
    assert {layer.name for layer in engine.layers} == set(engine.graph.nodes)
    for layer in engine.layers:
        node = engine.graph.nodes[layer.name]
        assert (layer.op, layer.shape) == (node.op, node.type.shape) and layer.path and layer.reason
        assert 0 < layer.density <= 1 and layer.kept_macs == round(layer.macs * layer.density) and layer.cycles >= 0
    by_op = {layer.op: layer for layer in engine.layers}
    assert by_op["linear"].macs == 320 and by_op["linear"].density == 1
    first = engine.layers[0]
    assert first.density == 0.5 and first.macs == 32 * 32 * 9 * 14 * 14


def test_a_profile_times_every_call(engine):
    before = engine(*(inputs := random_inputs(engine.graph)))
    profile = engine.profile(rounds=5)
    assert profile.threads == 2 and profile.peak_gflops > 0.1
    assert {layer.name for layer in engine.layers} <= {row.name for row in profile.rows}
    for row in profile.rows:
        assert row.microseconds >= 0 and row.gflops == pytest.approx(row.peak_share * profile.peak_gflops)
    assert profile.total_microseconds == pytest.approx(sum(row.microseconds for row in profile.rows))
    assert profile.total_microseconds > 0
    read = json.loads(json.dumps(profile.to_json()))
    assert read["rows"][0]["name"] == engine.layers[0].name and read["total_microseconds"] == profile.total_microseconds
    assert all(layer.name in str(profile) for layer in engine.layers)
    np.testing.assert_array_equal(engine(*inputs), before)  # profiling leaves nothing behind


def test_choosing_by_the_clock_measures_every_path(engine):
    measured = compiled(pruned(), threads=2, tune="measure")
    chosen, modelled = measured.layers[0], engine.layers[0]
    assert re.search(r"; measured \d+ µs, \d+ µs by \w+", chosen.reason) and "model:" in modelled.reason
    assert {layer.path for layer in measured.layers} <= {
        "winograd", "small winograd", "sparse", "dense", "view", "copy", "reduce", "matrix-vector"}
    inputs = random_inputs(pruned())
    assert_close(pruned(), inputs, [measured(*inputs)])


def test_with_one_path_there_is_nothing_to_measure():
    engine = compiled(pruned(), tune="measure", winograd=False)
    assert not any("measured" in layer.reason for layer in engine.layers)
