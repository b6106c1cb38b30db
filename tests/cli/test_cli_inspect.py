"""``zellige inspect``: the plan of a network, from a model or a file, for any target, without an engine."""

import json
import sys
from pathlib import Path

import pytest
import torch

import zellige as zl
from zellige.cli import main

MODEL = "python:inspected_models:build"
FACTORY = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU()), (torch.ones(1, 32, 28, 28),)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "inspected_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "inspected_models", raising=False)
    return tmp_path


def inspected(*arguments: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *arguments, "--json", "i.json"])
    assert not stop.value.code
    return json.loads(Path("i.json").read_text())


def saved(winograd: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU()).eval()
    zl.compile(model, (torch.ones(1, 32, 28, 28),), winograd=winograd).save("m.zlg")


@pytest.mark.parametrize("target", ["cpu", "cpu:aarch64", "cpu:x86-64-v3", "cpu:x86-64-v4"])
def test_a_model_and_its_file_for_any_target(here: Path, target: str) -> None:
    saved(winograd=True)
    from_model, from_file = inspected(MODEL, "--target", target), inspected("m.zlg", "--target", target)
    assert from_model["layers"] == from_file["layers"]
    (layer,) = from_model["layers"]
    assert layer["op"] == "conv2d" and layer["path"] and layer["reason"] and layer["density"] == 1


def test_pruned_layers_and_winograd(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspected(MODEL)["layers"][0]["path"] == "winograd"
    (layer,) = inspected(MODEL, "--pattern", "block:8x8", "--sparsity", "0.5", "--no-winograd", "--target", "cpu:aarch64")["layers"]
    assert (layer["density"], layer["path"]) == (0.5, "sparse")
    assert "sparse" in capsys.readouterr().out
    saved(winograd=False)
    assert inspected("m.zlg")["layers"][0]["path"] == "dense"


@pytest.mark.parametrize("target", ["cpu", "cpu:aarch64"])
def test_break_even_keeps_to_the_options(here: Path, target: str) -> None:
    """Direct convolution gains what is left out; Winograd's gains less. And a file remembers what it may use."""
    asked = ("--break-even", "--target", target)
    (winograd,), (direct,) = (inspected(MODEL, *asked, *more)["layers"] for more in ((), ("--no-winograd",)))
    assert (winograd["path"], direct["path"]) == ("winograd", "dense")
    saved(winograd=False)
    assert inspected("m.zlg", *asked)["layers"] == [direct]


def test_what_can_not_be_planned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (("--target", "nonsense"), "unknown target 'nonsense'"),
        (("--tune", "nonsense"), "tune must be one of model, measure; got 'nonsense'"),
        (("--dtype", "bf16"), "dtype must be one of f32; got 'bf16'"),
        (("--tune", "measure", "--target", "cpu:aarch64"), "code for aarch64 can't run here"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["inspect", MODEL, *options])
        assert stop.value.code == 1 and message in capsys.readouterr().err
