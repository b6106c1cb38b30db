"""A saved network runs where nothing but numpy and llvmlite is installed, and gives the same bits."""

from __future__ import annotations

import re
import shutil
import subprocess
import venv
from importlib.metadata import distribution, requires
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import zellige as zl

PACKAGES = {"numpy", "llvmlite"}


class Mixed(nn.Module):
    """A little of everything that a classification network has; two inputs, results in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Hardswish(), nn.Conv2d(16, 16, 1))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.last = nn.Linear(32, 10)

    def forward(self, x, y):
        x = self.stem(x + y)
        x = torch.cat([x, self.gate(x) * (x + self.body(x))], 1)
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        return {"scores": self.last(x.mean((2, 3))), "map": x}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = Mixed().eval()
    zl.prune(model, zl.Block(8, 8), sparsity=0.5, example_inputs=inputs())
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 20, 24, generator=generator), torch.randn(1, 3, 1, 1, generator=generator)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment that holds the two packages and this one, and no others."""
    place = tmp_path_factory.mktemp("bare") / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    site_packages = next(place.glob("lib/python*/site-packages"))
    for package in PACKAGES:
        for part in {file.parts[0] for file in distribution(package).files or ()} - {".."}:
            (site_packages / part).symlink_to(distribution(package).locate_file(part))
    shutil.copytree(Path(zl.__file__).parent, site_packages / "zellige", ignore=shutil.ignore_patterns("__pycache__"))
    return place / "bin" / "python"


def run(python: Path, script: str, *arguments: object) -> str:
    environment = {"ZELLIGE_CACHE": str(python.parent / "cache"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([python, "-I", "-c", script, *map(str, arguments)], env=environment, cwd=python.parent,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_asks_for_no_more() -> None:
    needed = [requirement for requirement in requires("zellige") or () if "extra ==" not in requirement]
    assert {re.match(r"[\w-]+", requirement).group() for requirement in needed} == PACKAGES  # type: ignore[union-attr]


def test_the_environment_is_bare(bare_python: Path) -> None:
    for absent in ("torch", "safetensors", "hypothesis", "pip", "typer"):
        with pytest.raises(AssertionError, match=f"No module named '{absent}'"):
            run(bare_python, f"import {absent}")


SCRIPT = """
import sys
import numpy as np
import zellige as zl

folder = sys.argv[1]
engine = zl.load(f"{folder}/model.zlg", threads=int(sys.argv[2]))
arrays = np.load(f"{folder}/arrays.npz")
results = engine(arrays["x"], arrays["y"])
for name, array in results.items():
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, arrays[name])
clone = engine.clone()
np.testing.assert_array_equal(clone(arrays["x"], arrays["y"])["scores"], arrays["scores"])
assert "conv2d" in str(engine.profile(rounds=1))
engine.save(f"{folder}/again.zlg")
try:
    engine([1.0], arrays["y"])
except zl.ZelligeError as error:
    assert "expected a numpy array" in str(error)
else:
    raise AssertionError("a list was taken for an array")
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_saved_network_runs_there(model: nn.Module, bare_python: Path, tmp_path: Path, threads: int) -> None:
    example = inputs()
    engine = zl.compile(model, example, threads=1)
    engine.save(tmp_path / "model.zlg")
    x, y = (value.numpy() for value in example)
    np.savez(tmp_path / "arrays.npz", x=x, y=y, **engine(x, y))
    run(bare_python, SCRIPT, tmp_path, threads)
    assert (tmp_path / "again.zlg").read_bytes() == (tmp_path / "model.zlg").read_bytes()
    assert zl.verify(model, zl.load(tmp_path / "again.zlg"), example).max_relative_error < 1e-5
