"""What verbs do with a ``.zlg`` file: options that hold for it reach the engine, the others are refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from stand_in import StandInEngine, tiny_network

import zellige as zl

MODEL = "python:tiny_networks:build"
FACTORY = """
import torch
from stand_in import tiny_network

def build():
    return tiny_network(), (torch.ones(1, 3, 16, 16),)
"""


class Verified:
    max_absolute_error = max_relative_error = 1e-6


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``zl.load`` was asked for, call by call; it gives a stand-in."""
    (tmp_path / "tiny_networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_networks", raising=False)
    asked: list[dict[str, Any]] = []

    def load(path: object, **settings: object) -> StandInEngine:
        asked.append(settings)
        return StandInEngine(tiny_network())

    monkeypatch.setitem(vars(zl), "load", load)
    monkeypatch.setitem(vars(zl), "verify", lambda model, engine, inputs: Verified())
    return asked



ON_A_FILE = (("profile", "m.zlg"), ("verify", MODEL, "--engine", "m.zlg"))


@pytest.mark.parametrize("command", ON_A_FILE, ids=lambda command: command[0])
def test_what_is_chosen_when_a_file_is_loaded(loaded: list[dict[str, Any]], command: tuple[str, ...]) -> None:
    assert run(*command) == 0
    assert run(*command, "--target", "cpu:x86-64-v3", "--tune", "measure", "--threads", "3") == 0
    assert loaded == [{"target": "cpu", "threads": None, "tune": "model"},
                      {"target": "cpu:x86-64-v3", "threads": 3, "tune": "measure"}]


@pytest.mark.parametrize("option", [("--dtype", "bf16"), ("--no-winograd",)], ids=lambda option: option[0])
@pytest.mark.parametrize("command", [*ON_A_FILE, ("inspect", "m.zlg")], ids=lambda command: command[0])
def test_what_is_settled_in_a_file(loaded: list[dict[str, Any]], command: tuple[str, ...], option: tuple[str, ...],
                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, *option) == 1
    assert f"m.zlg is compiled already: {option[0]} would have no effect on it" in capsys.readouterr().err
    assert loaded == []


@pytest.mark.parametrize("options", [
    ("--batch", "7"), ("--shape", "3,99,99"), ("--weights", "w.safetensors"),
    ("--pattern", "block:8x8", "--sparsity", "0.5"), ("--pattern", "block:8x8", "--sparsity", "0.5", "--scope", "global"),
], ids=lambda options: options[-2])
@pytest.mark.parametrize("verb", ["profile", "inspect"])
def test_what_a_model_has_and_a_file_has_not(loaded: list[dict[str, Any]], verb: str, options: tuple[str, ...],
                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "m.zlg", *options) == 1
    printed = capsys.readouterr().err
    assert "m.zlg is compiled already" in printed and all(name in printed for name in options[::2])
    assert loaded == []
