"""Values that stay in memory tiles between phases: results are right, nothing lies over another, and mistakes are noticed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from changes import descriptor, seen, without
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered import POWERS, SMALL, assert_runs_right, residual_block
from quantized_layers import quantized
from small_networks import Build
from test_emit import assert_same

from zellige.aie2.cycles import step_cycles
from zellige.aie2.device import DEVICES
from zellige.aie2.emit.files import emit, read
from zellige.aie2.lowering.lower import assemble
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.plan import Plan, ResidencyChoice, plan
from zellige.aie2.lowering.residency import NONE, Residency
from zellige.aie2.lowering.residency_search import Cycles, choose_residency, nothing_stays
from zellige.aie2.lowering.resident import Box, Resident
from zellige.aie2.lowering.schedule import Stays
from zellige.aie2.lowering.tiling import estimate
from zellige.aie2.overlay import Overlay, memory_shares, overlay
from zellige.aie2.phase import Phase
from zellige.aie2.program import Await, Program
from zellige.aie2.simulate import simulate
from zellige.aie2.tensor import host_value
from zellige.graph.ir import Graph
from zellige.graph.quantized import QuantizedGraph
from zellige.graph.quantized_reference import run_int8
from zellige.passes.pipeline import optimize


def eager(found: Placement, on: Overlay, outputs: Collection[str], cycles: Cycles) -> Residency:
    """All that can stay does, whether it pays or not."""
    def reads(phase: Phase, stays: Stays) -> float:
        return inf if cycles(phase, stays) == inf else float(-stays.source - stays.residual - stays.result)

    return choose_residency(found, on, outputs, reads)


def without_some(refused: str) -> ResidencyChoice:
    """All that can stay, but for one use."""
    def choose(found: Placement, on: Overlay, outputs: Collection[str], cycles: Cycles) -> Residency:
        def some(phase: Phase, stays: Stays) -> float:
            return inf if phase.residual is not None and getattr(stays, refused) else cycles(phase, stays)

        return eager(found, on, outputs, some)

    return choose


def small(rows: int, columns: int, resident: int | None = None, device: str = "npu1") -> Overlay:
    """An overlay whose memory tiles have so many bytes for what stays."""
    on = replace(overlay(DEVICES[device], rows, columns), core_memory=SMALL)
    if resident is None:
        return on
    used = on.device.memory_bytes // 32 * 32 - memory_shares(on).resident
    device_ = replace(on.device, memory_bytes=used + resident)
    found = replace(on, device=device_)
    assert memory_shares(found).resident >= resident
    return found


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Convolutions with windows of all kinds, residuals, pools and concatenations, one behind another."""
    height, width, channels = draw(st.integers(4, 11)), draw(st.integers(2, 9)), draw(st.sampled_from([8, 16, 20, 24]))
    b = Build(1, 8, height, width, seed=draw(st.integers(0, 99)))
    x = b.activation(b("conv2d", b.x, b.random(channels, 8, 1, 1)), "relu")
    outputs = []
    for _ in range(draw(st.integers(2, 5))):
        kind = draw(st.sampled_from(["point", "window", "window", "wide", "tall", "strided", "own", "residual", "padded", "concat",
                                     "pool"]))
        ins, outs = b.shape(x)[1], draw(st.sampled_from([8, 16, 24, 32]))
        if kind in ("point", "residual"):
            y = b("conv2d", x, b.random(ins if kind == "residual" else outs, ins, 1, 1))
            x = b.activation(b("add", y, x) if kind == "residual" else y, "relu")
        elif kind in ("window", "strided"):
            step = (1, 1) if kind == "window" else draw(st.sampled_from([(2, 1), (2, 2)]))
            x = b.activation(b("conv2d", x, b.random(outs, ins, 3, 3), padding=(1, 1, 1, 1), stride=step), "relu")
        elif kind == "padded":
            pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
            y = b("conv2d", x, b.random(ins, ins, 1, 1), padding=pads)
            x = b("add", y, b("pad", x, padding=pads, mode="zeros", value=0.0))
        elif kind == "wide":
            x = b("conv2d", x, b.random(outs, ins, 1, 5), padding=(0, 0, 2, 2))
        elif kind == "tall":
            x = b("conv2d", x, b.random(outs, ins, 3, 1), padding=(2, 0, 0, 0))
        elif kind == "own":
            x = b("conv2d", x, b.random(ins, 1, 3, 3), padding=(1, 1, 1, 1), groups=ins)
        elif kind == "concat":
            x = b("concat", x, b("conv2d", x, b.random(outs, ins, 1, 1)), dimension=1)
        else:
            x = b("max_pool2d", x, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
        if draw(st.booleans()):
            outputs.append(x)
    return optimize(b.done(*dict.fromkeys([*outputs[:1], x])))


STAYED: dict[str, int] = {}
"""How often each kind of thing stayed in the networks that were run."""


@settings(max_examples=25, deadline=None)
@given(networks(), st.sampled_from([(1, 1), (3, 1), (2, 2), (3, 2), (2, 4), (4, 3), (4, 4)]),
       st.sampled_from([None, 512, 1024, 3072]), st.sampled_from(["npu1", "paper"]))  # fmt: skip
def test_networks_run_right(graph: Graph, size: tuple[int, int], resident: int | None, device: str) -> None:
    made, on = quantized(graph, POWERS), small(*size, resident, device)
    planned = plan(made, on, eager)
    assert_all_fits(planned, on)
    for schedule in planned.schedules:
        stays = schedule.stays
        for name in ("source", "residual", "result"):
            STAYED[name] = STAYED.get(name, 0) + getattr(stays, name)
        STAYED["both"] = STAYED.get("both", 0) + (stays.result and stays.out)
        STAYED["halved"] = STAYED.get("halved", 0) + schedule.halved
    assert_runs_right(made, on, planned)


def test_everything_stayed_sometimes() -> None:
    assert all(STAYED[name] for name in ("source", "residual", "result", "both", "halved")), STAYED


def assert_all_fits(planned: Plan, on: Overlay) -> None:
    """Every place that stays is inside its share, and nobody's while another's value is still to be read."""
    found, residency = planned.placement, planned.residency
    order = {phase.name: at for at, phase in enumerate(found.phases)}
    lives = {}
    for tensor, one in residency.residents.items():
        writers = [at for at, phase in enumerate(found.phases) if phase.target.tensor == tensor]
        lives[tensor] = (min(writers), max(order[name] for name, _ in residency.uses[tensor]))
        assert residency.zeros <= one.at and one.at + one.size <= memory_shares(on).resident
    for tensor, one in residency.residents.items():
        for other, two in residency.residents.items():
            if tensor < other and one.at < two.at + two.size and two.at < one.at + one.size:
                assert lives[tensor][1] < lives[other][0] or lives[other][1] < lives[tensor][0]


def bottlenecks(blocks: int = 2, channels: int = 32, size: int = 8, width: int = 6) -> QuantizedGraph:
    b = Build(1, 8, size, width)
    x = b.activation(b("conv2d", b.x, b.random(channels, 8, 1, 1)), "relu")
    for _ in range(blocks):
        y = b.activation(b("conv2d", x, b.random(16, channels, 1, 1)), "relu")
        y = b.activation(b("conv2d", y, b.random(16, 16, 3, 3), padding=(1, 1, 1, 1)), "relu")
        x = b.activation(b("add", b("conv2d", y, b.random(channels, 16, 1, 1)), x), "relu")
    return quantized(optimize(b.done(x)), POWERS)


def test_bottlenecks_stay_whole() -> None:
    """Only the input is read from host memory, and only the output written there; zeros between lines are brought once."""
    graph, on = bottlenecks(3), overlay(DEVICES["npu1"], 2, 2)
    planned = plan(graph, on, eager)
    first, *between, last = planned.schedules
    assert first.stays == Stays(result=True, out=False) and last.stays == Stays(source=True, residual=True)
    assert all(one.stays.source and not one.stays.out and one.spares for one in between)
    program = assemble(graph, on, planned)
    assert {one.name for one in program.host if one.data is None} == {"x0", "zeros", last.phase.target.tensor}
    filling = [name for name in program.tasks if "/zeros in 0" in name]
    assert len(filling) == 2, filling  # those above and below all maps, and those of the maps that 3 × 3 windows read
    assert_runs_right(graph, on, planned)


@pytest.mark.parametrize("refused", ["source", "residual", "result"])
@pytest.mark.parametrize("rows, columns", [(2, 2), (4, 1), (3, 4)])
def test_operands_may_come_from_both_memories(refused: str, rows: int, columns: int) -> None:
    """What is added to a sum stays and the rest doesn't, or the other way round; with parts and without."""
    graph = bottlenecks(2, 48)
    for on in (overlay(DEVICES["npu1"], rows, columns), small(rows, columns)):
        planned = plan(graph, on, without_some(refused))
        added = [schedule.stays for schedule in planned.schedules if schedule.phase.residual is not None]
        assert any(one.source != one.residual if refused != "result" else one.source and one.residual for one in added)
        assert_runs_right(graph, on, planned)


def test_chains_of_columns_begin_in_the_order_of_parts() -> None:
    """Columns see other rows of zeros and of neighbours, so their chains end with other parts; all wait for the same packets."""
    b = Build(1, 8, 17, 17)
    x = b.activation(b("conv2d", b.x, b.random(64, 8, 1, 1)), "relu")
    x = b("conv2d", x, b.random(64, 64, 7, 7), padding=(3, 3, 3, 3))
    graph, on = quantized(optimize(b.done(b("conv2d", x, b.random(16, 64, 1, 1)))), POWERS), overlay(DEVICES["paper"], 2, 3)
    planned = plan(graph, on, eager)
    assert planned.schedules[1].stays.source and len(planned.schedules[1].parts) > 8
    program = assemble(graph, on, planned)
    simulate(program, {}, None, lambda packet: step_cycles(packet, on.device), device=on.device, move="packets")


@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (2, 0, 0, 0), (0, 1, 0, 3)])
@pytest.mark.parametrize("choose", [eager, choose_residency])
def test_a_residual_that_is_padded_reads_zeros(padding: tuple[int, int, int, int], choose: ResidencyChoice) -> None:
    """Rows beyond the edges of a map that stays, where no source sees any: the other operand comes from host memory."""
    b = Build(1, 8, 8, 6)
    kept = b.activation(b("conv2d", b.x, b.random(16, 8, 1, 1)), "relu")
    other = b("conv2d", b.x, b.random(16, 8, 1, 1), padding=padding)
    graph = quantized(optimize(b.done(b("add", other, b("pad", kept, padding=padding, mode="zeros", value=0.0)))), POWERS)
    for on in (overlay(DEVICES["npu1"], 2, 2), small(2, 2)):
        planned = plan(graph, on, choose)
        assert planned.schedules[-1].stays.residual and bool(planned.residency.zeros) == any(padding[:2])
        assert_all_fits(planned, on)
        assert_runs_right(graph, on, planned)


