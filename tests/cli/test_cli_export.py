"""``zellige compile -o FILE.o``: an object file and its header, for a machine that need not be this one."""

import json
from pathlib import Path

import pytest
from command_line import run

MODEL = "python:small_models:build"
FACTORY = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU()), (torch.ones(1, 3, 8, 8),)
"""



@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("target, machine", [("cpu:aarch64", 183), ("cpu:x86-64-v3", 62)])
def test_objects_for_any_instruction_set(here: Path, target: str, machine: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", MODEL, "--target", target, "--threads", "4", "-o", "net.o", "--json", "net.json") == 0
    image = (here / "net.o").read_bytes()
    assert image[:4] == b"\x7fELF" and int.from_bytes(image[18:20], "little") == machine
    assert "#define NET_THREADS 4" in (here / "net.h").read_text()
    assert json.loads((here / "net.json").read_text())["file_bytes"] == len(image)
    assert "written to net.o" in capsys.readouterr().out


def test_what_can_not_be_exported_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", MODEL, "--target", "cpu:riscv64", "-o", "net.o") == 1
    assert "unknown target" in capsys.readouterr().err
    assert run("compile", MODEL, "--tune", "measure", "-o", "net.o") == 1
    assert "planned by the cost model" in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir() if path.is_file()) == ["small_models.py"]
