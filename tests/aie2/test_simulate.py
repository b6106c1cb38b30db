"""The simulator against what a layer made by hand should compute."""

from dataclasses import replace

import numpy as np
import pytest
from hand_made import Layer, cycles, step

from zellige.aie2.device import DEVICES
from zellige.aie2.simulate import EXTERNAL, Costs, simulate
from zellige.aie2.simulate.carried import packet_channels
from zellige.aie2.simulate.costs import costs_of
from zellige.errors import CompileError, SimulationError


@pytest.mark.parametrize("layer", [
    Layer(1, 1), Layer(), Layer(4, 4, steps=2), Layer(3, 1), Layer(4, 2, groups=3, height=1, width=5), Layer(6, 2, device="paper"),
    Layer(5, 3, device="paper"), Layer(8, 2, device="paper"), Layer(2, 3, device="ve2802"),
], ids=str)  # fmt: skip
def test_a_layer_made_by_hand(layer: Layer) -> None:
    run = simulate(layer.program(), {"x": layer.x()}, step, cycles)
    assert np.array_equal(run.host["y"].view(np.int8).reshape(layer.result().shape), layer.result())


@pytest.mark.parametrize("layer", [Layer(), Layer(6, 2, device="paper")], ids=str)
def test_time_is_the_same_when_only_packets_move(layer: Layer) -> None:
    whole = simulate(layer.program(), {"x": layer.x()}, step, cycles, Costs())
    packets = simulate(layer.program(), {}, None, cycles, Costs(), move="packets")
    assert packets.cycles == whole.cycles
    assert {name: list(lane) for name, lane in packets.lanes.items()} == {name: list(lane) for name, lane in whole.lanes.items()}
    assert not packets.host["y"].any()


def test_a_step_that_cannot_be_done_names_the_core() -> None:
    def refuses(*_: object) -> None:
        raise CompileError("no such step")

    with pytest.raises(SimulationError, match=r"core .*can't do a step of the packet in core0\.0\.weights\.0: no such step"):
        simulate(Layer(1, 1).program(), {"x": Layer(1, 1).x()}, refuses, cycles)


def test_who_carries_packets() -> None:
    found = {str(channel) for channel in packet_channels(Layer(2, 1).program())}
    assert found == {"(0,0).out1", "(0,1).in1", "(0,1).out1", "(0,2).in1", "(0,3).in1"}


def test_runs_do_not_depend_on_anything_but_the_program() -> None:
    layer = Layer(2, 2)
    first, again = (simulate(layer.program(), {"x": layer.x()}, step, cycles) for _ in range(2))
    assert str(layer.program()) == str(layer.program())
    assert first.cycles == again.cycles
    assert {name: list(lane) for name, lane in first.lanes.items()} == {name: list(lane) for name, lane in again.lanes.items()}


def test_what_costs_nothing_on_an_ideal_device() -> None:
    assert costs_of(DEVICES["paper"]) == Costs(0, 0, 0, 0, 0)
    assert costs_of(DEVICES["npu1"]) == Costs()


def test_memory_can_be_the_limit() -> None:
    """The same program, with external memory as slow as a quarter of one channel."""
    layer, slow = Layer(), replace(DEVICES["npu1"], ddr_bytes=1.0e9)
    plain = simulate(layer.program(), {}, None, cycles, move="packets")
    bound = simulate(layer.program(), {}, None, cycles, move="packets", device=slow)
    assert bound.cycles > 3 * plain.cycles
    assert len(bound.lanes[EXTERNAL]) and not len(plain.lanes[EXTERNAL])
