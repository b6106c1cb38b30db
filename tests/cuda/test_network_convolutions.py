"""Convolutions in networks: found with what follows them, run by every way through the interpreter, reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from device_networks import Bottleneck
from emulated_kernel import emulated_convolution, needs_compiler
from interpreter import widen_bfloat16
from network_prices import CONFIG, RuledPrices
from test_network import CPU, assert_right, compiled

import zellige as zl
from zellige.cuda.engine import build, prepare
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.choosing import BY_BLOCKS, PAIRED, TWO_FOUR
from zellige.cuda.network import modules
from zellige.cuda.network.capture import Direct
from zellige.cuda.network.layers import TOKENS, Convolution, Layer, layer_of
from zellige.cuda.network.layouts import decide
from zellige.cuda.network.modules import ConvolutionModule
from zellige.cuda.network.network import lower
from zellige.cuda.network.prices import ways_of
from zellige.cuda.operators import block_convolution, fused_convolution
from zellige.cuda.operators.block_product import BlockKernel
from zellige.cuda.operators.convolution import convolve
from zellige.cuda.tiling.compressed_blocks import expanded, is_compressed
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window
from zellige.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


def bottleneck(pattern: str = "block:16x8") -> tuple[Bottleneck, tuple[torch.Tensor]]:
    """Pruned, but for the stem and the groups; one filter of each convolution is gone."""
    torch.manual_seed(0)
    model = Bottleneck().eval()
    zl.prune(model, pattern, 0.5, ignore=["stem", "groups"])
    with torch.no_grad():
        for layer in (model.down, model.middle, model.up, model.shortcut):
            layer.weight[3] = 0
    return model, (torch.randn(2, 3, 5, 6),)


@pytest.mark.parametrize("way, pattern, dtype", [
    ("dense", "block:16x8", torch.float16), ("groups", "tile:16", torch.float16), ("steps", "block:16x8", torch.bfloat16)])
def test_every_way(way: str, pattern: str, dtype: torch.dtype) -> None:
    model, inputs = bottleneck(pattern)
    engine = compiled(model, inputs, way, TOKENS, dtype)
    assert_right(engine, model, inputs, dtype)
    assert [layer.path for layer in engine.layers] == [f"{way}, channels-last"] * 5 + ["dense"]


@pytest.mark.parametrize("way", [*(way for way in BY_BLOCKS if way != PAIRED), pytest.param(
    PAIRED, marks=[needs_compiler, pytest.mark.full])])
def test_they_run_by_the_kernels_of_blocks(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual lies as the result does. The interpreter stands for the kernels, and where halves have blocks of their own the
    emulated GPU."""
    model, inputs = bottleneck()
    if way == TWO_FOUR:
        for layer in (model.stem, model.down, model.middle, model.up, model.shortcut):
            layer.weight.data[:, 1::4] = layer.weight.data[:, 2::4] = 0
    made: list[tuple[Window, bool]] = []

    def convolution(weight: ConvolutionTiles, x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
                    activation: str, kernel: BlockKernel) -> torch.Tensor:
        assert weight.tiles.unit == 64 and x.is_contiguous() and kernel == BlockKernel.of(CONFIG)
        assert is_compressed(weight.tiles) == (way == TWO_FOUR)
        weight = replace(weight, tiles=expanded(weight.tiles)) if way == TWO_FOUR else weight
        made.append((weight.window, residual is not None))
        if way == PAIRED:
            return emulated_convolution(BlockKernel(128, 2, 1), weight, x, bias, residual, activation, False, seed=3)
        return convolve(weight, x, bias, residual, activation, config=CONFIG)

    monkeypatch.setattr(block_convolution, "convolve", convolution)
    engine = compiled(model, inputs, way, TOKENS)
    assert_right(engine, model, inputs, torch.float16)
    assert [layer.path for layer in engine.layers] == [f"{way}, channels-last"] * 5 + ["dense"]
    assert set(made) == {(Window((1, 3), padding=(0, 1)), False), (Window((3, 3), (2, 2), (2, 2), (2, 2)), False),
                         (Window((1, 1), (2, 2)), False), (Window((1, 1)), False), (Window((1, 1)), True)}


