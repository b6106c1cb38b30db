"""The layer answers like ``torch.nn.functional.linear`` by every way, and PyTorch exports and compiles it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from interpreter import widen_bfloat16

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.linear import TileWiseLinear, choose
from zellige.cuda.tiling.outlook import outlooks
from zellige.errors import CompileError, InputError

CONFIG = Config(16, 4, 3, 1)


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


def layer(way: str) -> tuple[TileWiseLinear, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 72, generator=generator) * (torch.rand(1, 72, generator=generator) < 0.4)
    weight, bias = weight.half(), torch.randn(40, generator=generator).half()
    return TileWiseLinear(weight, bias, Choice(way, None if way == "dense" else CONFIG, 1.0, 1.0), tile=16, step=16), weight, bias


@pytest.mark.parametrize("way", ["dense", "groups", "columns"])
def test_every_way(way: str) -> None:
    module, weight, bias = layer(way)
    x, residual = torch.randn(2, 3, 72).half(), torch.randn(2, 3, 40).half()
    reference = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(module(x).double(), reference, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(module(x, residual).double(), reference + residual.double(), rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("way", ["dense", "groups", "columns"])
@pytest.mark.parametrize("x, residual, said", [
    (torch.zeros(3, 72).half(), torch.zeros(40, 3).half(), r"residual must be \[3, 40\]"),
    (torch.zeros(2, 3, 72).half(), torch.zeros(6, 40).half(), r"residual must be \[2, 3, 40\]"),
    (torch.zeros(3, 72).half(), torch.zeros(40).half(), r"not \[40\]"), (torch.zeros(3, 72).half(), torch.zeros(3, 40), "float32"),
    (torch.zeros(3, 36).half(), None, r"x must be \[3, 72\]"), (torch.zeros(72, 3).half(), None, r"not \[72, 3\]"),
    (torch.tensor(1.0).half(), None, r"x must be \[72\]"), (torch.zeros(3, 72), None, "not .* of torch.float32"),
    (torch.zeros(3, 72, dtype=torch.half, device="meta"), None, "on meta"),
])
def test_what_does_not_fit(way: str, x: torch.Tensor, residual: torch.Tensor | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        layer(way)[0](x, residual)


def test_what_it_was_timed_with_is_said() -> None:
    module = TileWiseLinear(torch.ones(16, 16).half(), None, Choice("dense", None, 1.0, 1.5, size=(4096,)))
    assert module.extra_repr() == "rows=16, dense, 1.50× dense when timed with 4096 tokens"


@pytest.mark.parametrize("way", ["groups", "columns"])
def test_export(way: str) -> None:
    module, *_ = layer(way)
    x = torch.randn(5, 72).half()
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), module(x))
    traced = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.equal(traced(x), module(x))


def test_only_the_winner_is_kept() -> None:
    assert {name for name, _ in layer("dense")[0].named_buffers()} == {"bias", "weight"}
    assert {name for name, _ in layer("groups")[0].named_buffers()} == {"bias", "values", "units", "rows"}


def test_without_a_gpu_nothing_is_timed() -> None:
    with pytest.raises(CompileError, match="on a GPU"):
        choose(torch.ones(16, 16).half(), 5)


def test_outlooks() -> None:
    """8×8 blocks drawn evenly leave tiles of 128 rows nearly whole; blocks as tall as a tile lose nothing."""
    generator = np.random.default_rng(0)
    small = np.kron(generator.random((32, 32)) < 0.5, np.ones((8, 8)))
    assert outlooks(small, [(128, 8, 64, False)])[0].gain < 1 and "no gain" in str(outlooks(small, [(128, 8, 64, False)])[0])
    tall = np.kron(np.eye(2), np.ones((128, 128)))
    best = outlooks(tall)[0]
    assert (best.tile, best.group, best.work) == (128, 64, 0.5)
