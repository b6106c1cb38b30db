"""Prices without a GPU: a clock that is told what everything takes stands for it, and calls are made once by the interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from device_networks import network
from test_network import assert_right

import zellige as zl
from zellige.cuda import engine as engines
from zellige.cuda.engine import CudaEngine
from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.layers import vectors
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.choosing import BLOCKS, PAIRED, TWO_FOUR
from zellige.cuda.network import modules, prices, whole
from zellige.cuda.network import vectors as network_vectors
from zellige.cuda.network.capture import Direct
from zellige.cuda.network.layers import FEATURES, TOKENS, Convolution, Linear, Norm
from zellige.cuda.network.layouts import PAIRS, Decision
from zellige.cuda.network.network import _reason
from zellige.cuda.network.prices import MeasuredPrices
from zellige.cuda.operators import tile_vector_wise
from zellige.cuda.operators.block_product import KERNELS
from zellige.cuda.tiling.convolution_tiles import Window
from zellige.cuda.tiling.vector_tiles import vector_weight
from zellige.errors import CompileError, UnsupportedModelError, ZelligeError
from zellige.patterns import NM, TileVectorWise, TileWise, Unstructured
from zellige.patterns.pattern import Pattern

CPU = torch.device("cpu")


class Once:
    """Calls that would be captured: the first is made."""

    def __init__(self, calls: list[Callable[[], torch.Tensor]]) -> None:
        self.result = calls[0]()


class Clock:
    """In place of ``fastest``: ``seconds`` by the name of a way; what was raced is counted."""

    def __init__(self, seconds: Mapping[str, float], fail: str = "") -> None:
        self.seconds, self.fail = seconds, fail
        self.races: Counter[tuple[Hashable, ...]] = Counter()

    def __call__(self, contestants: Mapping[Any, Callable[[], Once]], check: Callable[[torch.Tensor], None] | None = None,
                 ) -> tuple[dict[Any, float], dict[Any, str]]:
        self.races[tuple(contestants)] += 1
        names = {one: one[0] if isinstance(one, tuple) else one for one in contestants}
        times = {}
        for one, prepare in contestants.items():
            if names[one] != self.fail:
                contestant = prepare()
                if check is not None:
                    check(contestant.result)
                times[one] = self.seconds.get(names[one], 1.0)
        return dict(sorted(times.items(), key=lambda pair: pair[1])), {one: "it fell" for one in contestants if one not in times}


def relu_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
                     window: Window) -> torch.Tensor:
    """In place of cuDNN's."""
    y = torch.nn.functional.conv2d(x, weight, bias, window.stride, window.padding, window.dilation)
    return torch.relu(y if residual is None else y + residual)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    found = Clock({"columns": 0.5, "groups": 0.7})
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.cuda, "device", lambda *_: nullcontext())
    monkeypatch.setattr(prices, "fastest", found)
    monkeypatch.setattr(prices, "Repeated", Once)
    monkeypatch.setattr(prices, "ROTATED_BYTES", 1)
    monkeypatch.setattr(prices, "candidates", lambda *_: [Config(16, 4, 3, 1)])
    monkeypatch.setattr(prices, "TILE", 16)
    monkeypatch.setattr(prices, "STEP", 16)
    monkeypatch.setattr(modules.fused_convolution, "convolve", relu_convolution)
    monkeypatch.setattr(engines, "find_gpu", lambda: CPU)
    monkeypatch.setattr(engines, "Captured", Direct)
    return found


def linear(seed: int = 0, density: float = 0.4) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(32, 64, generator=generator) * (torch.rand(1, 64, generator=generator).argsort() < round(density * 64))
    return Linear((f"layer {seed}",), (weight,), torch.zeros(32), "none", weight.numel())


def test_compiled_by_the_clock(clock: Clock, tmp_path: Path) -> None:
    """The whole way of ``zl.compile``; compiled again, nothing is timed anew."""
    model, inputs = network("encoder")
    engine = zl.compile(model, inputs, target="cuda", dtype="f16")
    assert isinstance(engine, CudaEngine) and engine.compile_seconds > 0
    assert_right(engine, model, inputs, torch.float16)
    assert {layer.path.split(",")[0] for layer in engine.layers if layer.op == "linear"} <= {"columns", "groups", "dense"}
    raced = sum(clock.races.values())
    assert raced > 10
    again = zl.compile(model, inputs, target="cuda", dtype="f16")
    assert sum(clock.races.values()) == raced and [one.path for one in again.layers] == [one.path for one in engine.layers]