def test_what_follows_is_fused() -> None:
    """Batch norms, the residual and activations; the sum goes to the convolution that is done last."""
    program = prepare(*bottleneck(), torch.float16)
    found = {layer.names[0]: (node, layer) for node in program.graph.nodes if isinstance(layer := layer_of(node), Convolution)}
    assert {name: (layer.activation, len(node.args)) for name, (node, layer) in found.items()} == {
        "stem": ("silu", 1), "down": ("relu", 1), "middle": ("relu", 1), "shortcut": ("none", 1), "up": ("relu", 2)}
    assert found["middle"][1].window == Window((3, 3), (2, 2), (2, 2), (2, 2))
    assert (found["middle"][1].height, found["middle"][1].width) == (5, 6)
    left = [str(node.target).split(".")[1] for node in program.graph.nodes
            if node.op == "call_function" and layer_of(node) is None]
    assert left == ["conv2d", "relu", "mean"]


def test_nothing_is_turned_between_convolutions() -> None:
    """And nobody asks what it would take."""
    program = prepare(*bottleneck(), torch.float16)

    class NoTurning(RuledPrices):
        def turning(self, features: int, tokens: int) -> float:
            raise AssertionError("an activation between convolutions has one order")

    decisions = decide(program.graph, NoTurning("groups"))
    assert {(one.reads, one.writes) for one in decisions.values()} == {(TOKENS, TOKENS)}
    module = lower(program, decisions, CPU)
    layers = [layer for layer in module.modules() if isinstance(layer, ConvolutionModule)]
    assert len(layers) == 5 and not any("transposed" in str(node.target) for node in module.graph.nodes)


def test_what_is_reported() -> None:
    model, inputs = bottleneck()
    layers = {layer.name: layer for layer in compiled(model, inputs, "groups", TOKENS).layers}
    middle, groups = layers["middle"], layers["groups"]
    assert (middle.op, middle.shape, middle.path) == ("conv2d", (2, 16, 3, 3), "groups, channels-last")
    assert middle.macs == 18 * 16 * 16 * 9 and middle.kept_macs == 18 * int(model.middle.weight.count_nonzero())
    assert middle.density == pytest.approx(middle.kept_macs / middle.macs) and "dense in these orders" in middle.reason
    assert groups.path == "dense" and "channels are in groups" in groups.reason and groups.macs == 2 * 32 * 8 * 9


def test_one_image_without_a_batch() -> None:
    """PyTorch takes it, so it stays with PyTorch."""
    torch.manual_seed(0)
    model, inputs = torch.nn.Conv2d(3, 8, 3).eval(), (torch.randn(3, 6, 5),)
    engine = compiled(model, inputs, "groups", TOKENS)
    assert_right(engine, model, inputs, torch.float16)
    assert engine.layers[0].path == "dense" and "one image" in engine.layers[0].reason


class Viewed(torch.nn.Module):
    """A map as features, by ``view``, which PyTorch's own order allows."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = torch.nn.Conv2d(8, 16, 3), torch.nn.Linear(16 * 2 * 3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.convolution(x)).view(len(x), -1))


def test_views_of_maps_that_lie_channels_last() -> None:
    torch.manual_seed(0)
    model, inputs = Viewed().eval(), (torch.randn(2, 8, 4, 5),)
    assert_right(compiled(model, inputs, "groups", TOKENS), model, inputs, torch.float16)


def test_cudnn_does_the_epilogue_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of dense convolutions that end in ReLU, where that was chosen; PyTorch's operators stand for cuDNN."""
    made: list[bool] = []

    def convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
                    window: Window) -> torch.Tensor:
        made.append(residual is not None)
        y = torch.nn.functional.conv2d(x, weight, bias, window.stride, window.padding, window.dilation)
        x, weight = x.to("meta"), weight.to("meta")
        said = torch.ops.zellige.fused_convolution(x, weight, None, None, window.numbers())
        assert said.shape == y.shape and said.is_contiguous(memory_format=torch.channels_last)
        return torch.relu(y if residual is None else y + residual)

    class Fused(RuledPrices):
        def layer(self, layer: Layer, tokens: int, residual: bool, orders: tuple[str, str]) -> Choice | None:
            ways = ways_of(layer, orders)
            return Choice(ways[-1], None, 1.0, 1.0) if ways else None

    monkeypatch.setattr(modules.fused_convolution, "convolve", convolution)
    model, inputs = bottleneck()
    engine = build(prepare(model, inputs, torch.float16), CPU, Fused(), Direct, 0.0)
    assert_right(engine, model, inputs, torch.float16)
    assert [layer.path.split(",")[0] for layer in engine.layers] == ["dense", "fused", "fused", "dense", "fused", "dense"]
    assert made.count(True) * 2 == made.count(False) > 0


def test_cudnn_wants_a_gpu() -> None:
    with pytest.raises(InputError, match="the weight is on cpu"):
        fused_convolution.convolve(torch.ones(1, 8, 4, 4), torch.ones(8, 8, 3, 3), None, None, Window((3, 3)))
