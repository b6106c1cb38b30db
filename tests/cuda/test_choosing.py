"""The race of ways: everybody who promises a gain runs, the fastest is kept, and what is known is not timed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_kernel import emulated, emulated_convolution, needs_compiler
from torch.nn import functional

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers import choosing, linear, training, vectors
from zellige.cuda.layers import convolution as convolution_layer
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.choosing import BLOCKS, BY_BLOCKS, PAIRED, TWO_FOUR
from zellige.cuda.layers.convolution import choose_convolution
from zellige.cuda.operators.block_product import KERNELS, BlockKernel, kernels
from zellige.cuda.operators.tile_vector_wise import ELSEWHERE
from zellige.cuda.tiling.compressed_blocks import is_compressed
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import is_paired
from zellige.cuda.tiling.tiles import cut_tiles
from zellige.cuda.tiling.vector_tiles import VectorTiles, least_work
from zellige.errors import CompileError
from zellige.patterns import NM, TileVectorWise, TileWise, Unstructured

CONFIGS = [Config(16, 4, 3, 1), Config(32, 4, 3, 1)]


class Clock:
    """Instead of a GPU's: every contestant runs once, and takes what ``seconds`` says of its way."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: Mapping[str, float], capability: int = 80):
        self.seconds, self.answers, self.fail = seconds, {}, ""  # type: ignore[var-annotated]
        patch.setattr(choosing, "fastest", self.fastest)
        patch.setattr(choosing, "repeated", lambda call, inputs: [call(x) for x in inputs])
        for room in (linear, convolution_layer):
            patch.setattr(room, "capability_of", lambda device: capability)
        for room in (linear, convolution_layer, training):
            patch.setattr(room, "check_timeable", lambda weight, dimensions: None)
            patch.setattr(room, "configurations", lambda device, tile, step, tokens: CONFIGS)
            patch.setattr(room, "key_of", lambda weight, tile, step, cuts, *about: f"{list(weight.shape)} {sorted(cuts)} {about}")

    def fastest(self, contestants: Mapping[Any, Callable[[], list[torch.Tensor]]], check: Callable[[torch.Tensor], None],
                ) -> tuple[dict[Any, float], dict[Any, str]]:
        self.answers = {name: prepare() for name, prepare in contestants.items()}
        for answers in self.answers.values():
            check(answers[0])
        times = {name: self.seconds[name[0]] * (1 + (name[1] == CONFIGS[1])) for name in contestants if name[0] != self.fail}
        return dict(sorted(times.items(), key=lambda pair: pair[1])), {name: "it fell" for name in contestants if name not in times}


SPARSE = torch.randn(16, 64, generator=torch.Generator().manual_seed(0)) * (torch.arange(64) % 32 < 8)


@pytest.mark.parametrize("convolved", [False, True])
def test_all_ways_run_and_the_fastest_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, convolved: bool) -> None:
    clock, cache = Clock(monkeypatch, {"dense": 3e-4, "groups": 1e-4, "columns": 2e-4}), ChoiceCache(tmp_path / "choices")
    monkeypatch.setattr(choosing, "MOST_INPUTS", 2)

    def choose() -> Choice:
        if convolved:
            return choose_convolution(SPARSE.half()[:, :, None, None], Window((1, 1)), (1, 2, 3), cache, tile=16, step=16)
        return linear.choose(SPARSE.half(), 6, cache, tile=16, step=16)

    choice = choose()
    assert choice == Choice("groups", CONFIGS[0], 1e-4, 3e-4, size=(1, 2, 3) if convolved else (6,))
    assert set(clock.answers) == {("dense", None), *((way, config) for way in ("groups", "columns") for config in CONFIGS)}
    for answers in clock.answers.values():
        for answer, dense in zip(answers, clock.answers["dense", None], strict=True):
            torch.testing.assert_close(answer, dense, rtol=4e-3, atol=4e-3)
    clock.answers = {}
    assert choose() == choice and not clock.answers
    for room in (linear, convolution_layer):
        monkeypatch.setattr(room, "configurations", lambda device, tile, step, tokens: CONFIGS[1:])
    again = choose()
    assert clock.answers and (again.way, again.config) == ("groups", CONFIGS[1])  # what nobody offers any more is not believed


