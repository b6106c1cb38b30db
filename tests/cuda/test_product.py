"""The kernel in Triton's interpreter against float64, over shapes, layouts, patterns and ways of fetching, inside guards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interpreter import Guarded, widen_bfloat16

from zellige.cuda.kernels.config import Config, candidates, default_config
from zellige.cuda.operators import product
from zellige.cuda.operators.product import ACTIVATIONS, check, launch, multiply
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import cut_tiles
from zellige.errors import CompileError, InputError

TOLERANCE = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""The result is rounded once: float16 to the nearest, 2⁻¹¹ at most; bfloat16 down to 2⁻⁷, for the interpreter cuts bits off.
Float32 sums add far less than as much."""

FAR = 2**30
FUNCTIONS = {"none": lambda y: y, "relu": torch.relu, "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


def upload(weight: torch.Tensor, tile: int, group: int, step: int) -> DeviceTiles:
    """The weight's tiles; what stands behind its last step, which a kernel may load but never use, points far out of memory."""
    tiles = DeviceTiles.upload(cut_tiles(weight.float().numpy(), tile, group, step), "cpu", weight.dtype)
    units = tiles.units.clone()
    units[len(units) - step // tiles.unit:] = FAR
    return replace(tiles, units=units)


@st.composite
def sparse(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """A weight that has lost rows and blocks, and how to cut it."""
    tile, (group, step) = draw(st.sampled_from([16, 32])), draw(st.sampled_from([(1, 16), (8, 32), (32, 32), (64, 32)]))
    rows, columns = draw(st.integers(1, 100)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    blocks = torch.rand(-(-rows // tile), -(-columns // group), generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    weight = torch.randn(rows, columns, generator=generator)
    weight *= blocks.repeat_interleave(tile, 0).repeat_interleave(group, 1)[:rows, :columns]
    weight *= torch.rand(rows, 1, generator=generator) < draw(st.sampled_from([0.5, 1.0]))
    return weight.to(draw(st.sampled_from(list(TOLERANCE)))), (tile, group, step)


@given(sparse(), st.sampled_from([1, 2, 17, 40]), st.booleans(), st.booleans(), st.booleans(), st.booleans(),
       st.sampled_from(ACTIVATIONS), st.sampled_from([Config(16, 4, 3, 1), Config(32, 4, 3, 2, boxes=True)]))
def test_product(sparse: tuple[torch.Tensor, tuple[int, int, int]], tokens: int, x_features: bool, y_features: bool,
                 with_bias: bool, with_residual: bool, activation: str, config: Config) -> None:
    weight, sizes = sparse
    rows, columns = weight.shape
    generator = torch.Generator().manual_seed(tokens)
    shapes = ((tokens, columns), (rows,), (tokens, rows))
    x, bias, residual = (torch.randn(*shape, generator=generator).to(weight.dtype) for shape in shapes)
    reference = x.double() @ weight.double().T + with_bias * bias.double() + with_residual * residual.double()
    reference = FUNCTIONS[activation](reference)

    inputs = Guarded((columns, tokens) if x_features else (tokens, columns), weight.dtype)
    addends = Guarded((rows, tokens) if y_features else (tokens, rows), weight.dtype)
    results = Guarded((rows, tokens) if y_features else (tokens, rows), weight.dtype)
    arguments = (inputs.filled(x.T if x_features else x), bias if with_bias else None,
                 addends.filled(residual.T if y_features else residual) if with_residual else None,
                 activation, x_features, y_features)
    tiles = upload(weight, *sizes)
    check(tiles, *arguments)
    launch(tiles, arguments[0], results.inside, *arguments[1:], config)

    y = results.inside.T if y_features else results.inside
    scale = (x.double().abs() @ weight.double().abs().T).max() + 4
    assert (y.double() - reference).abs().le(TOLERANCE[weight.dtype] * reference.abs() + 1e-6 * scale).all()
    assert inputs.untouched() and addends.untouched() and results.untouched()


def test_parts_are_summed() -> None:
    """One tile that is long, on places that are free: it is split, and the second launch finds no ticket of the first."""
    weight = torch.randn(16, 1000).half()
    tiles, x, config = upload(weight, 16, 1, 16), torch.randn(3, 1000).half(), Config(16, 4, 3, 1)
    pieces, parts = product.pieces_for(tiles, len(x), config)
    assert len(pieces) == parts > 1
    for _ in range(2):
        y = multiply(tiles, x, config=config)
        torch.testing.assert_close(y, (x.double() @ weight.double().T).half(), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("tile", [16, 128])
def test_blocks_of_16_by_16(tile: int) -> None:
    """As tiles as tall as they are, and as the union of eight in a tile of 128 rows."""
    weight = torch.randn(250, 200) * (torch.rand(16, 13) < 0.3).repeat_interleave(16, 0).repeat_interleave(16, 1)[:250, :200]
    agrees(weight.half(), (tile, 16, 64), 21, False, Config(32, 4, 3, 2))


@pytest.mark.full
@pytest.mark.parametrize("tokens", [1, 17, 4095])
@pytest.mark.parametrize("group", [1, 8, 64])
def test_tiles_as_they_are_shipped(group: int, tokens: int) -> None:
    """128 rows and steps of 64 in configurations that are timed, and in the one that is taken unasked: two tiles, the last one not
    full, nor the last steps; 4095 tokens fill no block either."""
    kept = (torch.rand(7, -(-330 // group)) < 0.4).repeat_interleave(32, 0).repeat_interleave(group, 1)
    weight = torch.randn(200, 330) * kept[:200, :330]
    timed = candidates(128, 64, tokens, 90)
    for config in dict.fromkeys([default_config(128, 64, tokens), timed[0], timed[-1]]):
        agrees(weight.bfloat16(), (128, group, 64), tokens, group == 1, config)


def agrees(weight: torch.Tensor, sizes: tuple[int, int, int], tokens: int, features: bool, config: Config) -> None:
    """With bias and GELU, each side in either order, within rounding of float64, and nothing around the result is touched."""
    rows, columns = weight.shape
    x, bias = torch.randn(tokens, columns).to(weight.dtype), torch.randn(rows).to(weight.dtype)
    reference = torch.nn.functional.gelu(x.double() @ weight.double().T + bias.double())
    results = Guarded((rows, tokens) if features else (tokens, rows), weight.dtype)
    operand = x.T.contiguous() if features else x
    launch(upload(weight, *sizes), operand, results.inside, bias, None, "gelu", features, features, config)
    y = results.inside.T if features else results.inside
    scale = (x.double().abs() @ weight.double().abs().T).max() + 4
    assert (y.double() - reference).abs().le(TOLERANCE[weight.dtype] * reference.abs() + 1e-6 * scale).all()
    assert results.untouched()


def test_parts_of_tiles_of_different_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile in three parts and one in two: what one leaves for the other must not lie where another's sums do."""
    monkeypatch.setattr(product, "_places", lambda *_: 16)
    weight = torch.zeros(32, 400)
    weight[:16, :200], weight[16:, :170] = torch.randn(16, 200), torch.randn(16, 170)
    tiles, x = upload(weight.half(), 16, 1, 16), torch.randn(3, 400).half()
    assert set(product.pieces_for(tiles, 3, Config(16, 4, 3, 1))[0][:, 4].tolist()) == {2, 3}
    y = multiply(tiles, x, config=Config(16, 4, 3, 1))
    torch.testing.assert_close(y, (x.double() @ weight.half().double().T).half(), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("order, eights", [(range(32), True), ([*range(8, 16), *range(24, 32)], True), ([*range(1, 17)], False),
                                           ([*range(16), 20], False)])
@pytest.mark.parametrize("tile, y_features", [(16, False), (32, False), (16, True)])
def test_rows_in_eights(order: list[int], eights: bool, tile: int, y_features: bool) -> None:
    """Where all eight rows that begin at a multiple of 8 are kept or lost together, the kernel is told."""
    weight = torch.zeros(32, 40)
    weight[list(order)] = torch.randn(len(order), 40)
    tiles, x, addend = upload(weight.half(), tile, 1, 16), torch.randn(5, 40).half(), torch.randn(5, 32).half()
    residual = addend.T.contiguous() if y_features else addend
    assert tiles.eights == eights
    y = multiply(tiles, x, residual=residual, y_features=y_features, config=Config(16, 4, 3, 1))
    wanted = (x.double() @ weight.half().double().T + addend.double()).half()
    torch.testing.assert_close(y.T if y_features else y, wanted, rtol=2e-3, atol=2e-2)


def test_without_tokens() -> None:
    assert multiply(upload(torch.ones(16, 16).half(), 16, 1, 16), torch.ones(0, 16).half()).shape == (0, 16)


def test_operator() -> None:
    """PyTorch's own checks of an operator: its schema, and that fake tensors have the result's shape, dtype and strides."""
    tiles = upload(torch.randn(20, 40).half(), 16, 1, 16)
    arguments = (torch.randn(5, 40).half(), tiles.values, tiles.units, tiles.rows, None, None, list(tiles.starts), [20, 40, 1, 0],
                 "relu", False, False, [16, 4, 3, 1, 0], None, None, None, [], [])
    torch.library.opcheck(torch.ops.zellige.tile_product, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("change, said", [
    ({"x": torch.ones(5, 39).half()}, "tokens × 40 columns"), ({"x": torch.ones(5, 40)}, "float32"),
    ({"x": torch.ones(40, 5).half().T}, "contiguous"), ({"bias": torch.ones(21).half()}, "bias must be [20]"),
    ({"residual": torch.ones(20, 5).half()}, "residual must be [5, 20]"), ({"activation": "tanh"}, "'tanh'"),
])
def test_refusals(change: dict[str, object], said: str) -> None:
    arguments = {"x": torch.ones(5, 40).half(), **change}
    with pytest.raises(InputError, match=said.replace("[", r"\[").replace("]", r"\]")):
        multiply(upload(torch.randn(20, 40).half(), 16, 1, 16), **arguments)  # type: ignore[arg-type]


def test_what_tensor_cores_cannot_multiply() -> None:
    with pytest.raises(CompileError, match="bfloat16 or float16"):
        DeviceTiles.upload(cut_tiles(np.eye(16, dtype=np.float32), 16, 1, 16), "cpu", torch.float32)
    with pytest.raises(CompileError, match="power of two"):
        DeviceTiles.upload(cut_tiles(np.eye(16, dtype=np.float32), 24, 1, 16), "cpu", torch.float16)


def test_a_gpu_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "capability_of", lambda device: 75)
    with pytest.raises(CompileError, match=r"compute capability 8.0 or later; cuda has 7.5"):
        product.check_device(torch.device("cuda"))
