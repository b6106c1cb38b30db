"""Steps of the kernel against the int8 reference, layer by layer on one core, between guards."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import LAYERS, Layer, additions, convolutions, run_layer, tables

from zellige.aie2.compiled import compiled_step
from zellige.aie2.cycles import PIXELS
from zellige.aie2.packet import TABLE, Header, aligned_bytes, decode, packet_size
from zellige.aie2.step import StepFunction, step
from zellige.errors import CompileError

NO_COMPILER = "the kernel's C++ is not tested: there is no g++ (Debian: apt-get install g++)"


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def run_step(request: pytest.FixtureRequest) -> StepFunction:
    if request.param == "numpy":
        return step
    if shutil.which("g++") is None:
        pytest.skip(NO_COMPILER)
    return compiled_step()


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_that_of_the_reference(kind: str, run_step: StepFunction) -> None:
    @given(LAYERS[kind])
    def check(layer: Layer) -> None:
        assert np.array_equal(run_layer(layer, run_step), layer.expected)
    check()


@given(convolutions())
def test_packets_read_back(layer: Layer) -> None:
    for packet in layer.packets:
        assert np.array_equal(decode(np.pad(packet.encode(), (0, 8))).encode(), packet.encode())


def altered(layer: Layer, **words: int) -> Layer:
    return replace(layer, packets=tuple(replace(one, header=replace(one.header, **words)) for one in layer.packets))


def _wide(header: Header) -> bool:
    return header.rows > 1 and header.width >= PIXELS


def _sample(strategy: st.SearchStrategy, parts: int = 1) -> Layer:
    """The last example of so many packets, at least two rows, and a tile's width: the same every time."""
    found: list[Layer] = []

    @given(strategy.filter(lambda layer: len(layer.packets) == parts and _wide(layer.packets[0].header)))
    def take(layer: Layer) -> None:
        found.append(layer)
    take()
    return found[-1]


@pytest.mark.parametrize("at, value", [(0, 60), (0, 10**6), (4, 7), (20, -1), (20, 10**6), (20, 3)])
def test_bytes_that_are_no_packet_are_refused(at: int, value: int) -> None:
    raw = _sample(additions()).packets[0].encode()
    raw[at : at + 4].view("<i4")[...] = value
    with pytest.raises(CompileError, match="packet"):
        decode(raw)


@pytest.mark.parametrize("words, message", [
    ({"rows": 4000}, "bytes of activations: expected"), ({"stride": 99}, "bytes of activations: expected"),
    ({"terms": 1}, "a packet of"), ({"width": 0}, "rows and width: expected at least 1"),
])
def test_what_does_not_fit_is_refused(words: dict, message: str, run_step: StepFunction) -> None:
    with pytest.raises(CompileError, match=message):
        run_layer(altered(_sample(additions()), **words), run_step)


@pytest.mark.parametrize("moved", ["packet", "result", "accumulators"])
@pytest.mark.skipif(shutil.which("g++") is None, reason=NO_COMPILER)
def test_vectors_lie_where_cores_can_load_them(moved: str) -> None:
    """The C++ notes what a chip would not: that it would load from another place."""
    layer, run = _sample(convolutions(), parts=2), compiled_step()
    buffers = {name: aligned_bytes((1 << 16) + 4)[4 * (name == moved) :] for name in ("packet", "result", "accumulators")}
    with pytest.raises(CompileError, match=r"bytes behind a multiple of 32: packets, results and accumulators must begin"):
        for packet, activations in zip(layer.packets, layer.activations, strict=True):
            buffers["packet"][: packet.header.size] = packet.encode()
            result = buffers["result"].view(np.int8) if packet.header.results else None
            run(buffers["packet"], activations.reshape(-1), result, buffers["accumulators"][: 1 << 16].view(np.int32))


def test_packets_without_sense_are_refused(run_step: StepFunction) -> None:
    twice, sum_ = _sample(tables()), _sample(additions())
    (table,), (packet,) = twice.packets, sum_.packets
    offsets = np.zeros(2 * len(table.counts), np.uint16)
    header = replace(table.header, size=packet_size(TABLE, len(table.counts), len(offsets)))
    changed = replace(table, header=header, counts=np.full_like(table.counts, 2), offsets=offsets)
    with pytest.raises(CompileError, match="taps of a group: expected 1 to 1"):
        run_layer(replace(twice, packets=(changed,)), run_step)
    with pytest.raises(CompileError, match="shifts: expected 0 to 62"):
        run_layer(replace(sum_, packets=(replace(packet, shift=np.full_like(packet.shift, 63)),)), run_step)
