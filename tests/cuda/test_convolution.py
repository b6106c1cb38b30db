"""Convolution in Triton's interpreter against float64, over shapes, windows, layouts and patterns, inside guards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import Guarded, widen_bfloat16
from test_product import FAR, FUNCTIONS, TOLERANCE

from zellige.cuda.kernels.config import Config
from zellige.cuda.operators import product
from zellige.cuda.operators.convolution import check, convolve, launch
from zellige.cuda.operators.product import ACTIVATIONS
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window, cut_convolution
from zellige.cuda.tiling.tiles import expand
from zellige.errors import CompileError, InputError

CONFIG = Config(16, 4, 3, 1)


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


def upload(weight: torch.Tensor, window: Window, tile: int = 16, group: int = 8, step: int = 16) -> ConvolutionTiles:
    """The weight's tiles; what stands behind the last step, which a kernel may load but never use, points far out of memory."""
    tiles = ConvolutionTiles.upload(weight, window, tile, group, step)
    channels = tiles.tiles.units.clone()
    channels[len(channels) - step // tiles.tiles.unit:] = FAR
    return replace(tiles, tiles=replace(tiles.tiles, units=channels))


PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def layers(draw: st.DrawFn) -> tuple[torch.Tensor, Window, tuple[int, int, int], tuple[int, int, int]]:
    """A weight that has lost rows and units of columns, its window, how to cut it, and images × height × width of an input."""
    window = Window(draw(PAIR), draw(PAIR), draw(st.tuples(st.integers(0, 2), st.integers(0, 2))), draw(PAIR))
    tile, (group, step) = draw(st.sampled_from([16, 32])), draw(st.sampled_from([(1, 16), (8, 16), (8, 32), (16, 16), (32, 16)]))
    rows, channels = draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 7, 8, 16, 20, 24, 33]))
    least = [max(1, space * (taps - 1) + 1 - 2 * pad)
             for taps, space, pad in zip(window.kernel, window.dilation, window.padding, strict=True)]
    height, width = (low + draw(st.integers(0, 5)) for low in least)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    kept = torch.rand(-(-rows // tile), -(-channels // group), *window.kernel, generator=generator)
    kept = kept < draw(st.sampled_from([0.0, 0.4, 1.0]))
    weight = torch.randn(rows, channels, *window.kernel, generator=generator)
    weight *= kept.repeat_interleave(tile, 0).repeat_interleave(group, 1)[:rows, :channels]
    weight *= torch.rand(rows, 1, 1, 1, generator=generator) < draw(st.sampled_from([0.5, 1.0]))
    sizes = (draw(st.integers(1, 3)), height, width)
    return weight.to(draw(st.sampled_from(list(TOLERANCE)))), window, (tile, group, step), sizes


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, window: Window) -> torch.Tensor:
    """By PyTorch, images × channels × height × width."""
    return torch.nn.functional.conv2d(x, weight, bias, window.stride, window.padding, window.dilation)


def laid_out(x: torch.Tensor, features: bool) -> torch.Tensor:
    """From PyTorch's order of dimensions to planes, or to channels-last."""
    return x.transpose(0, 1) if features else x.permute(0, 2, 3, 1)


Drawn = tuple[torch.Tensor, Window, tuple[int, int, int], tuple[int, int, int]]


def check_one(layer: Drawn, x_features: bool, y_features: bool, with_bias: bool, with_residual: bool, activation: str,
              config: Config) -> None:
    weight, window, sizes, (images, height, width) = layer
    rows, channels = weight.shape[:2]
    generator = torch.Generator().manual_seed(rows)
    result = (images, rows, *window.output(height, width))
    x, bias, residual = (torch.randn(*shape, generator=generator).to(weight.dtype)
                         for shape in ((images, channels, height, width), (rows,), result))
    reference = dense(x.double(), weight.double(), bias.double() * with_bias, window) + with_residual * residual.double()
    reference = FUNCTIONS[activation](reference)

    inputs = Guarded(tuple(laid_out(x, x_features).shape), weight.dtype, planes=x_features)
    addends, results = (Guarded(tuple(laid_out(residual, y_features).shape), weight.dtype, planes=y_features) for _ in range(2))
    arguments = (inputs.filled(laid_out(x, x_features)), bias if with_bias else None,
                 addends.filled(laid_out(residual, y_features)) if with_residual else None, activation, x_features, y_features)
    tiles = upload(weight, window, *sizes)
    check(tiles, *arguments)
    launch(tiles, arguments[0], results.inside, *arguments[1:], config)

    y, wanted = results.inside.double(), laid_out(reference, y_features)
    scale = dense(x.double().abs(), weight.double().abs(), None, window).max() + 4
    assert (y - wanted).abs().le(TOLERANCE[weight.dtype] * wanted.abs() + 1e-6 * scale).all()
    assert inputs.untouched() and addends.untouched() and results.untouched()


CONFIGS = st.sampled_from([CONFIG, Config(32, 4, 3, 2, boxes=True)])


@settings(max_examples=15)
@given(layers(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from(ACTIVATIONS), CONFIGS)
def test_convolution(layer: Drawn, x_features: bool, y_features: bool, with_bias: bool, with_residual: bool, activation: str,
                     config: Config) -> None:
    check_one(layer, x_features, y_features, with_bias, with_residual, activation, config)


@pytest.mark.full
@settings(max_examples=300)
@given(layers(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from(ACTIVATIONS), CONFIGS)
def test_many_convolutions(layer: Drawn, x_features: bool, y_features: bool, with_bias: bool, with_residual: bool, activation: str,
                           config: Config) -> None:
    check_one(layer, x_features, y_features, with_bias, with_residual, activation, config)


@pytest.mark.parametrize("window, sizes", [
    (Window((1, 1)), (1, 1, 1)), (Window((3, 3), padding=(1, 1)), (1, 1, 1)), (Window((1, 1), stride=(2, 2)), (2, 5, 4)),
    (Window((3, 3), stride=(2, 3), padding=(1, 0), dilation=(2, 1)), (2, 7, 6)),
])
@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_awkward_ones(window: Window, sizes: tuple[int, int, int], kept: float) -> None:
    """One pixel, 1×1 with and without strides, all tiles empty, all full."""
    weight = (torch.randn(19, 20, *window.kernel) * kept).half()
    for features, group in ((False, 8), (True, 1)):
        check_one((weight, window, (16, group, 16), sizes), features, features, True, True, "relu", CONFIG)


@given(layers())
def test_the_cut_holds_the_weight(layer: Drawn) -> None:
    """Its columns say by themselves which tap and which channel they are."""
    weight, window, sizes, _ = layer
    tiles = cut_convolution(weight, window, *sizes)
    matrix = torch.from_numpy(expand(tiles)).reshape(len(weight), *window.kernel, -1)
    assert torch.equal(matrix[..., :weight.shape[1]].permute(0, 3, 1, 2), weight.float())
    assert not matrix[..., weight.shape[1]:].any()
    taps = ConvolutionTiles.upload(weight, window, *sizes).taps
    downs, rights = (set(range(0, taps * space, space)) for taps, space in zip(window.kernel, window.dilation, strict=True))
    assert {int(tap) >> 16 for tap in taps} <= downs and {int(tap) & 0xFFFF for tap in taps} <= rights


def test_parts_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_places", lambda *_: 16)
    weight, window = torch.randn(16, 40, 3, 3).half(), Window((3, 3), padding=(1, 1))
    tiles, x = upload(weight, window), torch.randn(1, 40, 3, 3).half()
    assert (product.pieces_for(tiles.tiles, 9, CONFIG)[0][:, 4] > 1).all()
    y = convolve(tiles, laid_out(x, False).contiguous(), config=CONFIG)
    np.testing.assert_allclose(laid_out(dense(x.double(), weight.double(), None, window), False), y, rtol=2e-3, atol=2e-2)


def test_a_part_of_the_channels_is_read_where_it_lies() -> None:
    weight, window = torch.randn(16, 24, 3, 3).half(), Window((3, 3))
    whole = torch.randn(2, 5, 4, 64).half()
    y = convolve(upload(weight, window), whole[..., 16:40], config=CONFIG)
    assert torch.equal(y, convolve(upload(weight, window), whole[..., 16:40].contiguous(), config=CONFIG))


def arguments() -> tuple[object, ...]:
    tiles = upload(torch.randn(20, 12, 3, 3).half(), Window((3, 3)))
    return (torch.randn(2, 4, 5, 12).half(), tiles.tiles.values, tiles.tiles.units, tiles.taps, tiles.tiles.rows, None, None,
            list(tiles.tiles.starts), [20, 12, 8, 0], tiles.window.numbers(), "relu", False, False, CONFIG.numbers())


def test_operator() -> None:
    torch.library.opcheck(torch.ops.zellige.tile_convolution, arguments(), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("change, said", [
    ({"x": torch.ones(2, 4, 5, 11).half()}, "height × width × 12 channels"), ({"x": torch.ones(2, 4, 5, 12)}, "float32"),
    ({"x": torch.ones(2, 12, 4, 5).half().permute(0, 2, 3, 1)}, "contiguous"), ({"bias": torch.ones(21).half()}, "bias must be"),
    ({"x": torch.ones(2, 2, 5, 12).half()}, "does not fit"), ({"activation": "tanh"}, "'tanh'"),
    ({"residual": torch.ones(2, 4, 5, 20).half()}, "residual must be"),
    ({"x": torch.ones(1, 1, 1, 1).half().expand(2**14, 2**10, 2**10, 12)}, "pixels of x"),
])
def test_refusals(change: dict[str, object], said: str) -> None:
    given = {"x": torch.ones(2, 4, 5, 12).half(), **change}
    with pytest.raises(InputError, match=said):
        convolve(upload(torch.randn(20, 12, 3, 3).half(), Window((3, 3))), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape, window", [((4, 4, 3), Window((3, 3))), ((4, 4, 3, 3), Window((3, 1))),
                                           ((4, 4, 3, 3), Window((3, 3), stride=(0, 1))),
                                           ((4, 4, 3, 3), Window((3, 3), dilation=(1, 1 << 15)))])
def test_windows_that_are_none(shape: tuple[int, ...], window: Window) -> None:
    with pytest.raises(CompileError):
        cut_convolution(torch.ones(shape), window)
