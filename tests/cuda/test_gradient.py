"""Gradients through tiles in Triton's interpreter against float64: kernels inside guards, the operator as PyTorch calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import Guarded, widen_bfloat16
from test_product import FUNCTIONS, TOLERANCE, sparse

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.linear import TileWiseLinear
from zellige.cuda.operators import gradient
from zellige.cuda.operators.product import ACTIVATIONS, multiply
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import Tiles, cut_tiles, expand
from zellige.cuda.tiling.transposed import transpose
from zellige.errors import CompileError, InputError

CONFIG = Config(16, 4, 3, 1)
Weight = tuple[torch.Tensor, tuple[int, int, int]]


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


def where_kept(tiles: Tiles) -> torch.Tensor:
    """Rows × columns: whether there is a number in the tiles, zero or not."""
    ones = np.ones_like(tiles.values)
    filled = Tiles(tiles.shape, tiles.tile, tiles.group, tiles.step, tiles.rows, tiles.starts, tiles.units, ones)
    return torch.from_numpy(expand(filled) != 0)


@given(sparse())
def test_the_transpose_fetches_what_the_weight_holds(drawn: Weight) -> None:
    weight, sizes = drawn
    tiles = cut_tiles(weight.float().numpy(), *sizes)
    there = transpose(tiles)
    fetched = np.concatenate([[0], tiles.values.ravel()])[there.values]
    swapped = Tiles(there.shape, there.tile, there.group, there.step, there.rows, there.starts, there.units, fetched)
    assert np.array_equal(expand(swapped), weight.float().numpy().T)
    places = there.values[there.values > 0]
    assert len(np.unique(places)) == len(places) == int(where_kept(tiles).sum())  # each number once, and none that only fills up


def check_values(drawn: Weight, tokens: int, x_features: bool) -> None:
    """The kernel alone, all it reads and writes between guards."""
    weight, sizes = drawn
    cut = cut_tiles(weight.float().numpy(), *sizes)
    tiles = DeviceTiles.upload(cut, "cpu", weight.dtype)
    generator = torch.Generator().manual_seed(tokens)
    dy, x = (torch.randn(size, tokens, generator=generator).to(weight.dtype) for size in weight.shape)
    outputs, inputs = Guarded(tuple(dy.shape), weight.dtype), Guarded(tuple(x.shape if x_features else x.T.shape), weight.dtype)
    around = torch.full((len(tiles.values) + 2, cut.step), float("nan"), dtype=weight.dtype)
    gradient.launch(outputs.filled(dy), inputs.filled(x if x_features else x.T), tiles.units, tiles.rows, tiles.starts, tiles.unit,
                    x_features, around[1:-1])
    assert around[0].isnan().all() and around[-1].isnan().all() and outputs.untouched() and inputs.untouched()
    found = Tiles(cut.shape, cut.tile, cut.group, cut.step, cut.rows, cut.starts, cut.units,
                  around[1:-1].double().numpy().reshape(cut.values.shape))
    reference = (dy.double() @ x.double().T) * where_kept(cut)
    scale = (dy.double().abs() @ x.double().abs().T).max() if tokens else 0.0
    error = (torch.from_numpy(expand(found)) - reference).abs()
    assert error.le(TOLERANCE[weight.dtype] * reference.abs() + 1e-6 * scale + 1e-30).all()
    filled_up = Tiles(cut.shape, cut.tile, cut.group, cut.step, cut.rows, cut.starts, cut.units, found.values != 0)
    assert int(filled_up.values.sum()) <= int(where_kept(cut).sum())  # what only fills up stays zero


@settings(max_examples=12)
@given(sparse(), st.sampled_from([1, 17, 70]), st.booleans())
def test_gradient_of_values(drawn: Weight, tokens: int, x_features: bool) -> None:
    check_values(drawn, tokens, x_features)


@pytest.mark.full
@settings(max_examples=200)
@given(sparse(), st.sampled_from([1, 2, 17, 64, 70, 1100]), st.booleans())
def test_many_gradients_of_values(drawn: Weight, tokens: int, x_features: bool) -> None:
    check_values(drawn, tokens, x_features)


def test_tokens_in_parts() -> None:
    """So many that they are cut, and their sums added up."""
    weight = torch.randn(16, 16).half()
    assert gradient.triton.cdiv(1100, gradient.TOKENS) // gradient.FEWEST_TURNS > 1
    check_values((weight, (16, 1, 16)), 1100, True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("x_features, y_features, group", [(False, False, 8), (True, True, 1), (True, False, 1)])
def test_backward(activation: str, x_features: bool, y_features: bool, group: int) -> None:
    """All gradients at once against PyTorch's own in float64, dense."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(40, 52, generator=generator) * (torch.rand(40, 1, generator=generator) < 0.8)
    weight = weight * (torch.rand(3, 7, generator=generator) < 0.6).repeat_interleave(16, 0).repeat_interleave(8, 1)[:40, :52]
    cut = cut_tiles(weight.half().float().numpy(), 16, group, 16)
    tiles = DeviceTiles.upload(cut, "cpu", torch.float16, trained=True)
    shapes = ((9, 52), (40,), (9, 40), (9, 40))
    x, bias, residual, upstream = (torch.randn(*shape, generator=generator).half() for shape in shapes)

    exact = [tensor.double().requires_grad_() for tensor in (x, weight.half(), bias, residual)]
    FUNCTIONS[activation](exact[0] @ exact[1].T + exact[2] + exact[3]).backward(upstream.double())

    leaves = [(x.T if x_features else x).contiguous().requires_grad_(), bias.clone().requires_grad_(),
              (residual.T if y_features else residual).contiguous().requires_grad_()]
    tiles.values.requires_grad_()
    y = multiply(tiles, leaves[0], leaves[1], leaves[2], activation, x_features, y_features, CONFIG)
    y.backward(upstream.T if y_features else upstream)

    def close(found: torch.Tensor | None, wanted: torch.Tensor | None, flip: bool) -> None:
        assert found is not None and wanted is not None
        # the gradient of the sums is rounded to float16, and what went into a GELU or SiLU too, before they are added up
        torch.testing.assert_close((found.T if flip else found).double(), wanted, rtol=4e-3, atol=4e-3 * float(wanted.abs().max()))

    close(leaves[0].grad, exact[0].grad, x_features)
    close(leaves[1].grad, exact[2].grad, False)
    close(leaves[2].grad, exact[3].grad, y_features)
    assert tiles.values.grad is not None and exact[1].grad is not None
    found = Tiles(cut.shape, cut.tile, cut.group, cut.step, cut.rows, cut.starts, cut.units,
                  tiles.values.grad.float().numpy().reshape(cut.values.shape))
    close(torch.from_numpy(expand(found)), exact[1].grad * where_kept(cut), False)


