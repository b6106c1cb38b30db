"""The layer answers like ``torch.nn.functional.conv2d`` by every way, and PyTorch exports and compiles it."""

from __future__ import annotations

import pytest
import torch

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.convolution import TileWiseConv2d, choose_convolution, dense
from zellige.cuda.tiling.convolution_tiles import Window
from zellige.errors import CompileError, InputError

WINDOW = Window((3, 3), stride=(2, 1), padding=(1, 1))


def layer(way: str) -> tuple[TileWiseConv2d, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 20, 3, 3, generator=generator) * (torch.rand(1, 20, 1, 1, generator=generator) < 0.4)
    weight, bias = weight.half(), torch.randn(24, generator=generator).half()
    choice = Choice(way, None if way == "dense" else Config(16, 4, 3, 1), 1.0, 1.0)
    return TileWiseConv2d(weight, bias, WINDOW, choice, tile=16, step=16), weight, bias


@pytest.mark.parametrize("way, laid_out", [("dense", torch.contiguous_format), ("groups", torch.contiguous_format),
                                           ("groups", torch.channels_last), ("columns", torch.channels_last)])
def test_every_way(way: str, laid_out: torch.memory_format) -> None:
    module, weight, bias = layer(way)
    x = torch.randn(2, 20, 5, 4).half().to(memory_format=laid_out)
    reference = dense(weight.double(), WINDOW, x.double(), bias.double())
    residual = torch.randn(reference.shape).half()
    torch.testing.assert_close(module(x).double(), reference, rtol=2e-3, atol=8e-3)
    torch.testing.assert_close(module(x, residual).double(), reference + residual.double(), rtol=4e-3, atol=8e-3)
    assert way == "dense" or module(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", ["dense", "groups", "columns"])
@pytest.mark.parametrize("x, residual, said", [
    (torch.zeros(2, 19, 5, 4).half(), None, r"x must be \[2, 20, 5, 4\]"),
    (torch.zeros(20, 5, 4).half(), None, "images × 20 channels"),
    (torch.zeros(2, 20, 5, 4), None, "float32"), (torch.zeros(2, 20, 5, 0).half(), None, "does not fit"),
    (torch.zeros(2, 20, 5, 4).half(), torch.zeros(2, 24, 4, 3).half(), r"residual must be \[2, 24, 3, 4\]"),
    (torch.zeros(2, 20, 5, 4).half(), torch.zeros(1, 24, 3, 4).half(), r"not \[1, 24, 3, 4\]"),
])
def test_what_does_not_fit(way: str, x: torch.Tensor, residual: torch.Tensor | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        layer(way)[0](x, residual)


def test_export() -> None:
    module, *_ = layer("groups")
    x = torch.randn(1, 20, 4, 5).half()
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), module(x))
    traced = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.equal(traced(x), module(x))


def test_only_the_winner_is_kept() -> None:
    assert {name for name, _ in layer("dense")[0].named_buffers()} == {"bias", "weight"}
    assert {name for name, _ in layer("groups")[0].named_buffers()} == {"bias", "values", "units", "rows", "taps"}


def test_without_a_gpu_nothing_is_timed() -> None:
    with pytest.raises(CompileError, match="on a GPU"):
        choose_convolution(torch.ones(16, 16, 3, 3).half(), WINDOW, (1, 5, 5))
