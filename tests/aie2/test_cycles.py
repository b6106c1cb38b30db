"""What steps are estimated to take: the figures that the constants are fitted on, and what must hold for every packet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import LAYERS, Layer, make_packet, taps_of

from zellige.aie2.cycles import HEADER, PER_GROUP, TILE, step_cost, step_cycles, tiles_of
from zellige.aie2.device import DEVICES
from zellige.aie2.packet import PRODUCT, Packet

PAPER, VERSAL, STRIX = DEVICES["paper"], DEVICES["ve2802"], DEVICES["npu2"]


def product(rows: int, width: int, inputs: int, outputs: int, keep: float = 1.0, **words: int) -> Packet:
    """A 1×1 convolution of numbers of channels that 8 divides; of its blocks the first ``keep`` are there."""
    weight = np.ones((outputs, inputs, 1, 1), np.int8)
    weight[:, round(inputs * keep) :] = 0
    zeros, ones = np.zeros(outputs), np.ones(outputs)
    return make_packet(PRODUCT, *taps_of(weight, width, (1, 1), range(inputs // 8)), (zeros, ones, zeros, 7 * ones), rows=rows,
                       width=width, input_groups=inputs // 8, input_width=width, stride=1, **words)


@pytest.mark.parametrize("last, published", [(1, 1121), (0, 1750)])
def test_the_published_product_of_matrices(last: int, published: float) -> None:
    packet = product(1, 64, 64, 64, last=last)
    around = HEADER + 16 * TILE + 4 * 8 * PER_GROUP
    assert step_cycles(packet, VERSAL, dense=True) - around == pytest.approx(published, abs=1e-9)


def test_an_ideal_core_takes_as_long_as_its_products() -> None:
    assert step_cycles(product(4, 14, 64, 32), PAPER) == 4 * 14 * 64 * 32 / 256
    assert step_cycles(product(4, 14, 64, 32, keep=0.5), PAPER) == 4 * 14 * 64 * 32 / 256 / 2


@pytest.mark.parametrize("packet, bound", [
    (product(4, 16, 256, 64), "products"), (product(7, 2, 256, 64), "loads"), (product(1, 4, 8, 64), "overhead")])
def test_what_binds(packet: Packet, bound: str) -> None:
    assert step_cost(packet, VERSAL).bound == bound


def test_what_sparsity_gains() -> None:
    """Half of the blocks: half of the time where there are many, less where what stays the same is as much as they are."""
    def gain(inputs: int) -> float:
        half = step_cycles(product(4, 16, inputs, 32, keep=0.5), VERSAL)
        return step_cycles(product(4, 16, inputs, 32), VERSAL, dense=True) / half
    assert 1.85 < gain(512) < 2.0
    assert 1.1 < gain(16) < gain(64) < gain(512)


@given(st.sampled_from(sorted(LAYERS)).flatmap(LAYERS.__getitem__))
def test_every_step(layer: Layer) -> None:
    for packet in layer.packets:
        for device in (VERSAL, STRIX):
            cost = step_cost(packet, device)
            assert cost.cycles >= max(cost.products, cost.loads, cost.shuffles) and cost.cycles >= cost.overhead > 0
            assert step_cycles(packet, device, dense=True) <= cost.cycles
        assert step_cycles(packet, PAPER) <= step_cycles(packet, VERSAL)
        more = replace(packet, counts=packet.counts + 1)
        assert step_cycles(more, VERSAL) >= step_cycles(packet, VERSAL)


@given(st.integers(1, 9), st.integers(1, 40))
def test_tiles_hold_all_pixels(rows: int, width: int) -> None:
    tiles, neighbours = tiles_of(product(rows, width, 8, 8).header)
    total = rows * -(-width // 4)
    assert total <= tiles.sum() <= total + 2 and set(tiles) <= {1, 4}
    assert neighbours.all() == (-(-width // 4) % 4 == 0)