def test_gradients_of_x_want_the_transposed_order() -> None:
    tiles = DeviceTiles.upload(cut_tiles(np.eye(16, dtype=np.float32), 16, 1, 16), "cpu", torch.float16)
    y = multiply(tiles, torch.ones(3, 16).half().requires_grad_(), config=CONFIG)
    with pytest.raises(InputError, match="trained=True"):
        y.sum().backward()


def layer() -> TileWiseLinear:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 72, generator=generator) * (torch.rand(1, 72, generator=generator) < 0.4) / 8
    return TileWiseLinear(weight.half(), torch.zeros(40).half(), Choice("columns", CONFIG, 1.0, 1.0), 16, 16, trainable=True)


def gradients(call: Callable[[torch.Tensor], torch.Tensor], module: TileWiseLinear) -> list[torch.Tensor]:
    x = torch.linspace(-1, 1, 5 * 72).view(5, 72).half().requires_grad_()
    return list(torch.autograd.grad(call(x).float().square().sum(), [x, *module.parameters()]))


def test_compiled_training_is_the_same() -> None:
    module = layer()
    traced = torch.compile(module, backend="aot_eager", fullgraph=True)
    for found, wanted in zip(gradients(traced, module), gradients(module, module), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_export() -> None:
    module, x = layer(), torch.randn(5, 72).half()
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), module(x))


def test_operators() -> None:
    """PyTorch's own checks: schemas, fake tensors, and whether what autograd does is registered as it should be."""
    tiles = DeviceTiles.upload(cut_tiles(torch.randn(20, 40).numpy(), 16, 1, 16), "cpu", torch.float16)
    dy, x = torch.randn(20, 5).half(), torch.randn(40, 5).half()
    torch.library.opcheck(torch.ops.zellige.tile_gradient, (dy, x, tiles.units, tiles.rows, list(tiles.starts), 1, 16, True),
                          test_utils=("test_schema", "test_faketensor"))
    arguments = (x.T.contiguous(), tiles.values.requires_grad_(), tiles.units, tiles.rows, None, None, list(tiles.starts),
                 [20, 40, 1, 0], "relu", False, False, CONFIG.numbers(), None, None, None, [], [])
    torch.library.opcheck(torch.ops.zellige.tile_product, arguments, test_utils=("test_autograd_registration",))


def test_a_layer_learns_and_zeros_stay() -> None:
    module, generator = layer(), torch.Generator().manual_seed(1)
    x, wanted = torch.randn(32, 72, generator=generator).half(), torch.randn(32, 40, generator=generator).half()
    zeros = module.matrix() == 0
    assert 0.5 < zeros.float().mean() < 0.7
    optimizer, losses = torch.optim.SGD(module.parameters(), 0.2), []
    for _ in range(4):
        loss = (module(x).float() - wanted.float()).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.99 * losses[0]
    assert torch.equal(module.matrix() == 0, zeros)
    dense = torch.nn.functional.linear(x.double(), module.matrix().double(), module.bias.double())  # type: ignore[union-attr]
    torch.testing.assert_close(module(x).double(), dense, rtol=2e-3, atol=2e-3)


def test_a_dense_way_is_not_trained_here() -> None:
    with pytest.raises(CompileError, match="finetune"):
        TileWiseLinear(torch.ones(16, 16).half(), None, Choice("dense", None, 1.0, 1.0), trainable=True)
