"""What the cost of a step rests on: the C++ does as many products, loads and shuffles for its taps as ``cycles.py`` says."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from packets import Layer, additions, convolutions, pools

from zellige.aie2 import compiled, cycles
from zellige.aie2.packet import MAXIMUM, PRODUCT, Packet, packet_size

WRAPPER = """
#define AIE_EMULATION_COUNTS
#include "step.cc"
extern "C" void count(const uint8 *packet, const int8 *activations, int8 *result, int32 *sums, long *found) {
    aie::detail::counts = {};
    step(packet, activations, result, sums);
    found[0] = aie::detail::counts.products, found[1] = aie::detail::counts.loads, found[2] = aie::detail::counts.shuffles;
}
"""
Count = Callable[[Packet, Layer], np.ndarray]


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> Count:
    """Products, loads and shuffles of one step of a packet."""
    if shutil.which("g++") is None:
        pytest.skip("what the kernel's C++ does is not counted: there is no g++ (Debian: apt-get install g++)")
    directory: Path = tmp_path_factory.mktemp("counting")
    (directory / "count.cc").write_text(WRAPPER)
    compiled._gcc(*compiled.FLAGS, "-Wl,-Bsymbolic", f"-I{compiled.EMULATION}", f"-I{compiled.KERNELS}",  # glibc has a step too
                  str(directory / "count.cc"), "-o", str(directory / "count.so"))
    function = ctypes.CDLL(str(directory / "count.so")).count
    function.argtypes, function.restype = (ctypes.c_void_p,) * 5, None

    def run(packet: Packet, layer: Layer) -> np.ndarray:
        buffers = [packet.encode(), *(np.zeros(1 << 18, np.uint8) for _ in range(3))]
        buffers[1][: layer.activations[0].size] = layer.activations[0].reshape(-1).view(np.uint8)
        found = np.zeros(3, np.int64)
        function(*(buffer.ctypes.data for buffer in (*buffers, found)))
        return found
    return run


@pytest.mark.parametrize("kind", ["convolutions", "pools", "additions"])
def test_the_cost_of_taps_is_what_they_do(kind: str, count: Count) -> None:
    strategy = {"convolutions": convolutions(), "pools": pools(), "additions": additions()}[kind]

    @given(strategy)
    def check(layer: Layer) -> None:
        packet = layer.packets[0]
        header, taps = packet.header, len(packet.offsets)
        tiles, loads, shuffles = cycles._tap(header, dense=True)
        expected = taps * np.array([tiles.sum() if header.operation != MAXIMUM else 0, 2 * loads.sum(), shuffles.sum()])
        size = packet_size(header.operation, header.groups, 0, bool(header.first), bool(header.last), header.terms)
        without = replace(packet, header=replace(header, size=size),
                          counts=np.zeros_like(packet.counts), offsets=packet.offsets[:0], blocks=packet.blocks[:0])
        around = np.zeros(3, np.int64) if header.operation == MAXIMUM else count(without, layer)  # there is no maximum of nothing
        assert (count(packet, layer) - around).tolist() == expected.tolist()
        assert header.operation != PRODUCT or taps == 0 or expected[0] > 0
    check()
