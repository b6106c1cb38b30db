"""``zellige codegen`` and ``zellige simulate``: from a network to files, and from the files to the int8 reference's answers."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run

from zellige.aie2.device import DEVICES
from zellige.cli.simulate import read_arrays
from zellige.errors import FileFormatError

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 12, 3, padding=1, stride=2), nn.Conv2d(12, 16, 1)
        self.again, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.stem(x)), 2)
        x = torch.nn.functional.silu(self.wide(x))
        return self.last(torch.relu(x + self.again(x)).mean((2, 3)))

def build():
    torch.manual_seed(0)
    return Net().eval(), (torch.randn(1, 3, 16, 12),)

def batches():
    torch.manual_seed(1)
    return [(torch.randn(1, 3, 16, 12),) for _ in range(2)]

def none():
    return 7
"""
MODEL = "python:engine_networks:build"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "engine_networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "engine_networks", raising=False)
    return tmp_path



def test_the_whole_way(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", "aie2:2x2", "--device", "npu1", "--pattern", "block:8x8", "--sparsity", 0.5, "--json", "c.json")
    assert run("codegen", MODEL, *asked, "-o", "code") == 0
    assert "code for npu1 2x2 in" in capsys.readouterr().out
    facts = json.loads(Path("c.json").read_text())
    assert facts["design_bytes"] == Path("code/design.mlir").stat().st_size
    assert json.loads(Path("code/scales.json").read_text()) == facts["scales"]
    kernel = "compiled" if shutil.which("g++") else "numpy"
    assert run("simulate", "code", "--kernel", kernel, "-o", "y.npz", "--json", "s.json") == 0
    assert "outputs equal those of the int8 reference, bit for bit" in capsys.readouterr().out
    assert json.loads(Path("s.json").read_text())["cycles"] > 0
    with np.load("y.npz") as came, np.load("code/sample/outputs.npz") as expected:
        assert {name: came[name].tolist() for name in came} == {name: expected[name].tolist() for name in expected}
    assert run("codegen", MODEL, *asked, "-o", "again") == 0
    first, second = ({path.relative_to(where): path.read_bytes() for path in Path(where).rglob("*") if path.is_file()}
                     for where in ("code", "again"))
    assert first == second


def test_other_inputs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", "aie2:1x2", "--calibration", "minmax", "--data", "engine_networks:batches")
    assert run("codegen", MODEL, *asked, "-o", "code") == 0
    with np.load("code/sample/inputs.npz") as sample:
        name, values = next(iter(sample.items()))
    np.savez("x.npz", **{name: np.roll(values, 1, axis=-1)})
    assert run("simulate", "code", "--kernel", "numpy", "--input", "x.npz", "-o", "y.npz") == 0
    assert "bit for bit" not in capsys.readouterr().out
    np.savez("short.npz", **{name: values[..., :3]})
    assert run("simulate", "code", "--kernel", "numpy", "--input", "short.npz") == 1
    assert "expects" in capsys.readouterr().err
    np.savez("code/sample/outputs.npz", **{name: values})
    assert run("simulate", "code", "--kernel", "numpy") == 1
    assert "sample/outputs.npz: bytes 0 to" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, status, message", [
    (("codegen", MODEL, "--target", "aie2:4", "-o", "code"), 2, "expected rows and columns of cores such as aie2:4x4"),
    (("codegen", MODEL, "--target", "aie2:9x9", "-o", "code"), 1, "an overlay of 9 × 9 doesn't fit"),
    (("codegen", MODEL, "--device", "vck5000", "-o", "code"), 1, "no AIE2 device is called 'vck5000'"),
    (("codegen", MODEL, "--data", "engine_networks:none", "-o", "code"), 1, "gave int; expected batches, each a tuple of inputs"),
    (("simulate", "nowhere"), 1, "nowhere/manifest.json: expected the manifest of an emitted program"),
])
def test_bad_requests(arguments: tuple[str, ...], status: int, message: str, here: Path,
                      capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == status
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_directory_with_something_in_it_is_refused_before_all_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("codegen", "python:nowhere:build", "-o", ".") == 1
    assert "expected a new or an empty directory" in capsys.readouterr().err


@pytest.mark.parametrize("write, said", [
    (lambda path: path.write_text("text"), "got another file"), (lambda path: path.write_bytes(b"PK\3\4"), "got another file"),
    (lambda path: np.savez(path, x=np.array([{}])), "got another file"), (lambda path: None, "No such file"),
])
def test_inputs_that_are_no_arrays(write: Callable[[Path], None], said: str, here: Path) -> None:
    write(here / "x.npz")
    with pytest.raises(FileFormatError, match=said) as found:
        read_arrays(here / "x.npz")
    assert "pickle" not in str(found.value)


@pytest.mark.parametrize("verb", [("codegen", "-o", "code"), ("estimate",)], ids=lambda verb: verb[0])
def test_what_cannot_be_routed_is_refused(verb: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICES, "npu1", replace(DEVICES["npu1"], ports=(1, 1, 1, 1)))
    assert run(verb[0], MODEL, *verb[1:], "--target", "aie2:2x2", "--device", "npu1") == 1
    assert "has 1 ports to the north" in " ".join(capsys.readouterr().err.split()) and not Path("code").exists()


@pytest.mark.full
def test_resnet50_entire(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every transfer, lock and kernel of ResNet-50 at 224 × 224, from the emitted files: the int8 reference's answer."""
    asked = ("--target", "aie2:4x4", "--pattern", "block:8x8", "--sparsity", 0.5)
    assert run("codegen", "torchvision:resnet50", *asked, "-o", "code") == 0
    assert run("simulate", "code", "--json", "s.json") == 0
    assert "outputs equal those of the int8 reference, bit for bit" in capsys.readouterr().out
    assert json.loads(Path("s.json").read_text())["simulate_s"] < 15 * 60
