"""Never slower than dense: a network whose tiles lose as a whole runs dense, whatever the prices of its layers promise."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from device_networks import network
from network_prices import CHEAP, RuledPrices
from test_network import assert_right

from zellige.cuda.engine import CudaEngine, build, prepare
from zellige.cuda.network import whole
from zellige.cuda.network.capture import Direct
from zellige.cuda.network.layers import FEATURES, TOKENS
from zellige.cuda.network.modules import WeightedModule

CPU = torch.device("cpu")


def runner(dense: float, tiles: float) -> Any:
    """A graph of which a clock is told what it takes: without tiles, and with them."""
    class Told(Direct):
        TIMED = True

        def seconds(self, rounds: int) -> float:
            assert isinstance(self.module, torch.nn.Module)
            ways = {layer.choice.way for layer in self.module.modules() if isinstance(layer, WeightedModule)}
            return dense if ways == {"dense"} else tiles

    return Told


def built(way: str, order: str, dense: float, tiles: float) -> tuple[CudaEngine, Any, Any]:
    model, inputs = network("encoder")
    prices = RuledPrices(way, CHEAP[order], turn=0.01)
    return build(prepare(model, inputs, torch.float16), CPU, prices, runner(dense, tiles), time.perf_counter()), model, inputs


@pytest.mark.parametrize("way, order", [("columns", FEATURES), ("groups", TOKENS)])
def test_dense_where_the_whole_is_slower(way: str, order: str) -> None:
    engine, model, inputs = built(way, order, 63e-6, 85e-6)
    assert_right(engine, model, inputs, torch.float16)
    assert {layer.path.split(",")[0] for layer in engine.layers} == {"dense", "torch"}
    told = {layer.reason for layer in engine.layers if layer.op == "linear"}
    assert told == ({"timed: 200000.0 µs, groups 100000.0 µs, but the network as a whole is faster dense"} if order == TOKENS else
                    {"timed: 2000000.0 µs, no way through tiles was faster"})
    assert "as decided 85 µs" in engine.form and "63 µs)" in engine.form and "the network as decided" not in engine.form


def test_as_decided_where_that_is_faster() -> None:
    engine, model, inputs = built("columns", FEATURES, 85e-6, 63e-6)
    assert_right(engine, model, inputs, torch.float16)
    assert any(layer.path.startswith("columns") for layer in engine.layers)
    assert "the network as decided (as decided 63 µs, in tokens × features 85 µs)" in engine.form


def test_one_that_does_not_fit_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(whole, "_compared", full)
    engine, *_ = built("columns", FEATURES, 63e-6, 85e-6)
    assert any(layer.path.startswith("columns") for layer in engine.layers) and "not enough memory for both" in engine.form


def test_nothing_is_compared_with_itself() -> None:
    engine, *_ = built("dense", TOKENS, 85e-6, 63e-6)
    assert "the network" not in engine.form
