"""Plans of launches are made with the layer, for whatever comes, and once; none is uploaded by the thread that asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.convolution import TileWiseConv2d
from zellige.cuda.layers.fp8 import Fp8BlockLinear
from zellige.cuda.layers.linear import TileWiseLinear
from zellige.cuda.operators import block_product, gradient, plans, product
from zellige.cuda.operators.block_product import BlockKernel
from zellige.cuda.tiling.convolution_tiles import Window
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.pieces import best_count, counts_of_parts, plan_pieces
from zellige.cuda.tiling.tiles import cut_tiles
from zellige.errors import CompileError

CONFIG = Config(16, 4, 3, 1)
CACHES = (product.pieces_on, gradient.chunks_on, block_product.schedule_on)
HOST = torch.device("cpu")

Plan = tuple[list[list[int]], str]
"""What was uploaded, and where to."""


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Plan]]:
    """All plans that are made from now on; nothing is left of those made before, nor of these in the end."""
    made: list[Plan] = []

    def uploaded(plan: np.ndarray, device: torch.device) -> torch.Tensor:
        made.append((plan.tolist(), device.type))
        return plans.uploaded(plan, device)

    for operators in (product, gradient, block_product):
        monkeypatch.setattr(operators, "uploaded", uploaded)
    for cache in CACHES:
        cache.cache_clear()
    yield made
    for cache in CACHES:
        cache.cache_clear()


def long_weight(rows: int = 40, columns: int = 400) -> torch.Tensor:
    """Tiles of 16 rows that are worth cutting into parts, and some columns that all rows lack."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(rows, columns, generator=generator) * (torch.rand(1, columns, generator=generator) < 0.7)).half()


def linear(way: str, trainable: bool = False) -> TileWiseLinear:
    return TileWiseLinear(long_weight(), None, Choice(way, CONFIG, 1.0, 1.0), 16, 16, trainable)


def expected(*all_starts: tuple[int, ...], device: str = "cpu") -> list[Plan]:
    return [(plan_pieces(starts, parts).tolist(), device) for starts in all_starts for parts in counts_of_parts(starts)]