def test_a_network_with_everything_runs_right() -> None:
    graph = quantized(residual_block(), POWERS)
    for on in (overlay(DEVICES["paper"], 2, 2), overlay(DEVICES["npu1"], 4, 1), small(2, 2)):
        planned = plan(graph, on, eager)
        assert any(one.stays.residual for one in planned.schedules)
        assert_runs_right(graph, on, planned)


@pytest.mark.parametrize("rows, columns", [(5, 4), (8, 2)])
def test_nothing_stays_where_results_go_to_two_memory_tiles(rows: int, columns: int) -> None:
    assert plan(bottlenecks(), overlay(DEVICES["paper"], rows, columns), eager).residency == NONE


def test_columns_read_what_stays_from_neighbours_only() -> None:
    """Eight columns of the VE2802 lie above their shims, in pairs: 3 × 3 windows would reach over the gaps, and 1 × 1 don't."""
    on = overlay(DEVICES["ve2802"], 1, 8)
    assert on.reaches(0, 1) and not on.reaches(1, 2) and on.reaches(2, 3)
    planned = plan(bottlenecks(1), on, eager)
    assert {schedule.phase.window: schedule.stays.source for schedule in planned.schedules[1:]} == {(1, 1): True, (3, 3): False}
    assert all(schedule.stays.source for schedule in plan(bottlenecks(1), overlay(DEVICES["npu2"], 1, 8), eager).schedules[1:])
    assert_runs_right(bottlenecks(1), on, planned)


