"""Bad requests of every kind, a model, an option, a size, a file: each gives one clear error, or works."""

from __future__ import annotations

import copy
import gc
import pickle
import resource
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_checks import compiled, random_inputs
from small_model import SHAPE, Small
from small_networks import Build

import zellige as zl
from zellige.api import plan
from zellige.cpu import cache, host
from zellige.errors import CacheError, CompileError, FileFormatError, InputError, UnsupportedModelError, ZelligeError


@pytest.fixture(scope="module")
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def engine(model: Small, x: torch.Tensor) -> zl.Engine:
    return zl.compile(model, (x,), threads=2)


# Models and options


class Branches(Small):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Exotic(Small):
    def forward(self, x):
        return super().forward(torch.cumsum(x, 1)) + torch.sort(x, 1)[0].mean()


def refuse(error: type[ZelligeError], message: str, *arguments: object, **options: object) -> None:
    with pytest.raises(error, match=message):
        zl.compile(*arguments, **options)


def test_models_that_do_not_qualify(x: torch.Tensor) -> None:
    refuse(UnsupportedModelError, r"training mode.*model\.eval\(\)", Small().train(), (x,))
    refuse(UnsupportedModelError, "decides by a tensor's values", Branches().eval(), (x,))
    refuse(UnsupportedModelError, r"(?s)cumsum.*sort", Exotic().eval(), (x,))
    refuse(UnsupportedModelError, r"expected a torch.nn.Module", lambda x: x, (x,))


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, torch.ones(SHAPE))])
def test_torchscript_is_named(model: Small, x: torch.Tensor, make: Callable[[Small], torch.nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = make(model)
    refuse(UnsupportedModelError, r"is TorchScript, scripted or traced; compile the torch\.nn\.Module that it", made, (x,))


def test_example_inputs_that_do_not_qualify(model: Small, x: torch.Tensor) -> None:
    refuse(InputError, r"empty: its shape is \(0, 3, 9, 11\)", model, (x[:0],))
    refuse(InputError, r"write \(x,\)", model, x)
    refuse(InputError, "must be float32, got float64", model, (x.double(),))
    refuse(InputError, "must be float32, got float16", Small().eval().half(), (x.half(),))
    refuse(InputError, "fails on example inputs", model, (x[:, :2],))
    refuse(InputError, "fails on example inputs", model, ())


@pytest.mark.parametrize("threads", [0, -1, 1.0, "2", True, 257])
def test_threads_that_make_no_sense(model: Small, x: torch.Tensor, tmp_path: Path, threads: object) -> None:
    refuse(CompileError, "threads must be an integer from 1 to 256, or None", model, (x,), threads=threads)


@pytest.mark.parametrize("threads", [None, 0, -1, 1.0, "2", True, 257])
def test_threads_of_an_object_file(model: Small, x: torch.Tensor, tmp_path: Path, threads: object) -> None:
    with pytest.raises(CompileError, match="threads must be an integer from 1 to 256"):
        zl.export(model, (x,), tmp_path / "net.o", threads=threads)
    assert not list(tmp_path.iterdir())


def test_integers_of_numpy_are_integers(model: Small, x: torch.Tensor, engine: zl.Engine) -> None:
    other = zl.compile(model, (x,), threads=np.int64(2))
    assert type(other.threads) is int and torch.equal(other(x), engine(x))
    assert other.profile(np.int32(1)).rows


@pytest.mark.parametrize("winograd", ["no", "yes", 0, 1, None, np.bool_(False)])
def test_winograd_is_true_or_false(model: Small, x: torch.Tensor, tmp_path: Path, winograd: object) -> None:
    message = "winograd must be True or False, got "
    refuse(CompileError, message, model, (x,), winograd=winograd)
    with pytest.raises(CompileError, match=message):
        zl.export(model, (x,), tmp_path / "net.o", winograd=winograd)
    with pytest.raises(CompileError, match=message):
        plan(model, (x,), winograd=winograd)


@pytest.mark.parametrize("rounds", [0, -1, 1.5, True, "3", None])
def test_rounds_that_make_no_sense(engine: zl.Engine, rounds: object) -> None:
    with pytest.raises(InputError, match="rounds must be an integer of at least 1, got"):
        engine.profile(rounds)


def test_options_that_do_not_exist(model: Small, x: torch.Tensor) -> None:
    refuse(CompileError, r"dtype must be one of f32; got 'bf16'", model, (x,), dtype="bf16")
    refuse(CompileError, r"tune must be one of model, measure; got 'guess'", model, (x,), tune="guess")
    refuse(CompileError, r"unknown target 'gpu': expected cpu, cpu:x86-64-v4", model, (x,), target="gpu")
    refuse(CompileError, r"unknown target 'cpu:'", model, (x,), target="cpu:")
    for target in (None, 4, ["cpu"], "x86-64-v4"):
        refuse(CompileError, "unknown target .*expected cpu, cpu:x86-64-v4", model, (x,), target=target)


def test_a_target_that_can_not_run_here(model: Small, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(CompileError, r"code for aarch64 can't run here.*to run, use target='cpu'", model, (x,), target="cpu:aarch64")
    refuse(CompileError, r"inspected here, and exported to an object file \(zl.export, ", model, (x,), target="cpu:aarch64")
    modest = {**host.cpu_features(), "avx512bw": False}
    monkeypatch.setattr(host, "cpu_features", lambda: modest)
    refuse(CompileError, r"code for x86-64-v4 can't run here.*lacks .*avx512bw.*use target='cpu'", model, (x,),
           target="cpu:x86-64-v4")


@pytest.mark.parametrize("target", ["cpu:aarch64", "cpu:x86-64-v3", "cpu:x86-64-v4"])
def test_a_plan_for_any_target(model: Small, x: torch.Tensor, target: str) -> None:
    graph, planned = plan(model, (x,), target=target)
    assert planned.isa == target.removeprefix("cpu:") and len(planned.layers) == len(graph.nodes)
    with pytest.raises(CompileError, match="dtype must be one of f32"):
        plan(model, (x,), target=target, dtype="bf16")


def test_only_what_runs_here_can_be_measured(model: Small, x: torch.Tensor) -> None:
    with pytest.raises(CompileError, match="code for aarch64 can't run here"):
        plan(model, (x,), target="cpu:aarch64", tune="measure")


# Sizes


def test_a_value_too_large_for_its_tables() -> None:
    b = Build(1, 1, 50_000, 50_000, dtype="float32")
    with pytest.raises(CompileError, match="larger than 2147483647: use a smaller batch or input"):
        compiled(b.done(b.activation(b.x, "relu")))


def test_too_little_memory() -> None:
    """A network that the system has no memory for is refused; one that fits runs afterwards."""
    b = Build(1, 64, 2000, 2000, dtype="float32")
    large = b.done(b.activation(b.conv(b.x, 64, 3, padding=(1, 1, 1, 1)), "relu"))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), hard))
    try:
        with pytest.raises(CompileError, match="not enough memory"):
            compiled(large)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    gc.collect()
    b = Build(1, 4, 5, 5, dtype="float32")
    small = compiled(b.done(b.activation(b.x, "relu")))
    np.testing.assert_array_equal(small(*(inputs := random_inputs(small.graph))), np.maximum(inputs[0], 0))