@pytest.mark.parametrize("way", ["groups", "columns"])
def test_a_layer_has_all_plans_that_it_will_ask_for(way: str, uploads: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_places", lambda *_: 12)
    module = linear(way)
    starts, made = module.tiles.starts, list(uploads)
    assert made == expected(starts) and len(made) > 2
    for tokens in (1, 17, 33, 64, 100):
        module(torch.randn(tokens, 400).half())
    assert uploads == made
    assert len({best_count(starts, blocks, 12) for blocks in range(1, 8)}) > 2  # several of them were asked for


def test_what_is_trained_has_those_of_its_backward_pass_too(uploads: list[Plan]) -> None:
    module = linear("columns", trainable=True)
    tiles, made = module.tiles, list(uploads)
    assert tiles.transposed is not None
    chunks = gradient.plan_chunks(tiles.starts, gradient.WIDE // 16).tolist()
    assert made == [*expected(tiles.starts, tiles.transposed.starts), (chunks, "cpu")]
    for tokens in (1, 40):
        x = torch.randn(tokens, 400).half().requires_grad_()
        module(x).float().sum().backward()
    assert uploads == made


@pytest.mark.parametrize("window", [Window((3, 3), padding=(1, 1)), Window((1, 1))])
@pytest.mark.parametrize("way", ["groups", "columns"])
def test_convolutions(way: str, window: Window, uploads: list[Plan]) -> None:
    weight = torch.randn(24, 40, *window.kernel).half()
    module = TileWiseConv2d(weight, None, window, Choice(way, CONFIG, 1.0, 1.0), 16, 16)
    made = list(uploads)
    assert made == expected(module.tiles.starts)
    for images, height, width in ((1, 4, 4), (2, 7, 5)):
        module(torch.randn(images, 40, height, width).half())
    assert uploads == made


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Launches of blocks, by their arguments, of which nothing runs."""
    launched: list[object] = []
    monkeypatch.setattr(block_product.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=3))
    monkeypatch.setattr(block_product, "check_hopper", lambda device, instead: None)
    monkeypatch.setattr(block_product, "loaded", lambda *arguments: None)
    monkeypatch.setattr(block_product, "launch", lambda *arguments: launched.extend(arguments[4]))
    return launched


def test_blocks_have_one_plan(uploads: list[Plan], hopper: list[object]) -> None:
    module = TileWiseLinear(long_weight(256, 128), None, Choice("blocks", BlockKernel().config, 1.0, 1.0))
    starts = module.tiles.starts
    assert uploads == [(block_product.schedule(starts).tolist(), "cpu")]
    for tokens in (8, 4000):
        module(torch.randn(tokens, 128).half())
        assert any(argument is block_product.schedule_on(starts, HOST) for argument in hopper)
        hopper.clear()
    assert len(uploads) == 1


def test_blocks_that_are_trained_have_those_of_groups(uploads: list[Plan]) -> None:
    module = TileWiseLinear(long_weight(256, 128), None, Choice("blocks", BlockKernel().config, 1.0, 1.0), trainable=True)
    tiles = module.tiles
    assert tiles.transposed is not None
    assert uploads[:-1] == expected(tiles.starts, tiles.transposed.starts)
    assert uploads[-1] == (gradient.plan_chunks(tiles.starts, gradient.WIDE // 64).tolist(), "cpu")


def test_blocks_in_e4m3_have_one_plan(uploads: list[Plan]) -> None:
    module = Fp8BlockLinear(long_weight(256, 256))
    assert uploads == [(block_product.schedule(module.form.starts).tolist(), "cpu")]
    module.to("meta")
    assert uploads[1:] == [(uploads[0][0], "meta")]


def test_dense_layers_have_none(uploads: list[Plan]) -> None:
    TileWiseLinear(long_weight(), None, Choice("dense", None, 1.0, 1.0)).to("meta")
    assert not uploads


def test_plans_come_along_when_a_layer_is_moved(uploads: list[Plan]) -> None:
    network = torch.nn.Sequential(linear("groups"))
    made = list(uploads)
    network.bfloat16().to("cpu")
    assert uploads == made
    network.to("meta")
    assert uploads[len(made):] == [(plan, "meta") for plan, _ in made]


def test_layers_that_are_cut_alike_share_their_plans(uploads: list[Plan]) -> None:
    linear("groups")
    made = list(uploads)
    linear("groups")
    assert uploads == made


def test_a_weight_without_numbers_has_plans(uploads: list[Plan]) -> None:
    tiles = DeviceTiles.upload(cut_tiles(np.zeros((40, 64), np.float32), 16, 1, 16), HOST, torch.float16, trained=True)
    product.plan_ahead(tiles)
    made = list(uploads)
    x = torch.randn(5, 64).half().requires_grad_()
    product.multiply(tiles, x, config=CONFIG).float().sum().backward()
    assert uploads == made


def test_another_thread_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread allocates while it runs for a graph to be captured goes to the graph's pool; what others allocate does not."""
    threads = []

    def from_numpy(plan: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(to=lambda device: threads.append((threading.get_ident(), device)))

    monkeypatch.setattr(plans.torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(plans.torch, "from_numpy", from_numpy)
    plans.uploaded(np.zeros((1, 4), np.int32), torch.device("cuda", 0))
    [(thread, device)] = threads
    assert thread != threading.get_ident() and device == torch.device("cuda", 0)


def test_no_plan_is_uploaded_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans.torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(CompileError, match=r"inside of a CUDA graph's capture.* call the layer or the operator once before"):
        plans.uploaded(np.zeros((1, 4), np.int32), torch.device("cuda", 0))
