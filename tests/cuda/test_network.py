"""Whole networks, lowered for a GPU and run by Triton's interpreter, against PyTorch in float64; and what is done to them first."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from device_networks import NETWORKS, Encoder, Residual, network
from emulated_kernel import emulated, emulated_blocks, needs_compiler
from interpreter import widen_bfloat16
from network_prices import CHEAP, RuledPrices
from torch import nn
from torch.utils import _pytree as pytree

import zellige as zl
from zellige.cuda.engine import CudaEngine, build, prepare
from zellige.cuda.layers.choosing import BY_BLOCKS, PAIRED, TWO_FOUR
from zellige.cuda.layers.vectors import VECTORS
from zellige.cuda.network.capture import Direct
from zellige.cuda.network.layers import FEATURES, TOKENS, Attention, Convolution, Linear, layer_of
from zellige.cuda.operators import block_product, tile_vector_wise
from zellige.cuda.operators.block_product import BlockKernel
from zellige.cuda.operators.tile_vector_wise import ELSEWHERE
from zellige.cuda.tiling.compressed_blocks import is_compressed
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import is_paired
from zellige.cuda.tiling.vector_tiles import VectorTiles
from zellige.errors import CompileError, InputError, UnsupportedModelError, ZelligeError

CPU = torch.device("cpu")
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Of the largest output: each of up to ten layers rounds to 8 or 11 bits, and the interpreter cuts bits of bfloat16 off."""


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


def compiled(model: nn.Module, inputs: tuple[Any, ...], way: str = "columns", order: str = FEATURES,
             dtype: torch.dtype = torch.float16) -> CudaEngine:
    return build(prepare(model, inputs, dtype), CPU, RuledPrices(way, CHEAP[order], turn=0.01), Direct, time.perf_counter())