def test_what_stays_makes_no_phase_longer_by_the_estimates() -> None:
    graph = bottlenecks(3, 64, 28, 14)
    for device in ("npu1", "ve2802", "paper"):
        on = overlay(DEVICES[device], 4, 2)
        came, other = (sum(estimate(one).cycles for one in plan(graph, on, *how).schedules) for how in ((), (nothing_stays,)))
        assert came <= other
        assert device == "paper" or came < 0.95 * other


@given(st.integers(1, 30), st.integers(1, 6), st.integers(-4, 30), st.integers(1, 9))
def test_rows_come_from_the_columns_that_keep_them(height: int, columns: int, y: int, rows: int) -> None:
    resident = Resident("x", 0, height, 1, 1, 0, columns)
    if (columns - 1) * resident.rows >= height:
        return
    came = [(piece.column, row) for piece in resident.pieces(y, rows) for row in range(piece.y, piece.y + piece.rows)]
    assert [row for _, row in came] == list(range(y, y + rows))
    for column, row in came:
        assert (column is not None) == (0 <= row < height)
        if column is not None:
            assert 0 <= resident.offset(column, row, 0, 0) < resident.size
            assert column == min(at for at in range(columns) if row < min((at + 1) * resident.rows, height))


def test_lines_share_their_margins() -> None:
    resident = Resident("x", 64, 4, 2, 3, 1, 2)
    count, stride = resident.margins[0]
    zeros = {64 + 4 * (line * stride + word) for line in range(count) for word in range(resident.margins[1][0])}
    pixels = {resident.offset(0, y, group, x) + half for y in range(2) for group in range(2) for x in range(3) for half in (0, 4)}
    assert not zeros & pixels and zeros | pixels == set(range(64, 64 + resident.size, 4))
    (visit,) = resident.reads(0, Box(0, 1, 1, 1, -1, 5), 0)
    assert (visit.offset, visit.dimensions) == (64 + resident.line, ((10, 1),))


