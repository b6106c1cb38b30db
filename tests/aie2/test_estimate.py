"""Estimates: phases, what bounds them, and the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_made import Layer, repeated

from zellige.aie2.cycles import StepCost, step_cost, step_cycles
from zellige.aie2.device import DEVICES, Device
from zellige.aie2.estimate import PhaseTime, phase_times, timeline_figure
from zellige.aie2.estimate.picture import merged_spans
from zellige.aie2.packet import Packet
from zellige.aie2.simulate import Costs, Run, simulate
from zellige.aie2.simulate.timeline import Lane
from zellige.errors import ZelligeError

FREE = Costs(0, 0, 0, 0, 0)


def timed(layer: Layer, device: Device, work: float) -> tuple[Run, list[PhaseTime]]:
    """A layer's phases, if each of its steps takes so many cycles."""
    program = layer.program()
    run = simulate(program, {}, None, lambda _: work, FREE, device, "packets")
    return run, phase_times(program, run, lambda _: StepCost(work, work, work / 2, 0.0, 0.0))


def test_what_bounds_a_phase() -> None:
    """A tile of the layer's input and of its result have 64 words; a row of cores has two tiles of results, in one column."""
    layer, free = Layer(2, 2, steps=40, height=4), replace(DEVICES["npu2"], ddr_bytes=None)
    bounds = {
        "MACs": timed(layer, free, 1000),
        "shim": timed(layer, free, 1), "DDR": timed(layer, replace(free, ddr_bytes=1.0e9), 1),
        "fill/drain": timed(replace(layer, steps=2), free, 60),
    }  # fmt: skip
    for bound, (run, (phase,)) in bounds.items():
        assert (phase.name, phase.end, phase.cycles) == ("layer", run.cycles, run.cycles)
        assert phase.bound == bound, phase
    assert bounds["MACs"][1][0].cores > 0.95
    assert bounds["shim"][1][0].shims > 0.9
    assert bounds["DDR"][1][0].external > 0.9


def test_uneven_work_is_seen() -> None:
    """The packets of one row have half the taps: its cores wait for the others."""
    layer = Layer(2, 2, steps=20)
    program = layer.program()
    heavy = next(one.data for one in program.host if one.name == "packet0")
    assert heavy is not None

    def cost(packet: Packet) -> StepCost:
        cycles = 2000.0 if np.array_equal(packet.encode(), heavy) else 200.0
        return StepCost(cycles, cycles, 0.0, 0.0, 0.0)

    run = simulate(program, {}, None, lambda packet: cost(packet).cycles, FREE, move="packets")
    (phase,) = phase_times(program, run, cost)
    assert phase.bound == "imbalance"


def test_phases_add_up() -> None:
    """Two layers, one after the other, of which the second's packets may come before the first is done."""
    program = repeated(Layer(1, 1).program(), ["layer", "next"])
    run = simulate(program, {}, None, lambda packet: step_cycles(packet, DEVICES["npu1"]), move="packets")
    phases = phase_times(program, run, lambda packet: step_cost(packet, DEVICES["npu1"]))
    assert [phase.name for phase in phases] == ["layer", "next"]
    assert sum(phase.cycles for phase in phases) == run.cycles == phases[-1].end
    assert phases[0].end < run.cycles


def lane(*spans: tuple[str, float, float]) -> Lane:
    found = Lane("lane")
    for task, start, end in spans:
        found.begin(task)
        found.busy(start, end)
    return found


def test_busy_time_before_a_moment() -> None:
    work = lane(("a/x", 10, 20), ("a/y", 30, 40), ("b/x", 40, 45))
    assert work.busy_until(np.array([0, 10, 15, 20, 25, 30, 35, 45, 99])).tolist() == [0, 0, 5, 10, 10, 10, 15, 25, 25]
    assert lane().busy_until(np.array([0.0, 5.0])).tolist() == [0, 0]
    assert work.last_ends() == {"a/x": 20, "a/y": 40, "b/x": 45}


def test_spans_are_drawn_as_one_where_they_look_it() -> None:
    work = lane(("a/x", 0, 10), ("a/y", 11, 20), ("a/x", 30, 40), ("b/x", 40, 50))
    assert merged_spans(work, 2) == [("a", 0, 20), ("a", 30, 40), ("b", 40, 50)]
    assert merged_spans(work, 20) == [("a", 0, 40), ("b", 40, 50)]
    assert merged_spans(work, 0.5) == [("a", 0, 10), ("a", 11, 20), ("a", 30, 40), ("b", 40, 50)]


def test_the_picture(tmp_path: Path) -> None:
    run, _ = timed(Layer(1, 2), DEVICES["npu1"], 100)
    files = [timeline_figure(run, 1.0e9, tmp_path / name) for name in ("one.svg", "two.svg")]
    assert files[0].read_bytes() == files[1].read_bytes()
    drawn = files[0].read_text()
    assert all(text in drawn for text in ("core (0,2)", "(1,1).out0", "an estimate"))
    with pytest.raises(ZelligeError, match="must end in"):
        timeline_figure(run, 1.0e9, tmp_path / "one.gif")