def test_training_races_whole_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the ways that have a backward pass; what is chosen for a step is not what is chosen for a product."""
    clock, cache = Clock(monkeypatch, {"dense": 3e-4, "groups": 4e-4, "columns": 2e-4}), ChoiceCache(tmp_path / "choices")
    monkeypatch.setattr(choosing, "MOST_INPUTS", 2)
    choice = training.choose_for_training(SPARSE.half(), 6, cache, tile=16, step=16)
    assert choice == Choice("columns", CONFIGS[0], 2e-4, 3e-4, size=(6,))
    assert {name[0] for name in clock.answers} == {"dense", "groups", "columns"}
    for answers in clock.answers.values():
        for answer, dense in zip(answers, clock.answers["dense", None], strict=True):
            torch.testing.assert_close(answer, dense, rtol=2e-2, atol=2e-2)  # y, rounded, goes into it once more
    assert linear.TileWiseLinear(SPARSE.half(), None, choice, 16, 16, trainable=True).choice == choice
    clock.answers = {}
    assert training.choose_for_training(SPARSE.half(), 6, cache, tile=16, step=16) == choice and not clock.answers
    assert linear.choose(SPARSE.half(), 6, cache, tile=16, step=16) == choice and clock.answers


def test_a_step_asks_for_both_gradients() -> None:
    x, weight = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
    y = functional.linear(x, weight).detach()
    torch.testing.assert_close(training.stepped(lambda leaf: functional.linear(leaf, weight), weight, x), y @ weight.detach())
    with pytest.raises(RuntimeError, match="not have been used"):
        training.stepped(lambda leaf: 2 * leaf, weight, x)


def test_dense_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, cache = Clock(monkeypatch, {"dense": 1e-4}), ChoiceCache(tmp_path / "choices")
    monkeypatch.setattr(choosing, "MOST_INPUTS", 2)
    choice = linear.choose(torch.ones(16, 64).half(), 6, cache, tile=16, step=16)
    assert replace(choice, untimed="") == Choice("dense", None, 1e-4, 1e-4, size=(6,))
    assert choice.untimed.endswith("take 100% of the multiplications: no gain expected")
    assert set(clock.answers) == {("dense", None)}
    assert linear.choose(torch.ones(16, 64).half(), 6, cache, tile=16, step=16) == choice


def test_what_fails_is_told_and_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, cache = Clock(monkeypatch, {"dense": 3e-4, "groups": 1e-4, "columns": 2e-4}), ChoiceCache(tmp_path / "choices")
    monkeypatch.setattr(choosing, "MOST_INPUTS", 2)
    clock.fail = "groups"
    choice = linear.choose(SPARSE.half(), 6, cache, tile=16, step=16)
    assert choice.way == "columns" and choice.failed == tuple(f"groups {config}: it fell" for config in CONFIGS)
    assert "did not run: groups" in linear.TileWiseLinear(SPARSE.half(), None, choice, 16, 16).extra_repr()
    clock.fail = ""
    assert linear.choose(SPARSE.half(), 6, cache, tile=16, step=16) == Choice("groups", CONFIGS[0], 1e-4, 3e-4, size=(6,))


def test_nothing_ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, cache = Clock(monkeypatch, {"dense": 1e-4}), ChoiceCache(tmp_path / "choices")
    monkeypatch.setattr(choosing, "MOST_INPUTS", 2)
    clock.fail = "dense"
    with pytest.raises(CompileError, match="the layer could not be run on the GPU in any way: dense: it fell"):
        linear.choose(torch.ones(16, 64).half(), 6, cache, tile=16, step=16)


@pytest.mark.parametrize("way", BY_BLOCKS)
def test_blocks_run_by_their_own_kernel(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On Hopper, in its own configurations; a trained layer has a backward pass, and so another kernel."""
    def multiply(weight: DeviceTiles, x: torch.Tensor, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None,
                 activation: str = "none", kernel: BlockKernel = KERNELS[0]) -> torch.Tensor:
        used.append((kernel, TWO_FOUR if is_compressed(weight) else PAIRED if is_paired(weight) else BLOCKS))
        return functional.linear(x, dense, bias) + (0 if residual is None else residual)

    used: list[tuple[BlockKernel, str]] = []
    generator = torch.Generator().manual_seed(1)
    dense = (torch.randn(128, 256, generator=generator) * (torch.arange(256) // 64 == 2)).half()
    if way == TWO_FOUR:
        dense *= torch.arange(256) % 4 % 3 == 0
    if way == PAIRED:  # each half has a block of its own
        dense = dense.roll(128, 1) + torch.cat([dense[:64], dense[64:].roll(64, 1)])
    seconds = {"dense": 4e-4, "blocks 2:4": 9e-5, "paired blocks": 8e-5, "blocks": 1e-4, "groups": 2e-4, "columns": 3e-4}
    clock, cache = Clock(monkeypatch, seconds, 90), ChoiceCache(tmp_path / "choices")
    monkeypatch.setattr(linear.block_product, "multiply", multiply)
    monkeypatch.setattr(linear.block_product, "compile_ahead", lambda dtype, two_four, paired: None)
    monkeypatch.setattr(choosing, "MOST_INPUTS", 2)
    choice = linear.choose(dense, 6, cache)
    raced = list(dict.fromkeys([BLOCKS, way]))
    assert choice == Choice(way, KERNELS[0].config, seconds[way], 4e-4, size=(6,))
    assert set(used) == {(kernel, one) for one in raced for kernel in kernels(one == TWO_FOUR)}
    assert {name[0] for name in clock.answers} == {"dense", *raced, "groups", "columns"}
    x, bias = torch.randn(3, 2, 256, generator=generator).half(), torch.ones(128).half()
    residual = torch.ones(3, 2, 128).half()
    layer, used[:] = linear.TileWiseLinear(dense, bias, choice), []
    torch.testing.assert_close(layer(x, residual), functional.linear(x, dense, bias) + residual)
    assert used == [(KERNELS[0], way)] and torch.equal(layer.matrix(), dense)
    assert ("halves" in layer.state_dict()) == (way == PAIRED)
    if way == TWO_FOUR:  # bits, which a conversion leaves as they are
        assert torch.equal(layer.bfloat16().half().matrix(), dense)
    trained, used[:] = linear.TileWiseLinear(dense, bias, choice, trainable=True), []
    y = trained(x.requires_grad_())
    y.sum().backward()
    torch.testing.assert_close(y, functional.linear(x, dense, bias), rtol=4e-3, atol=4e-3)
    assert not used and x.grad is not None and trained.values.grad is not None


@needs_compiler
@pytest.mark.parametrize("ordered", [False, True])
def test_vectors_race_where_a_weight_is_two_four(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ordered: bool) -> None:
    """On GPUs with sparse tensor cores; trained, as single columns."""
    def multiply(tiles: VectorTiles, x: torch.Tensor, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None,
                 activation: str | None = None) -> torch.Tensor:
        used.append(tiles.density)
        return emulated(ELSEWHERE, tiles, x, bias, residual, activation, x.shape[1] % 8 == 0, False, 0).contiguous()

    used: list[float] = []
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(256, 256, generator=generator)
    dense = (dense * TileVectorWise(128, 2, 4, ordered=ordered).mask(dense.abs(), 0.8)).half()
    seconds = {"dense": 4e-4, "blocks": 4e-4, "groups": 3e-4, "columns": 2e-4, "vectors": 1e-4}
    clock, cache = Clock(monkeypatch, seconds), ChoiceCache(tmp_path)
    monkeypatch.setattr(vectors.tile_vector_wise, "multiply", multiply)
    monkeypatch.setattr(choosing, "MOST_INPUTS", 2)
    choice = linear.choose(dense, 6, cache)
    assert choice == Choice("vectors", None, 1e-4, 4e-4, size=(6,)) and len(used) == 2 and used[0] < 0.4
    for answer, expected in zip(clock.answers["vectors", None], clock.answers["dense", None], strict=True):
        torch.testing.assert_close(answer, expected, rtol=4e-3, atol=4e-3)
    clock.answers = {}
    assert linear.choose(dense, 6, cache) == choice and not clock.answers
    x, bias = torch.randn(2, 4, 256, generator=generator).half(), torch.randn(256, generator=generator).half()
    residual = torch.randn(2, 4, 256, generator=generator).half()
    layer, expected = linear.TileWiseLinear(dense, bias, choice), functional.linear(x.double(), dense.double(), bias.double())
    torch.testing.assert_close(layer(x, residual).double(), expected + residual.double(), rtol=4e-3, atol=4e-3)
    assert {name for name, _ in layer.named_buffers()} == {"bias", "rows", "starts", "lists", "images"}
    assert torch.equal(layer.matrix(), dense)
    trained, used[:] = linear.TileWiseLinear(dense, bias, choice, trainable=True), []
    trained(x).sum().backward()
    torch.testing.assert_close(trained(x).double(), expected, rtol=4e-3, atol=4e-3)
    assert not used and trained.values.grad is not None


def test_where_vectors_do_not_race() -> None:
    """Not on older GPUs, in other tiles, without 2:4, or where little is left out."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(256, 256, generator=generator)
    pruned = [(weight * pattern.mask(weight.abs(), sparsity)).half() for pattern, sparsity in
              ((TileVectorWise(128, 2, 4), 0.8), (TileWise(128), 0.8), (Unstructured(), 0.5), (NM(2, 4), 0.5))]

    def race(weight: torch.Tensor, tile: int = 128, capability: int = 80) -> bool:
        least = min(1.0, cut_tiles(weight.float().numpy(), tile, 1, 64).work)
        promising = vectors.promising(least_work(weight), least, tile, 64, capability)
        return promising and vectors.worth_timing(vectors.packed(weight), least)

    assert [race(weight) for weight in pruned] == [True, False, False, True]
    assert not race(pruned[0], tile=64) and not race(pruned[0], capability=75)
    assert race(pruned[0], capability=90) and not race(pruned[3], capability=90)  # which gathers all columns


def test_convolutions_in_blocks_run_by_their_own_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a tensor map can hold the window."""
    def convolve(weight: ConvolutionTiles, x: torch.Tensor, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None,
                 activation: str = "none", kernel: BlockKernel = KERNELS[0]) -> torch.Tensor:
        assert weight.tiles.unit == 64 and x.is_contiguous()
        used.append(kernel)
        y = functional.conv2d(x.permute(0, 3, 1, 2), dense, bias, weight.window.stride, weight.window.padding).permute(0, 2, 3, 1)
        return y if residual is None else y + residual

    used: list[BlockKernel] = []
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(128, 128, 3, 3, generator=generator) * (torch.arange(9).view(3, 3) == 4)
    dense = dense.half()
    clock, cache = Clock(monkeypatch, {"dense": 4e-4, "blocks": 1e-4, "groups": 2e-4, "columns": 3e-4}, 90), ChoiceCache(tmp_path)
    monkeypatch.setattr(convolution_layer.block_convolution, "convolve", convolve)
    monkeypatch.setattr(convolution_layer.block_convolution, "compile_ahead", lambda window, dtype, two_four, paired: None)
    monkeypatch.setattr(choosing, "MOST_INPUTS", 1)
    window = Window((3, 3), stride=(2, 1), padding=(1, 1))
    choice = choose_convolution(dense, window, (1, 5, 4), cache)
    assert choice == Choice("blocks", KERNELS[0].config, 1e-4, 4e-4, size=(1, 5, 4)) and set(used) == set(KERNELS)
    x, residual = torch.randn(1, 128, 5, 4, generator=generator).half(), torch.ones(1, 128, 3, 4).half()
    layer, used[:] = convolution_layer.TileWiseConv2d(dense, None, window, choice), []
    torch.testing.assert_close(layer(x, residual), functional.conv2d(x, dense, None, (2, 1), (1, 1)) + residual)
    assert used == [KERNELS[0]]
    assert {name[0] for name in clock.answers} == {"dense", "blocks", "groups", "columns"}
    choose_convolution(dense, Window((3, 3), stride=(9, 1), padding=(1, 1)), (1, 5, 4), cache)
    assert {name[0] for name in clock.answers} == {"dense", "groups", "columns"}


@needs_compiler
def test_convolutions_in_paired_blocks_run_by_their_own_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Halves have channels of their own under each tap. They race with whole blocks; the layer runs on the emulated GPU."""
    def noted(weight: ConvolutionTiles, x: torch.Tensor, *_: None, kernel: BlockKernel) -> torch.Tensor:
        raced.append(is_paired(weight.tiles))
        return functional.conv2d(x.permute(0, 3, 1, 2), dense, None, window.stride, window.padding).permute(0, 2, 3, 1)

    def convolve(weight: ConvolutionTiles, x: torch.Tensor, *_: None, kernel: BlockKernel) -> torch.Tensor:
        return emulated_convolution(BlockKernel(128, 2, 1), weight, x, None, None, "none", True, 5)

    raced: list[bool] = []
    generator = torch.Generator().manual_seed(1)
    kept = torch.rand(3, 2, 2, 1, generator=generator) < 0.5
    dense = torch.randn(192, 128, 2, 1, generator=generator).mul(kept.repeat_interleave(64, 0).repeat_interleave(64, 1)).half()
    seconds = {"dense": 4e-4, "blocks": 2e-4, "paired blocks": 1e-4, "groups": 3e-4, "columns": 3e-4}
    clock, window = Clock(monkeypatch, seconds, 90), Window((2, 1), stride=(1, 2), padding=(1, 0))
    monkeypatch.setattr(convolution_layer.block_convolution, "convolve", noted)
    monkeypatch.setattr(convolution_layer.block_convolution, "compile_ahead", lambda window, dtype, two_four, paired: None)
    monkeypatch.setattr(choosing, "MOST_INPUTS", 1)
    choice = choose_convolution(dense, window, (1, 5, 4), ChoiceCache(tmp_path))
    assert choice == Choice(PAIRED, KERNELS[0].config, 1e-4, 4e-4, size=(1, 5, 4)) and set(raced) == {False, True}
    assert {name[0] for name in clock.answers} == {"dense", "blocks", "paired blocks", "groups", "columns"}
    x = torch.randn(2, 128, 5, 4, generator=generator).half()
    monkeypatch.setattr(convolution_layer.block_convolution, "convolve", convolve)
    layer = convolution_layer.TileWiseConv2d(dense, None, window, choice)
    expected = functional.conv2d(x.double(), dense.double(), None, (1, 2), (1, 0))
    torch.testing.assert_close(layer(x).double(), expected, rtol=4e-3, atol=4e-3)