# The cache


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: machine code that other engines hold is not shared."""
    monkeypatch.setattr(cache, "_loaded", weakref.WeakValueDictionary())


@pytest.mark.usefixtures("nothing_loaded")
def test_a_cache_that_others_can_write(model: Small, x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    refuse(CacheError, r"nobody else can write, but .*/cache .*mode 0777.*chmod 700.*ZELLIGE_CACHE", model, (x,))


@pytest.mark.usefixtures("nothing_loaded")
def test_a_cache_that_can_not_be_used(model: Small, x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      engine: zl.Engine) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="compiled anew every time.*ZELLIGE_CACHE") as caught:
        anew = zl.compile(model, (x,))
    assert len([warning for warning in caught if warning.category is RuntimeWarning]) == 1
    assert torch.equal(anew(x), engine(x))


@pytest.mark.usefixtures("nothing_loaded")
def test_a_cache_of_its_own(model: Small, x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                            engine: zl.Engine) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "new" / "cache"))
    first = zl.compile(model, (x,))
    assert torch.equal(first(x), engine(x))
    assert (tmp_path / "new" / "cache").stat().st_mode & 0o777 == 0o700


# Files


def test_files_that_are_none(tmp_path: Path, engine: zl.Engine) -> None:
    path = tmp_path / "model.zlg"
    with pytest.raises(ZelligeError, match=r"can't load .*model\.zlg: No such file"):
        zl.load(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="truncated"):
        zl.load(path)
    with pytest.raises(ZelligeError, match="can't"):
        engine.save(tmp_path / "nowhere" / "model.zlg")
    with pytest.raises(ZelligeError, match="can't"):
        engine.save(tmp_path)


@pytest.mark.parametrize("path", [None, 5, ["model.zlg"]])
def test_paths_that_are_none(model: Small, x: torch.Tensor, engine: zl.Engine, path: object) -> None:
    for use in (zl.load, engine.save, lambda path: zl.export(model, (x,), path)):
        with pytest.raises(ZelligeError, match=r"expected the path of a file, as a text or a pathlib\.Path, got"):
            use(path)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_engines_are_cloned_and_saved_not_copied(engine: zl.Engine, duplicate: Callable[[zl.Engine], object]) -> None:
    with pytest.raises(ZelligeError, match=r"clone\(\) gives another one, save\(path\) a file"):
        duplicate(engine)