def test_alike_is_timed_once(clock: Clock) -> None:
    found = MeasuredPrices(CPU, torch.float16)
    one, other = (found.layer(linear(seed), 8, False, (FEATURES, TOKENS)) for seed in (0, 1))
    assert one == other and one is not None and one.way == "columns" and clock.races.total() == 1
    found.layer(linear(0), 8, True, (FEATURES, TOKENS))
    found.layer(linear(0), 9, False, (FEATURES, TOKENS))
    found.layer(linear(0, density=0.2), 8, False, (FEATURES, TOKENS))
    assert clock.races.total() == 4


def test_a_configuration_of_another_day_is_timed_anew(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    MeasuredPrices(CPU, torch.float16).layer(linear(), 8, False, (FEATURES, TOKENS))
    monkeypatch.setattr(prices, "candidates", lambda *_: [Config(16, 4, 2, 1)])
    choice = MeasuredPrices(CPU, torch.float16).layer(linear(), 8, False, (FEATURES, TOKENS))
    assert clock.races.total() == 2 and choice is not None and choice.config == Config(16, 4, 2, 1)


def test_dense_is_in_every_race(clock: Clock) -> None:
    found = MeasuredPrices(CPU, torch.float16)
    for pair in PAIRS:
        found.layer(linear(), 8, False, pair)
        found.layer(linear(density=1.0), 8, False, pair)
    assert all(next(iter(race)) == ("dense", None) for race in clock.races)
    clock.seconds = {"dense": 0.1, "columns": 0.5}
    choice = MeasuredPrices(CPU, torch.float16, ChoiceCache(Path(found.cache.kept.directory).parent / "other")).layer(
        linear(), 8, False, (FEATURES, FEATURES))
    assert choice is not None and (choice.way, choice.seconds, choice.dense_seconds) == ("dense", 0.1, 0.1)


def test_finer_tiles_are_timed_where_they_take_clearly_less(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight in blocks as wide as a step: on Hopper the kernel of blocks runs alone, elsewhere no tiles of single columns do."""
    weight = torch.randn(256, 256) * (torch.arange(256) % 128 < 64)
    layer = Linear(("layer",), (weight,), torch.zeros(256), "none", weight.numel())
    monkeypatch.setattr(prices, "TILE", 128)
    monkeypatch.setattr(prices, "STEP", 64)
    found = MeasuredPrices(CPU, torch.bfloat16)
    assert set(found._able(layer, 64)) == {"steps"}
    found.capability = 90
    assert {way: len(configs) for way, configs in found._able(layer, 64).items()} == {BLOCKS: len(KERNELS)}
    finer = weight * (torch.arange(256) % 8 < 4)
    assert set(found._able(Linear(("layer",), (finer,), None, "none", finer.numel()), 64)) == {BLOCKS, "columns"}
    halved = weight * (torch.arange(256) % 2 == 0)
    assert set(found._able(Linear(("layer",), (halved,), None, "none", halved.numel()), 64)) == {TWO_FOUR, BLOCKS, "columns"}


def test_paired_blocks_are_timed_where_whole_ones_leave_clearly_more(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Hopper alone; and a choice is kept under what they multiply and what they read."""
    monkeypatch.setattr(prices, "TILE", 128)
    monkeypatch.setattr(prices, "STEP", 64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    found = MeasuredPrices(CPU, torch.bfloat16)

    def layer(*halves: str) -> Linear:
        grid = torch.tensor([[float(mark == "x") for mark in half] for half in halves])
        weight = grid.repeat_interleave(64, 0).repeat_interleave(64, 1)
        return Linear(("layer",), (weight,), None, "none", weight.numel())

    alike, apart = layer("xx......", "xx......", "..xx....", "..xx...."), layer("xx......", "..xx....", "....xx..", "......xx")
    assert set(found._able(alike, 64)) == {BLOCKS} and set(found._able(apart, 64)) == {BLOCKS, PAIRED}
    assert f"('{PAIRED}', 8, True, (4, 4, 4, 4, 4), 16)" in found._key(apart, 64, False, (TOKENS, TOKENS))
    found.capability = 80
    assert PAIRED not in found._cut(layer("xx......", "..xx...."))


def two_four(pattern: Pattern, sparsity: float, seed: int = 0) -> Linear:
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(seed))
    weight *= pattern.mask(weight.abs(), sparsity)
    return Linear(("layer",), (weight,), None, "none", weight.numel())


@pytest.mark.parametrize("capability", [80, 90])
def test_vectors_are_timed_where_a_weight_is_two_four(capability: int, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tiles that keep few columns, features × tokens in and out; the fours of a layer are sought once, and those of one whose
    tiles gather all columns not at all."""
    monkeypatch.setattr(prices, "TILE", 128)
    monkeypatch.setattr(prices, "STEP", 64)
    monkeypatch.setattr(tile_vector_wise, "multiply", lambda tiles, x, bias, residual, activation: sought.append("multiplied") or (
        vector_weight(tiles) @ x))  # type: ignore[func-returns-value]
    sought: list[object] = []
    packed = vectors.packed
    monkeypatch.setattr(network_vectors, "packed", lambda weight: sought.append("packed") or packed(weight))  # type: ignore[func-returns-value]
    found = MeasuredPrices(CPU, torch.float16)
    found.capability = capability
    layer, alike = (two_four(TileVectorWise(128, 2, 4), 0.8, seed) for seed in (0, 1))
    assert found._able(layer, 64)["vectors"] == [None] and sought == ["packed"]
    clock.seconds = {"vectors": 0.3}
    assert [pair for pair in PAIRS if ("vectors", None) in found._ways(layer, 64, pair)] == [(FEATURES, FEATURES)]
    choice = found.layer(layer, 64, False, (FEATURES, FEATURES))
    assert choice is not None and choice.way == "vectors"
    assert sought == ["packed", "multiplied"] and "('vectors', " in found._key(layer, 64, False, (FEATURES, FEATURES))
    races = clock.races.total()
    assert found.layer(alike, 64, False, (FEATURES, FEATURES)) == choice and clock.races.total() == races
    assert sought == ["packed", "multiplied", "packed"]
    for pattern, sparsity in ((TileWise(128), 0.8), (Unstructured(), 0.75), (NM(2, 4), 0.5)):
        assert "vectors" not in found._able(two_four(pattern, sparsity), 64)
    assert len(sought) == 3


def convolution(seed: int = 0, density: float = 0.25, kernel: int = 3, activation: str = "none") -> Convolution:
    """Of 32 × 64 filters, channels kept in eights."""
    generator = torch.Generator().manual_seed(seed)
    kept = (torch.rand(8, generator=generator).argsort() < round(8 * density)).repeat_interleave(8)
    weight = torch.randn(32, 64, kernel, kernel, generator=generator) * kept[:, None, None]
    window = Window((kernel, kernel), padding=(kernel // 2, kernel // 2))
    return Convolution((f"convolution {seed}",), weight, None, window, 4, 5, activation)


def test_convolutions_race_in_one_order(clock: Clock) -> None:
    """Against cuDNN, where the tiles leave something out; once for all that are alike."""
    found = MeasuredPrices(CPU, torch.float16)
    choices = {pair: found.layer(convolution(), 40, False, pair) for pair in PAIRS}
    assert {pair for pair, choice in choices.items() if choice is not None} == {(TOKENS, TOKENS)}
    choice = choices[TOKENS, TOKENS]
    assert choice is not None and (choice.way, choice.seconds, choice.dense_seconds) == ("groups", 0.7, 1.0)
    assert list(clock.races) == [(("dense", None), ("groups", Config(16, 4, 3, 1)))]
    assert found.layer(convolution(1), 40, False, (TOKENS, TOKENS)) == choice and clock.races.total() == 1
    found.layer(convolution(activation="relu"), 40, True, (TOKENS, TOKENS))
    found.layer(convolution(), 80, False, (TOKENS, TOKENS))
    assert clock.races.total() == 3
    dense = found.layer(convolution(density=1.0), 40, False, (TOKENS, TOKENS))
    assert dense is not None and dense.way == "dense" and clock.races[(("dense", None),)] == 1


def test_the_best_way_without_tiles(clock: Clock) -> None:
    """Of convolutions that end in ReLU it may be cuDNN's kernel with the epilogue; that is found once, and only where tiles win."""
    clock.seconds = {"groups": 0.5, "fused": 0.7}
    found = MeasuredPrices(CPU, torch.float16)
    layer = convolution(activation="relu")
    for _ in range(2):
        choice = found.layer(layer, 40, False, (TOKENS, TOKENS))
        dense = found.without_tiles(layer, 40, False)
        assert choice is not None and (choice.way, choice.dense_seconds, dense.way, dense.seconds) == ("groups", 0.7, "fused", 0.7)
        found = MeasuredPrices(CPU, torch.float16)
    assert clock.races[(("dense", None), ("fused", None))] == 1 and clock.races.total() == 2
    alone = found.without_tiles(convolution(), 40, False)
    assert (alone.way, alone.seconds) == ("dense", 1.0) and clock.races.total() == 3
    clock.seconds = {"fused": 0.2}
    assert found.without_tiles(layer, 80, False) == found.layer(layer, 80, False, (TOKENS, TOKENS)) and clock.races.total() == 4


def test_few_configurations_for_convolutions(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of a way at most; blocks from tensor maps alone where Hopper has them and the window fits."""
    for name, value in {"TILE": 128, "STEP": 64, "candidates": candidates}.items():
        monkeypatch.setattr(prices, name, value)
    found = MeasuredPrices(CPU, torch.float16)
    found.capability = 90
    weight = torch.zeros(256, 256, 3, 3)
    weight[:, :64] = 1
    layer = Convolution(("layer",), weight, None, Window((3, 3)), 9, 9, "none")
    assert {way: len(configs) for way, configs in found._able(layer, 100).items()} == {BLOCKS: len(KERNELS)}
    assert set(found._able(replace(layer, weight=weight[..., :1, :1], window=Window((1, 1))), 100)) == {BLOCKS}
    configs = found._able(replace(layer, window=Window((3, 3), (9, 9))), 100)
    assert set(configs) == {"steps"} and len(configs["steps"]) == 3 and configs["steps"][-1].tokens == 64
    few = torch.zeros(256, 100, 3, 3)
    few[:, :64] = 1
    assert set(found._able(replace(layer, weight=few), 100)) == {"steps"}


def test_what_cannot_be_had(clock: Clock) -> None:
    found = MeasuredPrices(CPU, torch.float16)
    assert found.layer(Norm(("norm",), 5000, None, None, 1e-5), 8, False, (FEATURES, FEATURES)) is None
    clock.fail = "torch"
    with pytest.raises(CompileError, match=r"norm could not be run.*it fell"):
        found.layer(Norm(("norm",), 16, None, None, 1e-5), 8, False, (TOKENS, TOKENS))


def test_what_failed_is_told_and_not_kept(clock: Clock) -> None:
    """Tiles that fell leave the layer dense for today."""
    clock.seconds, clock.fail = {"groups": 2.0}, "columns"
    model, inputs = network("encoder")
    engine = zl.compile(model, inputs, target="cuda", dtype="f16")
    told = [layer.reason for layer in engine.layers if layer.op == "linear"]
    assert any("; did not run: columns 16x4w3s/1: it fell" in reason for reason in told)
    before = clock.races.total()
    clock.fail, clock.seconds = "", {"columns": 0.5}
    again = zl.compile(model, inputs, target="cuda", dtype="f16")
    assert clock.races.total() > before and any(layer.path.startswith("columns") for layer in again.layers)
    assert not any("did not run" in layer.reason for layer in again.layers)


def in_features(choice: Choice) -> Decision:
    return Decision(FEATURES, TOKENS, choice)


def test_what_is_not_timed_says_why(clock: Clock) -> None:
    found = MeasuredPrices(CPU, torch.float16)
    for _ in range(2):  # from the race, and from what was kept of it
        dense = found.layer(linear(density=1.0), 8, False, (FEATURES, TOKENS))
        assert dense is not None and (dense.way, dense.failed) == ("dense", ())
        assert dense.untimed.startswith("not timed: tiles of 16 clustered rows × groups of")
        assert dense.untimed.endswith("take 100% of the multiplications: no gain expected")
        reason = _reason(in_features(dense))
        assert "100%" in reason and "no way through tiles was faster" not in reason
    clock.seconds = {"columns": 2.0}
    slow = found.layer(linear(), 8, False, (FEATURES, TOKENS))
    assert slow is not None and not slow.untimed and "no way through tiles was faster" in _reason(in_features(slow))


def test_memory_that_runs_out(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error, and the model compiles again afterwards."""
    model, inputs = network("encoder")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "lower", full)
        with pytest.raises(CompileError, match=r"not enough memory .* for Encoder: CUDA out of memory. Use a smaller batch"):
            zl.compile(model, inputs, target="cuda", dtype="f16")
    engine = zl.compile(model, inputs, target="cuda", dtype="f16")
    assert isinstance(engine, CudaEngine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Direct, "run", full)
        with pytest.raises(ZelligeError, match="not enough memory on cpu for the results of Encoder"):
            engine(*inputs)
        patch.setattr(Direct, "__init__", full)
        with pytest.raises(ZelligeError, match="not enough memory on cpu for one more engine of Encoder"):
            engine.clone()
    assert engine(*inputs).shape == engine.clone()(*inputs).shape


def test_an_operator_that_fails_on_the_gpu(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is neither parameter nor buffer keeps its type when the model is converted."""
    class Warmed(Direct):
        def __init__(self, module: Any, inputs: Any) -> None:
            super().__init__(module, inputs)
            self.run(self.inputs)

    class Held(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.held = torch.nn.Linear(32, 32), torch.ones(32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(x * self.held)

    monkeypatch.setattr(engines, "Captured", Warmed)
    with pytest.raises(CompileError, match=r"Held can't run on cpu in torch.float16: RuntimeError: mat1 and mat2 must have"):
        zl.compile(Held().eval(), (torch.ones(4, 32),), target="cuda", dtype="f16")


def test_a_model_without_inputs() -> None:
    class Constant(torch.nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.ones(3)

    with pytest.raises(UnsupportedModelError, match="Constant takes no input"):
        engines.prepare(Constant().eval(), (), torch.float16)
