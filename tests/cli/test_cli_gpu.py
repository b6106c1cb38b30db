"""``--target cuda`` on the command line: refused before any work where there is no GPU, else handed on."""

import json
from pathlib import Path

import pytest
import torch
from command_line import run
from stand_in import StandInEngine

import zellige as zl
from zellige import api

FACTORY = """
import torch
from stand_in import tiny_network

def build():
    return tiny_network(), (torch.ones(1, 3, 16, 16),)
"""
VERBS = [("bench",), ("profile",), ("verify",), ("inspect",), ("compile", "-o", "m.zlg"), ("compile", "-o", "m.o")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("verb", VERBS)
def test_without_a_gpu_no_model_is_made(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*verb, "python:nowhere:build", "--target", "cuda") == 1
    assert "target cuda needs an NVIDIA GPU" in capsys.readouterr().err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A GPU by word alone; what ``zl.compile`` was asked for."""
    asked: list[dict] = []

    def compiled(model: torch.nn.Module, inputs: object, **settings: object) -> StandInEngine:
        asked.append(settings)
        engine = StandInEngine(model)
        engine.form = "operators as they are"  # type: ignore[attr-defined]
        return engine

    (tmp_path / "gpu_networks_here.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "check_gpu", lambda *_: (torch.device("cpu"), torch.bfloat16))
    monkeypatch.setitem(vars(zl), "compile", compiled)
    return asked


MODEL = "python:gpu_networks_here:build"


@pytest.mark.parametrize("verb", ["profile", "inspect"])
def test_layers_are_shown(verb: str, here: list[dict], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, MODEL, "--target", "cuda", "--json", "p.json") == 0
    assert "conv" in capsys.readouterr().out and json.loads(Path("p.json").read_text())["model"] == MODEL
    assert here[0]["target"] == "cuda" and here[0]["dtype"] is None and here[0]["threads"] is None


def test_verify_allows_what_a_short_type_loses(here: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(zl), "verify", lambda *_: api.Verification(1e-2, 1e-2))
    assert run("verify", MODEL, "--target", "cuda") == 0
    assert run("verify", MODEL, "--target", "cuda", "--dtype", "f16") == 1
    assert run("verify", MODEL) == 1


def test_what_cannot_be(here: list[dict], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in ((("compile", MODEL, "-o", "m.zlg"), "can't be written to m.zlg"),
                            (("inspect", MODEL, "--break-even"), "cost model of a CPU"),
                            (("profile", "m.zlg"), "compiled for CPUs")):
        assert run(*arguments, "--target", "cuda") == 1
        assert said in " ".join(capsys.readouterr().err.split())
    assert not here