def in_double(model: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    wide = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad():
        return pytree.tree_leaves(copy.deepcopy(model).double()(*wide))


def assert_right(engine: CudaEngine, model: nn.Module, inputs: tuple[Any, ...], dtype: torch.dtype) -> None:
    for got, expected in zip(pytree.tree_leaves(engine(*inputs)), in_double(model, inputs), strict=True):
        assert got.shape == expected.shape and got.dtype == torch.float32
        assert (got - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("way, order", [("dense", "tokens"), ("dense", "features"), ("groups", "tokens"), ("columns", "features"),
                                        ("steps", "tokens")])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, way: str, order: str, dtype: torch.dtype) -> None:
    model, inputs = network(name)
    engine = compiled(model, inputs, way, order, dtype)
    assert_right(engine, model, inputs, dtype)
    linear = [layer for layer in engine.layers if layer.op == "linear"]
    assert linear and all(layer.path.startswith(way) for layer in linear)


@needs_compiler
@pytest.mark.parametrize("way", BY_BLOCKS)
def test_blocks_from_tensor_maps(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer in blocks of 128 × 64, some of them 2:4, or of 64 × 64, whose products run on the emulated GPU."""
    model, inputs = Encoder(128, 2, 256).eval(), (torch.randn(2, 9, 128),)
    zl.prune(model, "block:64x64" if way == PAIRED else "block:128x64", 0.5, ignore=["query", "key", "value", "out"])
    if way == TWO_FOUR:
        model.up.weight.data *= torch.arange(128) % 4 % 3 == 0
    made: list[BlockKernel] = []

    def multiply(weight: DeviceTiles, x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, activation: str,
                 kernel: BlockKernel) -> torch.Tensor:
        assert (is_compressed(weight), is_paired(weight)) == (way == TWO_FOUR, way == PAIRED)
        made.append(kernel)
        return emulated_blocks(BlockKernel(128, 2, 1), weight, x, bias, residual, activation, False, seed=3).contiguous()

    monkeypatch.setattr(block_product, "multiply", multiply)
    engine = compiled(model, inputs, way, TOKENS)
    assert_right(engine, model, inputs, torch.float16)
    assert made and {layer.name for layer in engine.layers if layer.path.startswith(f"{way},")} >= {"up"}


@needs_compiler
def test_vectors_through_the_sparse_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer that is 2:4 in tiles: its products run on the emulated GPU, features × tokens, with all that follows them in
    the same kernel. Of weights that are stacked each has its own tiles."""
    model, inputs = Encoder(128, 2, 256).eval(), (torch.randn(2, 9, 128),)
    zl.prune(model, "tvw:128:2:4:ordered", 0.75)
    made: list[tuple[str | None, bool]] = []

    def multiply(tiles: VectorTiles, x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
                 activation: str | None) -> torch.Tensor:
        assert tiles.two_four and x.shape[0] == tiles.shape[1] and x.is_contiguous()
        made.append((activation, residual is not None))
        return emulated(ELSEWHERE, tiles, x, bias, residual, activation, x.shape[1] % 8 == 0, False, 0).contiguous()

    monkeypatch.setattr(tile_vector_wise, "multiply", multiply)
    engine = compiled(model, inputs, VECTORS, FEATURES)
    assert_right(engine, model, inputs, torch.float16)
    assert {layer.path for layer in engine.layers if layer.op == "linear"} == {"vectors, features to features"}
    assert made == [(None, False), (None, True), ("gelu", False), (None, True)]


def test_one_block_is_eight_layers() -> None:
    """Queries, keys and values are one product; residuals and the activation belong to products; nothing else is left."""
    model, inputs = network("encoder")
    program = prepare(model, inputs, torch.float16)
    found = [layer for node in program.graph.nodes if (layer := layer_of(node)) is not None]
    assert [layer.names for layer in found] == [("query", "key", "value"), found[1].names, ("out",), ("first",), ("up",), ("down",),
                                                ("second",)]
    assert isinstance(found[1], Attention) and found[1].heads == 2 and found[1].sequence == 5
    assert [layer.activation for layer in found if isinstance(layer, Linear)] == ["none", "none", "gelu", "none"]
    assert [len(node.args) for node in program.graph.nodes if layer_of(node)] == [1, 1, 2, 1, 1, 2, 1]
    assert {node.op for node in program.graph.nodes if not layer_of(node)} == {"placeholder", "output"}


def test_in_one_order_only_the_input_and_the_output_are_turned() -> None:
    model, inputs = nn.Sequential(Encoder(), Encoder()).eval(), (torch.randn(2, 5, 32),)
    engine = compiled(model, inputs)
    code = [str(node.target) for node in engine._module.graph.nodes]  # type: ignore[attr-defined]
    assert sum("transposed" in target for target in code) == 2
    assert_right(engine, model, inputs, torch.float16)


def test_batch_norms_are_folded() -> None:
    model, inputs = network("residual")
    program = prepare(model, inputs, torch.bfloat16)
    assert not any("batch_norm" in str(node.target) for node in program.graph.nodes)
    first = next(layer for node in program.graph.nodes if isinstance(layer := layer_of(node), Convolution))
    assert isinstance(model, Residual)
    norm = model.norms[0]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    folded = (model.stem.weight * factor[:, None, None, None]).detach()
    torch.testing.assert_close(first.weight.bfloat16(), folded.bfloat16())  # rounded once


def test_what_is_reported() -> None:
    model, inputs = network("encoder")
    engine = compiled(model, inputs)
    first = engine.layers[0]
    assert (first.name, first.op, first.shape) == ("query, key, value", "linear", (2, 5, 96))
    assert first.path == "columns, features to features"
    assert isinstance(model, Encoder)
    weights = [model.query.weight, model.key.weight, model.value.weight]
    assert first.kept_macs == 10 * sum(int(weight.count_nonzero()) for weight in weights) and first.macs == 10 * 3 * 32 * 32
    assert 0 < first.density < 1 and "µs" in first.reason
    assert [layer.op for layer in engine.layers] == ["linear", "attention", "linear", "norm", "linear", "linear", "norm"]


def test_arrays_give_arrays_and_calls_do_not_disturb_one_another() -> None:
    model, (x,) = network("encoder")
    engine = compiled(model, (x,))
    before = engine(x)
    kept = before.clone()
    array = engine(x.numpy())
    assert isinstance(array, np.ndarray) and np.array_equal(array, before.numpy())
    clone = engine.clone()
    clone(torch.randn(2, 5, 32))
    assert torch.equal(engine(x.half()), before) and torch.equal(before, kept) and torch.equal(clone(x), before)


@pytest.mark.parametrize("change, said", [
    (lambda x: x[:1], r"shape \[2, 5, 32\]"), (lambda x: x.double(), "float64"), (lambda x: x.to_sparse(), "sparse"),
    (lambda x: x.tolist(), "list"), (lambda x: x.to("meta"), "meta"),
])
def test_inputs_that_do_not_fit(change: Any, said: str) -> None:
    model, (x,) = network("encoder")
    with pytest.raises(InputError, match=said):
        compiled(model, (x,))(change(x))


def test_strided_inputs() -> None:
    model, (x,) = network("encoder")
    engine = compiled(model, (x,))
    assert torch.equal(engine(x.transpose(0, 1).contiguous().transpose(0, 1)), engine(x))


def test_an_engine_stays_in_memory(tmp_path: Any) -> None:
    engine = compiled(*network("encoder"))
    with pytest.raises(ZelligeError, match="can't be written"):
        engine.save(tmp_path / "model.zlg")
    with pytest.raises(ZelligeError, match="clone"):
        copy.copy(engine)


@pytest.mark.parametrize("options, said", [
    ({"dtype": "f32"}, "bf16, f16"), ({"dtype": ["f16"]}, "bf16, f16"),
    ({"threads": 2}, "threads"), ({"winograd": False}, "winograd"), ({"tune": "measure"}, "tune"),
])
def test_options_that_a_gpu_does_not_have(options: dict[str, Any], said: str) -> None:
    with pytest.raises(CompileError, match=said):
        zl.compile(*network("encoder"), target="cuda", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu() -> None:
    with pytest.raises(CompileError, match="needs an NVIDIA GPU"):
        zl.compile(*network("encoder"), target="cuda")


def test_models_that_do_not_fit() -> None:
    model, inputs = network("encoder")
    with pytest.raises(UnsupportedModelError, match=r"model.eval\(\)"):
        prepare(copy.deepcopy(model).train(), inputs, torch.float16)
    with pytest.raises(InputError, match="float64"):
        prepare(model, (inputs[0].double(),), torch.float16)
    with pytest.raises(InputError, match="tuple"):
        prepare(model, inputs[0], torch.float16)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError, match="exported"):
        prepare(torch.export.export(model, inputs), inputs, torch.float16)  # type: ignore[arg-type]
