"""``zellige finetune``: what it writes and prints, and that it survives being killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import run
from safetensors import safe_open
from safetensors.torch import load_file

MODEL = "python:small_texts:build"
FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    parts = nn.Embedding(256, 16), nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 256)
    return nn.Sequential(*parts), (torch.zeros(1, 8, dtype=torch.long),)
"""
RECIPE = """
pattern: block:8x8
sparsity: 0.5
scheme: {{name: gradual, until: 0.5}}
steps: {steps}
batch: 16
evaluate_every: 100
checkpoint_every: {often}
average: 0.9
data: {{context: 8}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small_texts.py").write_text(FACTORY)
    (tmp_path / "text").write_bytes(b"the quick brown fox jumps over the lazy dog. " * 200)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "small_texts", raising=False)
    write_recipe(300, 1000)
    return tmp_path


def write_recipe(steps: int, often: int) -> None:
    Path("recipe.yaml").write_text(RECIPE.format(steps=steps, often=often))


ASKED = ("finetune", MODEL, "--recipe", "recipe.yaml", "--data", "text:text")


def test_it_writes_weights_with_zeros(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*ASKED, "-o", "w.safetensors", "--json", "r.json", "--log", "l.csv") == 0
    printed = capsys.readouterr()
    assert "name: gradual" in printed.out and "after 300 steps" in printed.out and printed.err == ""
    weights = load_file(here / "w.safetensors")
    assert all(float((weights[name] == 0).double().mean()) == 0.5 for name in ("1.weight", "4.weight"))
    report = json.loads((here / "r.json").read_text())
    assert report["sparsity"] == 0.5 and report["accuracy"] > 0.3 and report["recipe"]["scheme"]["until"] == 0.5
    assert len((here / "l.csv").read_text().splitlines()) == len(report["history"]) + 1
    with safe_open(here / "w.safetensors", framework="pt") as file:
        assert file.metadata()["weights"] == "fine-tuned on text:text, as the factory made them before"


def test_what_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*ASKED, "-o", "w.pt") == 2
    (here / "recipe.yaml").write_text("sparsity: 1\npattern: block:8x8\nsteps: 3\n")
    assert run(*ASKED, "-o", "w.safetensors") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("zellige: recipe.yaml, line 1: Sparsity is")
    write_recipe(3, 1)
    assert run(*ASKED[:-1], "letters", "-o", "w.safetensors") == 1
    assert "unknown data 'letters'" in capsys.readouterr().err
    assert not (here / "w.safetensors").exists()


def killed_run(after: float) -> None:
    """Starts a run, or goes on with it, and kills it so many seconds after its first checkpoint."""
    checkpoint = Path("w.checkpoint")
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    command = [sys.executable, "-c", "from zellige.cli import main; main()", *ASKED, "-o", "w.safetensors", "--resume"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    try:
        for _ in range(3000):
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                break
            assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
            time.sleep(0.02)
        time.sleep(after)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("times", [1, pytest.param(6, marks=pytest.mark.full)])
def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_weights(here: Path, times: int) -> None:
    steps = 250 * times
    write_recipe(steps, 1000)
    assert run(*ASKED, "-o", "whole.safetensors") == 0
    write_recipe(steps, 1)
    random.seed(0)
    for _ in range(times):
        killed_run(random.uniform(0.0, 0.6))
    reached = torch.load("w.checkpoint", weights_only=True)["training"]["step"]
    assert 0 < reached < steps and not Path("w.safetensors").exists()
    write_recipe(steps, 1000)
    assert run(*ASKED, "-o", "w.safetensors", "--resume") == 0
    whole, again = load_file("whole.safetensors"), load_file("w.safetensors")
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)
