"""Static checks: a sound program passes, and each that has one thing wrong is refused by the check for it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hand_made import Layer

from zellige.aie2.check import CHECKS, check
from zellige.aie2.check.routes import capacity, ports, routes
from zellige.aie2.device import DEVICES
from zellige.aie2.program import Await, Buffer, Channel, Flow, Lock, Program, Release, Start, Tile
from zellige.errors import CompileError

LAYER = Layer(2, 2)
PROGRAM = LAYER.program()
Change = Callable[[Program], Program]


@pytest.mark.parametrize("layer", [
    Layer(1, 1), LAYER, Layer(4, 4), Layer(3, 1), Layer(4, 6, device="ve2802"), Layer(4, 8, device="npu2"),
    Layer(8, 8, device="paper"),
], ids=str)  # fmt: skip
def test_sound_programs_pass(layer: Layer) -> None:
    check(layer.program())


def buffer(name: str, **changes: object) -> Change:
    return lambda program: replace(program, buffers=tuple(replace(one, **changes) if one.name == name else one
                                                          for one in program.buffers))  # fmt: skip


def host(name: str, **changes: object) -> Change:
    return lambda program: replace(program, host=tuple(replace(one, **changes) if one.name == name else one
                                                       for one in program.host))  # fmt: skip


def lock(name: str, **changes: object) -> Change:
    return lambda program: replace(program, locks=tuple(replace(one, **changes) if one.name == name else one
                                                        for one in program.locks))  # fmt: skip


def task(name: str, **changes: object) -> Change:
    return lambda program: replace(program, tasks={**program.tasks, name: replace(program.tasks[name], **changes)})


def descriptor(name: str, at: int = 0, **changes: object) -> Change:
    def change(program: Program) -> Program:
        chain = list(program.tasks[name].descriptors)
        chain[at] = replace(chain[at], **changes)
        return task(name, descriptors=tuple(chain))(program)

    return change


def core(at: int, **changes: object) -> Change:
    return lambda program: replace(program, cores=tuple(replace(one, **changes) if number == at else one
                                                        for number, one in enumerate(program.cores)))  # fmt: skip


def more(field: str, *things: object) -> Change:
    return lambda program: replace(program, **{field: (*getattr(program, field), *things)})


MEMORY, CORE, SHIM = Tile(0, 1), Tile(0, 2), Tile(0, 0)

WRONG: list[tuple[str, Change, str]] = [
    ("names", more("buffers", PROGRAM.buffers[0]), "2 buffers called"),
    ("names", more("locks", PROGRAM.locks[0]), "2 locks called"),
    ("names", more("locks", Lock("another", CORE, 0, 0)), "2 locks are number 0"),
    ("names", more("cores", PROGRAM.cores[0]), "2 cores at"),
    ("memory", buffer("core0.0.accumulators", size=16 * 1024), "beside a stack of 1024"),
    ("memory", more("buffers", Buffer("big", MEMORY, 512 * 1024, 80 * 1024)), r"ends at byte 606208 of \(0,1\)"),
    ("memory", buffer("core0.0.results.0", address=32), "overlap"),
    ("memory", buffer("core0.0.results.0", size=4095), "whole words"),
    ("memory", buffer("core0.0.accumulators", address=49168), "begins at no multiple of 32 bytes"),
    ("memory", more("buffers", Buffer("lost", Tile(9, 9), 0, 64)), "in no tile"),
    ("memory", host("x", size=3), "whole words"),
    ("memory", host("packet0", size=4), "with data has [0-9]+ bytes of it"),
    ("locks", lock("core0.0.weights.full", number=16), "a core tile has locks 0 … 15"),
    ("locks", lock("core0.0.weights.full", initial=64), "count from 0 to 63"),
    ("cores", core(0, tile=MEMORY), "no core at"),
    ("cores", core(0, accumulators="nothing"), "uses the buffer nothing"),
    ("cores", core(0, accumulators="core1.1.accumulators"), "can't reach the buffer"),
    ("cores", lock("core0.0.weights.empty", initial=3), "their ring has 2 slots"),
    ("cores", core(0, program=(Release("inputs.full"),)), "names the lock inputs.full"),
    ("tasks", task("layer/x0", channel=Channel(SHIM, "out", 2)), "a shim tile has 2 of that direction"),
    ("tasks", task("layer/x0", channel=Channel(Tile(4, 0), "out", 0)), "column 4 has no DMA"),
    ("tasks", task("layer/x0", channel=Channel(Tile(9, 0), "out", 0)), "no tile for the channel"),
    ("tasks", task("layer/x0", descriptors=()), "no descriptor"),
    ("tasks", descriptor("layer/x in 0", 1, number=0), "a descriptor twice"),
    ("tasks", task("layer/x0", repeat=257), "1 … 256 is possible"),
    ("descriptors", descriptor("layer/x0", number=16), "descriptors 0 … 15"),
    ("descriptors", descriptor("layer/packet in 0", number=3), "odd ones 24 … 47"),
    ("descriptors", descriptor("layer/x in 0", number=24), "even channels use descriptors 0 … 23"),
    ("descriptors", descriptor("layer/x0", dimensions=((2, 9), (2, 7), (2, 5), (2, 3))), "4 dimensions; 3 are possible"),
    ("descriptors", descriptor("layer/x0", dimensions=((4, 0), (8, 1))), "at least 1"),
    ("descriptors", descriptor("layer/core x 0.0", dimensions=((2, 9000), (16, 1))), "a stride of 9000 words"),
    ("descriptors", descriptor("layer/core x 0.0", dimensions=((2, 300), (256, 1))), "an inner dimension of 256"),
    ("descriptors", descriptor("layer/x0", advance=(65, 32)), "64 times"),
    ("descriptors", descriptor("layer/x0", buffer="z"), "no buffer z"),
    ("descriptors", descriptor("layer/x0", buffer="core0.0.accumulators"), "doesn't reach the buffer"),
    ("descriptors", descriptor("layer/core x 0.0", buffer="x"), "which only shims reach"),
    ("descriptors", descriptor("layer/core x 0.0", buffer="core0.1.activations.0"), "doesn't reach the buffer"),
    ("descriptors", descriptor("layer/x0", offset=2), "no whole number of words"),
    ("descriptors", descriptor("layer/x0", dimensions=((4, 16), (9, 1)), offset=32), "goes to byte 1028 of x, which has 1024"),
    ("descriptors", descriptor("layer/x0", advance=(5, 64)), "goes to byte 1248 of x"),
    ("descriptors", descriptor("layer/core x 0.0", acquire="z"), "acquires the lock z"),
    ("descriptors", descriptor("layer/core x 0.0", release="core0.1.activations.full"), "which the channel doesn't reach"),
    ("descriptors", buffer("core0.0.activations.0", size=64), "which has 64"),
    ("sequence", more("sequence", Start("z")), "names the task z"),
    ("sequence", lambda program: replace(program, sequence=(Await("layer/y0"), *program.sequence)), "before it starts it"),
    ("flows", more("flows", Flow(Channel(MEMORY, "out", 9), (Channel(CORE, "in", 0),))), "no channel"),
    ("flows", more("flows", Flow(Channel(CORE, "in", 0), (Channel(MEMORY, "in", 4),))), "goes the other way"),
    ("flows", more("flows", Flow(Channel(CORE, "out", 1), ())), "no destination"),
    ("flows", more("flows", Flow(Channel(CORE, "out", 1), (Channel(MEMORY, "in", 4),), 32)), "packet numbers are 0 … 31"),
    ("flows", more("flows", Flow(Channel(CORE, "out", 1), (Channel(MEMORY, "in", 0),))), "has a source already"),
    ("flows", more("flows", Flow(Channel(MEMORY, "out", 0), (Channel(CORE, "in", 0),))), "can't be told apart"),
    ("flows", descriptor("layer/x out 0", packet=None), "sends packets None"),
    ("flows", descriptor("layer/x out 0", packet=7), "sends packets 7"),
    ("flows", descriptor("layer/x in 0", packet=0), "mark packets"),
    ("flows", lambda program: replace(program, flows=program.flows[:-1]), "sends packets None .* take nothing"),
]


@pytest.mark.parametrize("kind, change, message", WRONG, ids=[f"{kind}: {message}" for kind, _, message in WRONG])
def test_one_thing_wrong(kind: str, change: Change, message: str) -> None:
    wrong = change(PROGRAM)
    for name, find in CHECKS.items():
        if name == kind:
            break
        assert list(find(wrong, LAYER.on.device)) == []
    with pytest.raises(CompileError, match=message):
        check(wrong)


def test_routes_are_trees_within_the_ports() -> None:
    device, program = DEVICES["npu2"], Layer(4, 8, device="npu2").program()
    found, held = routes(program, device), {}
    for flow in program.flows:
        reached = {flow.source.tile}
        tree = set(found[flow.source])
        while any(link[0] in reached for link in tree):
            link = min(link for link in tree if link[0] in reached)
            tree.remove(link)
            assert link[1] not in reached
            reached.add(link[1])
        assert tree == set()
        assert {one.tile for one in flow.destinations} <= reached
    for tree in found.values():
        for link in tree:
            held[link] = held.get(link, 0) + 1
            assert 0 < held[link] <= capacity(link, device)


def test_too_many_streams_for_a_link() -> None:
    """What the cores of a column send down goes through its memory tile's switch, to which there are four ports."""
    device = replace(DEVICES["npu1"], columns=1)
    down = tuple(Flow(Channel(Tile(0, row), "out", 0), (Channel(Tile(0, 1), "in", row - 2),)) for row in range(2, 6))
    assert list(ports(replace(PROGRAM, flows=down), device)) == []
    fifth = Flow(Channel(Tile(0, 3), "out", 1), (Channel(Tile(0, 1), "in", 4),))
    found = list(ports(replace(PROGRAM, flows=(*down, fifth)), device))
    assert len(found) == 1 and "the switch of (0,2) has 4 ports to the south" in found[0] and "(0,3).out1" in found[0]


def test_messages_name_program_and_device() -> None:
    with pytest.raises(CompileError, match="hand made on npu1: "):
        check(task("layer/x0", repeat=0)(PROGRAM))