@pytest.fixture(scope="module")
def program() -> tuple[Program, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two bottlenecks between which everything stays; the input, and what the int8 reference answers."""
    graph, on = bottlenecks(2, 16, 6, 4), overlay(DEVICES["npu1"], 2, 2)
    made = assemble(graph, on, plan(graph, on, eager))
    x = np.random.default_rng(0).integers(-128, 128, next(iter(graph.inputs.values()))).astype(np.int8)
    value = host_value(next(iter(made.inputs.values())))
    fed = np.zeros(next(one.size for one in made.host if one.name == value.buffer), np.uint8)
    value.write(fed, x)
    return made, {value.buffer: fed}, run_int8(graph, [x])


def test_every_wait_for_what_stays_is_needed(program) -> None:
    made, fed, expected = program
    assert seen(made, fed, expected) == "right"
    waits = [one for one in made.sequence if isinstance(one, Await) and "/results in" in one.task]
    assert len(waits) > 10
    for wait in waits[:: len(waits) // 10]:
        assert seen(without(wait)(made), fed, expected) == "RaceError", wait


def test_places_that_are_others_are_noticed(program) -> None:
    made, fed, expected = program
    kept = [(name, at) for name, task in made.tasks.items() for at, one in enumerate(task.descriptors) if ".resident" in one.buffer]
    assert len(kept) > 20
    kept = [(name, at) for name, at in kept if made.tasks[name].descriptors[at].offset]  # zeros are zeros anywhere
    for name, at in kept[:: len(kept) // 12]:
        one = made.tasks[name].descriptors[at]
        for offset in (one.offset + 8, one.offset - 8):
            assert seen(descriptor(name, at, offset=offset)(made), fed, expected) != "right", (name, at)


def test_what_lies_out_of_reach_is_refused(program) -> None:
    """A column reaches its neighbours' memory tiles; and no column beyond them, nor one by the last two channels."""
    made, fed, expected = program
    reads = next((name, at) for name, task in made.tasks.items() for at, one in enumerate(task.descriptors)
                 if "activations out 0" in name and one.buffer == "memory1.resident")
    assert seen(descriptor(*reads, buffer="memory3.resident")(made), fed, expected) == "CompileError"
    smaller = tuple(replace(one, size=1024) if one.name == "memory0.resident" else one for one in made.buffers)
    assert seen(replace(made, buffers=smaller), fed, expected) == "CompileError"


def test_zeros_must_be_brought(program) -> None:
    made, fed, expected = program
    names = [name for name in made.tasks if "/zeros " in name]
    gone = tuple(one for one in made.sequence if one.task not in names)
    assert seen(replace(made, sequence=gone, tasks={name: task for name, task in made.tasks.items() if name not in names}),
                fed, expected) == "SimulationError"


def test_halves_of_packets_must_match(program) -> None:
    made, fed, expected = program
    name = next(name for name in made.tasks if "/rest shim 0" in name)
    one = made.tasks[name].descriptors[0]
    assert seen(descriptor(name, 0, offset=one.offset - 32)(made), fed, expected) != "right"


def test_programs_come_back_from_their_files(program, tmp_path: Path) -> None:
    made, _, _ = program
    emit(made, tmp_path / "files")
    assert_same(made, read(tmp_path / "files"))


def test_the_plan_is_always_the_same() -> None:
    graph, on = bottlenecks(), overlay(DEVICES["npu1"], 2, 2)
    assert str(assemble(graph, on, plan(graph, on))) == str(assemble(graph, on, plan(graph, on)))
