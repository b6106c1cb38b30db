"""Programs with one thing changed: what each change breaks is noticed, by a check, while running, or by other results.

A layer is made by hand, so that every ring goes round; its results are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from changes import Change, descriptor, seen, without
from hand_made import Layer, cycles, step
from quantized_layers import quantized
from small_networks import Build

from zellige.aie2.check import check
from zellige.aie2.device import DEVICES
from zellige.aie2.lowering.lower import lower
from zellige.aie2.overlay import overlay
from zellige.aie2.packet import decode
from zellige.aie2.program import Await, Channel, Program, Release, Repeat, Start, Step, Tile
from zellige.aie2.simulate import simulate
from zellige.aie2.tensor import host_value
from zellige.errors import CompileError, DeadlockError, RaceError, SimulationError
from zellige.graph.quantized_reference import run_int8
from zellige.passes.scales import Scheme

LAYER = Layer(2, 2)
PROGRAM = LAYER.program()
SMALL = Layer(1, 1)
"""For sweeps over everything that there is."""


def outcome(program: Program, layer: Layer = LAYER) -> str:
    """What becomes of it: the name of an error, or whether results are right."""
    try:
        check(program)
        run = simulate(program, {"x": layer.x()}, step, cycles)
    except CompileError as error:
        return type(error).__name__
    return "right" if np.array_equal(run.host["y"].view(np.int8), layer.result().reshape(-1)) else "wrong"


def lock(name: str, initial: int) -> Change:
    return lambda program: replace(program, locks=tuple(replace(one, initial=initial) if one.name == name else one
                                                        for one in program.locks))  # fmt: skip


def buffer(name: str, **changes: object) -> Change:
    return lambda program: replace(program, buffers=tuple(replace(one, **changes) if one.name == name else one
                                                          for one in program.buffers))  # fmt: skip


def packet(at: int, word: str, change: Callable[[int], int]) -> Change:
    """Change one number of the packet of row 0."""

    def changed(program: Program) -> Program:
        host = {one.name: one for one in program.host}
        data = host["packet0"].data.copy()
        data[at:].view(word)[0] = change(int(data[at:].view(word)[0]))
        host["packet0"] = replace(host["packet0"], data=data)
        return replace(program, host=tuple(host.values()))

    return changed


def offset(change: Callable[[int], int]) -> Change:
    """Change where the first tap of the packet of row 0 reads."""

    def changed(program: Program) -> Program:
        found = decode(next(one.data for one in program.host if one.name == "packet0"))
        offsets = found.offsets.copy()
        offsets[0] = change(int(offsets[0]))
        data = replace(found, offsets=offsets).encode()
        return replace(program, host=tuple(replace(one, data=data) if one.name == "packet0" else one for one in program.host))

    return changed


def task(name: str, **changes: object) -> Change:
    return lambda program: replace(program, tasks={**program.tasks, name: replace(program.tasks[name], **changes)})


def instructions(change: Callable[[tuple], tuple]) -> Change:
    """Change the body of the loop over steps, of one core."""

    def changed(program: Program) -> Program:
        (forever,) = program.cores[0].program
        acquire, steps, release = forever.body
        body = (acquire, Repeat(steps.times, change(steps.body)), release)
        core = replace(program.cores[0], program=(Repeat(None, body),))
        return replace(program, cores=(core, *program.cores[1:]))

    return changed


def test_the_layer_itself_is_right() -> None:
    assert outcome(PROGRAM) == "right"


@pytest.mark.parametrize("kind", ["acquire", "release", "swapped"])
def test_every_lock_of_every_descriptor_is_needed(kind: str) -> None:
    program = SMALL.program()
    for name, found in program.tasks.items():
        for at, one in enumerate(found.descriptors):
            if one.acquire is not None:
                changes = {"acquire": one.release, "release": one.acquire} if kind == "swapped" else {kind: None}
                seen = outcome(descriptor(name, at, **changes)(program), SMALL)
                assert seen in ("DeadlockError", "RaceError", "SimulationError"), (name, at, seen)


def test_initial_values_of_locks() -> None:
    """One empty slot less only costs time, and one more harms no ring that doesn't go round; a core's are known to the checks."""
    program = SMALL.program()
    for one in (found for found in program.locks if ".rest." not in found.name):  # which no task uses here
        for value in {0, 1, 2, 3} - {one.initial}:
            seen = outcome(lock(one.name, value)(program), SMALL)
            harmless = one.name.startswith("memory") and one.name.endswith("empty") and (value == 1 or "weights" in one.name)
            assert seen != "wrong"
            assert seen != "right" or harmless, (one.name, value)


LATER = LAYER.program().tasks["layer/y0"].descriptors[0].offset

ONE_CHANGE: dict[str, tuple[Change, type[CompileError] | None, str]] = {
    "a buffer is smaller": (buffer("core0.0.activations.1", size=96), CompileError, "goes to byte 128 of core0.0.activations.1"),
    "a buffer moves onto another": (buffer("core0.0.results.0", address=0), CompileError, "overlap"),
    "two locks change their values": (
        lambda program: lock("core0.0.results.full", 2)(lock("core0.0.results.empty", 0)(program)), SimulationError, "has written"),
    "an index of a packet is another": (offset(lambda value: value ^ 1), None, "wrong"),
    "an index points behind the object": (offset(lambda value: value + 100), SimulationError, "has written"),
    "an index points out of the buffer": (
        offset(lambda value: value + 5000), SimulationError, "of core0.0.activations.0, which has 6144"),
    "a packet has another size": (packet(0, "<i4", lambda value: value - 32), SimulationError, "no packet in core0.0.weights.0"),
    "a packet has a step less": (packet(8, "<i4", lambda value: value - 1), DeadlockError, "core0.0.results.full"),
    "a packet has a step more": (packet(8, "<i4", lambda value: value + 1), DeadlockError, "core0.0.activations.full"),
    "a packet wants no result": (packet(16, "<i4", lambda _: 0), CompileError, "no room for a result"),
    "a stride of the input": (descriptor("layer/x0", 0, dimensions=((4, 17), (8, 1))), None, "wrong"),
    "a stride of the result": (descriptor("layer/y0", 0, dimensions=((2, 68), (2, 16), (8, 1))), RaceError, "of y, which"),
    "an input starts a word later": (descriptor("layer/x0", 0, offset=4), None, "wrong"),
    "the input doesn't go on": (descriptor("layer/x0", 0, advance=(1, 0)), None, "wrong"),
    "results of rows change places": (descriptor("layer/y0", 1, offset=LATER), None, "wrong"),
    "a descriptor fills the other slot": (
        descriptor("layer/core x 0.0", 1, buffer="core0.0.activations.0"), RaceError, "core0.0.activations.0, which"),
    "a descriptor is too short": (descriptor("layer/core x 0.0", 1, dimensions=((31, 1),)), SimulationError, "nothing has written"),
    "a descriptor takes a number in use": (descriptor("layer/x out 0", 0, number=1), RaceError, "writes descriptor 1 of"),
    "a task runs on another queue": (
        task("layer/core x 0.0", channel=Channel(Tile(0, 2), "in", 1)), DeadlockError, "core0.0.activations.empty"),
    "a task repeats once more": (task("layer/x0", repeat=5), DeadlockError, r"\(0,0\).out0 \(task layer/x0"),
    "a task isn't started": (without(Start("layer/packet0")), DeadlockError, r"\(0,0\).out1 has no task to do"),
    "a result isn't awaited, nor anything else": (without(Await("layer/y0")), None, "right"),
    "a flow misses a core": (
        lambda program: replace(program, flows=tuple(replace(flow, destinations=flow.destinations[:1]) if flow.packet == 0 else flow
                                                     for flow in program.flows)), DeadlockError, "core0.1.activations.full"),
    "a core doesn't give its input back": (instructions(lambda body: body[:-1]), DeadlockError, "core0.0.activations.empty"),
    "a core doesn't wait for its input": (instructions(lambda body: body[1:]), SimulationError, "core0.0.activations"),
    "a core doesn't wait for room": (instructions(lambda body: (body[0], *body[2:])), SimulationError, "core0.0.results"),
    "a core gives its input back first": (instructions(lambda body: (*body[:2], body[4], *body[2:4])), RaceError, "activations"),
    "a core steps twice": (instructions(lambda body: (*body[:2], Step(), *body[2:])), None, "right"),
    "a core gives a result twice": (
        instructions(lambda body: (*body, Repeat("results", (Release("results.full"),)))), SimulationError, "core0.0.results"),
}  # fmt: skip
"""What is changed; the error that it must lead to, with something from its message; without one, what results are."""


@pytest.mark.parametrize("name", ONE_CHANGE)
def test_one_change(name: str) -> None:
    change, error, message = ONE_CHANGE[name]
    changed = change(PROGRAM)
    if error is None:
        assert outcome(changed) == message
        return
    with pytest.raises(error, match=message):
        check(changed)
        simulate(changed, {"x": LAYER.x()}, step, cycles)


def test_a_release_too_many_is_seen_in_the_end() -> None:
    """A program must leave its locks as it found them, or it could run but once."""
    program = descriptor("layer/core packet 0.0", 0, acquire=None)(PROGRAM)
    with pytest.raises(SimulationError, match=r"the lock core0.0.weights.empty begins at 2 and ends at 3"):
        simulate(program, {"x": LAYER.x()}, step, cycles)


def test_a_core_must_keep_its_packet() -> None:
    """With a packet for each step, the third takes the slot of the first: no sooner than its step is done."""
    program = packet(8, "<i4", lambda _: 1)(SMALL.program())
    tasks = dict(program.tasks)
    for name, number in (("layer/packet in 0", 25), ("layer/packet out 0", 39), ("layer/core packet 0.0", 3)):
        (first,) = tasks[name].descriptors
        second = replace(first, number=number, buffer=first.buffer.replace("weights.0", "weights.1"))
        tasks[name] = replace(tasks[name], descriptors=(first, second), repeat=2)
    tasks["layer/packet0"] = replace(tasks["layer/packet0"], repeat=4)
    program = replace(program, tasks=tasks)
    assert outcome(program, SMALL) == "right"
    (forever,) = program.cores[0].program
    acquire, steps, release = forever.body
    hasty = replace(program.cores[0], program=(Repeat(None, (acquire, release, steps)),))
    with pytest.raises(RaceError, match=r"byte 0 of core0\.0\.weights\.0, which core"):
        simulate(replace(program, cores=(hasty,)), {"x": SMALL.x()}, step, cycles)


def small_network() -> tuple[Program, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two convolutions and their sum, lowered; its inputs in host buffers, and what the int8 reference answers."""
    build = Build(1, 8, 8, 8)
    wide = build.conv(build.x, 24, 3, padding=(1, 1, 1, 1))
    total = build("add", wide, build.conv(wide, 24))
    graph = quantized(replace(build.graph, outputs=(total,)), Scheme(powers_of_two=True, rows=8))
    program = lower(graph, overlay(DEVICES["npu1"], 2, 2))
    x = np.random.default_rng(0).integers(-128, 128, (1, 8, 8, 8)).astype(np.int8)
    value = host_value(next(iter(program.inputs.values())))
    held = next(one for one in program.host if one.name == value.buffer)
    fed = np.zeros(held.size, np.uint8) if held.data is None else held.data.view(np.uint8).copy()
    value.write(fed, x)
    return program, {value.buffer: fed}, run_int8(graph, [x])


def locks_of(program: Program) -> list[Change]:
    """Every lock of every descriptor left out, and each pair of them the other way round."""
    found = []
    for name, one in program.tasks.items():
        for at, each in enumerate(one.descriptors):
            found += [descriptor(name, at, **{word: None}) for word in ("acquire", "release") if getattr(each, word) is not None]
            if (each.acquire, each.release) != (None, None):
                found.append(descriptor(name, at, acquire=each.release, release=each.acquire))
    return found


def test_locks_of_a_lowered_network() -> None:
    program, fed, expected = small_network()
    assert seen(program, fed, expected) == "right"
    for change in locks_of(program)[::23]:
        assert seen(change(program), fed, expected) in ("DeadlockError", "RaceError", "SimulationError")


@pytest.mark.full
def test_all_locks_of_a_lowered_network() -> None:
    program, fed, expected = small_network()
    for change in locks_of(program):
        assert seen(change(program), fed, expected) in ("DeadlockError", "RaceError", "SimulationError")
