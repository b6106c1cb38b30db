"""The whole way through the command line with the real compiler: prune, compile, run, verify, inspect, profile, bench."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in import tiny_network

from zellige.bench.accuracy import largest_relative_error, reference_answer
from zellige.cli import main
from zellige.models.weights import load_weights

MODEL = "python:tiny_networks:build"
FACTORY = """
import torch
from stand_in import tiny_network

def build():
    return tiny_network(), (torch.ones(1, 3, 16, 16),)
"""
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from zellige.cli import main; main()"


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code in (0, None)


def test_a_network_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "tiny_networks", raising=False)

    run("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "--target", "4", "-o", "w.safetensors")
    run("compile", MODEL, "--weights", "w.safetensors", "-o", "m.zlg", "--threads", 1)
    run("verify", MODEL, "--weights", "w.safetensors", "--engine", "m.zlg", "--tolerance", 1e-5)

    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    np.save("x.npy", x)
    command = [sys.executable, "-c", WITHOUT_TORCH, "run", "m.zlg", "--input", "x.npy", "-o", "y.npy"]
    finished = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    model = tiny_network()
    load_weights(model, Path("w.safetensors"))
    assert largest_relative_error([np.load("y.npy")], reference_answer(model, (torch.from_numpy(x),))) < 1e-5

    run("inspect", "m.zlg", "--json", "i.json")
    layers = json.loads(Path("i.json").read_text())["layers"]
    assert all(layer["path"] and layer["reason"] for layer in layers)
    assert any(abs(layer["density"] - 0.5) < 0.01 for layer in layers)

    run("profile", "m.zlg", "--threads", 1, "--json", "p.json")
    assert sum(row["microseconds"] for row in json.loads(Path("p.json").read_text())["rows"]) > 0

    asked = ("--pattern", "block:8x8", "--sparsity", 0.25, "--against", "torch", "--rounds", 1, "--threads", 1)
    run("bench", MODEL, *asked, "--json", "b.json")
    result = json.loads(Path("b.json").read_text())
    assert result["max_relative_error"] < 1e-5 and result["speedup_over_fastest"] > 0
    assert result["file_bytes"] > 0 and result["compile_s"] > 0 and result["layers"]
