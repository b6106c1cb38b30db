"""``zellige estimate``: what it writes, what it draws, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import run

FACTORY = """
import torch
from torch import nn

def build(pruned=False):
    torch.manual_seed(0)
    stem, wide, last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 64, 3, padding=1), nn.Conv2d(64, 32, 1)
    wide.weight.data[:8, :8] *= not pruned
    return nn.Sequential(stem, nn.ReLU(), wide, nn.ReLU(), nn.MaxPool2d(2), last).eval(), (torch.randn(1, 3, 16, 16),)

def with_zeros():
    return build(True)

def batches():
    torch.manual_seed(1)
    return [(torch.randn(1, 3, 16, 16),) for _ in range(2)]
"""
MODEL = "python:estimated_networks:build"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "estimated_networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "estimated_networks", raising=False)
    return tmp_path



def test_dense_and_pruned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", "aie2:2x2", "--device", "npu1", "--json", "e.json")
    assert run("estimate", MODEL, *asked, "--pattern", "block:8x8", "--sparsity", "0.5", "--timeline", "t.png") == 0
    assert "estimated: dense" in capsys.readouterr().out
    found = json.loads(Path("e.json").read_text())
    assert found["overlay"] == "npu1 2x2" and found["clock_hz"] == 1.6e9 and found["ddr_gbps"] == 25.6
    assert {"name", "op", "ms", "given_ms", "dense_ms", "bound"} == set(found["layers"][0])
    assert [layer["op"] for layer in found["layers"]] == ["conv2d", "conv2d", "max_pool2d", "conv2d"]
    assert sum(layer["ms"] for layer in found["layers"]) == pytest.approx(found["total_ms"])
    assert sum(layer["dense_ms"] for layer in found["layers"]) == pytest.approx(found["dense_total_ms"])
    assert found["total_ms"] < found["given_total_ms"] == found["dense_total_ms"]
    assert Path("t.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_pruned_already_is_not_called_dense(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", "aie2:2x2", "--device", "npu1", "--json", "e.json")
    calls = {"build": ("dense", ()), "with_zeros": ("as given", ("--data", "estimated_networks:batches", "--calibration", "mse"))}
    for factory, (called, more) in calls.items():
        assert run("estimate", f"python:estimated_networks:{factory}", *asked, *more) == 0
        found = json.loads(Path("e.json").read_text())
        assert found["given"] == called and found["given_total_ms"] == found["total_ms"]
        assert found["dense_total_ms"] == (found["total_ms"] if called == "dense" else None)
        printed = " ".join(capsys.readouterr().out.split())
        assert f"{called} ms" in printed and f"estimated: {called} " in printed


def test_slow_memory_takes_longer(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = []
    for more in ((), ("--ddr-gbps", "0.5")):
        assert run("estimate", MODEL, "--target", "aie2:1x1", "--device", "npu1", "--json", "e.json", *more) == 0
        found = json.loads(Path("e.json").read_text())
        assert found["total_ms"] == found["given_total_ms"] and "pruned" not in capsys.readouterr().out
        times.append(found["total_ms"])
    assert found["ddr_gbps"] == 0.5 and "DDR" in {layer["bound"] for layer in found["layers"]}
    assert times[1] > 2 * times[0]


@pytest.mark.parametrize("arguments, status, message", [
    (("--target", "aie2:4"), 2, "expected rows and columns of cores such as aie2:4x4"),
    (("--device", "vck5000"), 1, "no AIE2 device is called 'vck5000'"),
    (("--ddr-gbps", "0"), 2, "0"),
    (("--pattern", "block:8x8"), 2, "--sparsity"),
    (("--timeline", "nowhere/t.svg"), 1, "there is no directory nowhere"),
])
def test_bad_requests(arguments: tuple[str, ...], status: int, message: str, here: Path,
                      capsys: pytest.CaptureFixture[str]) -> None:
    assert run("estimate", MODEL, *arguments) == status
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
