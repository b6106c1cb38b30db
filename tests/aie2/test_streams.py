"""Streams between channels: word order, time, queues, packets; on programs that only move words of external memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.aie2.device import DEVICES
from zellige.aie2.program import Await, Channel, Descriptor, Flow, HostBuffer, Program, Start, Task, Tile
from zellige.aie2.simulate import Costs, simulate
from zellige.errors import DeadlockError, InputError, RaceError, SimulationError

FREE = Costs(descriptor=0, lock=0, call=0, start=0, packet=0)
SIZE = 4096


def out(column: int, number: int = 0) -> Channel:
    return Channel(Tile(column, 0), "out", number)


def into(column: int, number: int = 0) -> Channel:
    return Channel(Tile(column, 0), "in", number)


def line(words: int, offset: int = 0, number: int = 0, buffer: str = "x", **more: object) -> Descriptor:
    return Descriptor(number, buffer, 4 * offset, ((words, 1),), **more)


def moves(flows: list[Flow], tasks: list[Task], order: list[Start | Await] | None = None, device: str = "npu2") -> Program:
    sequence = [*map(Start, (task.name for task in tasks)), *map(Await, (task.name for task in tasks))] if order is None else order
    host = (HostBuffer("x", SIZE), HostBuffer("y", SIZE), HostBuffer("z", SIZE))
    return Program("moves", device, (), host, (), tuple(flows), (), {task.name: task for task in tasks}, tuple(sequence), {}, {})


def no_kernel(*_: object) -> float:
    raise AssertionError("there are no cores")


def run(program: Program, costs: Costs = FREE) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    found = simulate(program, {"x": X}, no_kernel, no_kernel, costs)
    return (*(found.host[name].view("<u4") for name in "xyz"), found.cycles)


X = np.arange(1, SIZE // 4 + 1, dtype="<u4")

PATTERNS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=3).map(
    lambda drawn: tuple((size, 1 + extra + 4 * (len(drawn) - 1 - at) ** 2) for at, (size, extra) in enumerate(drawn)))  # fmt: skip


@st.composite
def chains(draw: st.DrawFn, buffer: str) -> tuple[tuple[Descriptor, ...], int]:
    """Descriptors that lie apart, and how often they repeat."""
    found, at = [], 0
    repeat = draw(st.integers(1, 3))
    for number in range(draw(st.integers(1, 3))):
        one = Descriptor(number, buffer, at, draw(PATTERNS), advance=(draw(st.integers(1, 3)), 40))
        found.append(one)
        at += one.reach
    return tuple(found), repeat


def visited(chain: tuple[Descriptor, ...], repeat: int) -> list[int]:
    """The words of a task, one by one."""
    found = []
    for turn in range(repeat):
        for one in chain:
            count, stride = one.advance
            places = [one.offset // 4 + turn % count * stride]
            for size, step in one.dimensions:
                places = [place + at * step for place in places for at in range(size)]
            found += places
    return found


@given(chains("x"), st.lists(chains("y"), min_size=1, max_size=2), st.integers(1, 50))
def test_words_arrive_in_order_whatever_the_descriptors(
    source: tuple[tuple[Descriptor, ...], int], sinks: list[tuple[tuple[Descriptor, ...], int]], rest: int
) -> None:
    """Descriptors of source and destinations end at different words; one of the rest's length evens the sums out."""
    ways = [source, *((tuple(replace(one, buffer="yz"[at]) for one in chain), repeat) for at, (chain, repeat) in enumerate(sinks))]
    total = max(len(visited(*way)) for way in ways) + rest
    channels = [out(0), into(1), into(2)]
    tasks, orders = [], []
    for at, (channel, way) in enumerate(zip(channels, ways, strict=False)):
        words = visited(*way)
        last = line(total - len(words), 700, 15, "xyz"[at])
        tasks += [Task(f"a{at}", channel, *way), Task(f"b{at}", channel, (last,))]
        orders.append([*words, *range(700, 700 + total - len(words))])
    flow = Flow(out(0), tuple(channels[1 : len(ways)]))
    x, y, z, _ = run(moves([flow], tasks), Costs())
    for result, order in zip((y, z), orders[1:], strict=False):
        expected = np.zeros_like(x)
        for place, value in zip(order, X[orders[0]], strict=True):
            expected[place] = value
        assert np.array_equal(result, expected)


def test_a_word_a_cycle_or_what_a_shim_does() -> None:
    tasks = [Task("from", out(0), (line(600),)), Task("to", into(1), (line(600, buffer="y"),))]
    assert run(moves([Flow(out(0), (into(1),))], tasks))[3] == 600
    assert run(moves([Flow(out(0), (into(1),))], tasks, device="npu1"))[3] == pytest.approx(600 * 1.6)
    costs = Costs(descriptor=5, start=10)
    assert run(moves([Flow(out(0), (into(1),))], tasks), costs)[3] == 20 + 5 + 600


def copies(column: int, words: int, to: int) -> list[Task]:
    return [Task(f"from{column}", out(column), (line(words),)), Task(f"to{column}", into(column), (line(words, to, 8, "y"),))]


@pytest.mark.parametrize("streams, words", [(4, 250), (8, 100)])
def test_external_memory_is_shared(streams: int, words: int) -> None:
    """25.6 GB/s at 1.25 GHz are 5.12 words a cycle; a channel has 0.8. Streams here begin and end in shims, and count once."""
    columns = DEVICES["ve2802"].shim_columns[:streams]
    flows = [Flow(out(at), (into(at),)) for at in columns]
    tasks = [task for number, at in enumerate(columns) for task in copies(at, words, number * words)]
    assert run(moves(flows, tasks, device="ve2802"))[3] == pytest.approx(words / min(0.8, 5.12 / streams))


def test_who_ends_first_leaves_room_for_the_others() -> None:
    """Eight streams share until the short ones end."""
    columns = DEVICES["ve2802"].shim_columns[:8]
    lengths = [50] * 4 + [100] * 4
    flows = [Flow(out(at), (into(at),)) for at in columns]
    tasks = [task for number, at in enumerate(columns) for task in copies(at, lengths[number], 100 * number)]
    assert run(moves(flows, tasks, device="ve2802"))[3] == pytest.approx(50 / 0.64 + 50 / 0.8)


def test_packets_go_where_their_number_says() -> None:
    flows = [Flow(out(0), (into(1),), 3), Flow(out(0), (into(2),), 5), Flow(out(0), (into(1), into(2)), 0)]
    chain = tuple(line(10, 10 * at, at, packet=packet) for at, packet in enumerate((5, 3, 0, 3)))
    tasks = [Task("from", out(0), chain), Task("y", into(1), (line(30, buffer="y"),)), Task("z", into(2), (line(20, buffer="z"),))]
    _, y, z, _ = run(moves(flows, tasks))
    assert np.array_equal(y[:30], np.r_[X[10:20], X[20:30], X[30:40]])
    assert np.array_equal(z[:20], np.r_[X[:10], X[20:30]])
    chain = (line(10, packet=4),)
    with pytest.raises(SimulationError, match="packet number 4"):
        run(moves(flows, [Task("from", out(0), chain), *tasks[1:]]))


def test_a_full_queue_holds_the_sequence_back() -> None:
    """One task runs and four wait; the sixth start waits for the first to end, and with it everything behind."""
    many = [Task(f"from{at}", out(0), (line(10, 10 * at, at),)) for at in range(6)]
    other = [Task("other", out(1), (line(5),)), Task("to other", into(1), (line(5, 0, 8, "z"),))]
    flows = [Flow(out(0), (into(0),)), Flow(out(1), (into(1),))]
    sink = Task("to", into(0), (line(60, 0, 8, "y"),))
    order = [Start("to"), *(Start(task.name) for task in many), Start("other"), Start("to other"), Await("to"), Await("to other")]
    found = simulate(moves(flows, [*many, *other, sink], order), {"x": X}, no_kernel, no_kernel, FREE)
    assert next(iter(found.lanes["(1,0).out0"])) == ("other", 10, 15)
    late = [*(Start(task.name) for task in many), Start("to"), Await("to")]
    with pytest.raises(DeadlockError, match=r"the sequence waits for room in the queue of \(0,0\).out0") as caught:
        run(moves(flows, [*many, sink], late))
    assert r"(0,0).out0 (task from0, descriptor 0) has 10 words left for (0,0).in0" in str(caught.value)
    assert "command 5 of 8: start from5" in str(caught.value)


COPY = [Task("from", out(0), (line(8),)), Task("to", into(1), (line(8, buffer="y"),))]
BACK = [Task("from y", out(1), (line(8, 0, 8, "y"),)), Task("to z", into(2), (line(8, buffer="z"),))]
BOTH = [Flow(out(0), (into(1),)), Flow(out(1), (into(2),))]


def test_a_read_must_wait_for_the_write() -> None:
    starts = {task.name: Start(task.name) for task in (*COPY, *BACK)}
    first, then, ends = [starts["from"], starts["to"]], [starts["from y"], starts["to z"]], [Await("to z"), Await("to")]
    assert np.array_equal(run(moves(BOTH, [*COPY, *BACK], [*first, Await("to"), *then, Await("to z")]))[2][:8], X[:8])
    for order in ([*first, *then, *ends], [*first, Await("from"), *then, *ends], [*then, *first, *ends]):
        with pytest.raises(RaceError, match="of y, which"):
            run(moves(BOTH, [*COPY, *BACK], order))


def test_a_write_must_wait_for_the_read() -> None:
    """The second copy overwrites what the first still sends; one word of overlap is enough, and none is none."""
    for offset, sound in ((7, False), (8, True)):
        over = [Task("over", out(2), (line(8, 100, buffer="z"),)), Task("to x", into(3), (line(8, offset, buffer="x"),))]
        program = moves([BOTH[0], Flow(out(2), (into(3),))], [*COPY, *over])
        if sound:
            run(program)
        else:
            with pytest.raises(RaceError, match=r"byte 28 of x, which \(0,0\).out0 \(task from\) reads meanwhile"):
                run(program)
            one_by_one = [*map(Start, ("from", "to")), Await("to"), *map(Start, ("over", "to x")), Await("to x")]
            run(moves([BOTH[0], Flow(out(2), (into(3),))], [*COPY, *over], one_by_one))


def test_descriptors_in_use_are_not_written() -> None:
    again = [Task("again", out(0), (line(8, 8),)), Task("to again", into(1), (line(8, 8, 1, buffer="y"),))]
    starts = [Start(task.name) for task in (*COPY, *again)]
    with pytest.raises(RaceError, match=r"\(command 2\) starts the task again and writes descriptor 0 of \(0,0\)"):
        run(moves(BOTH[:1], [*COPY, *again], [*starts, Await("to again")]))
    run(moves(BOTH[:1], [*COPY, *again], [*starts[:2], Await("to"), *starts[2:], Await("to again")]))


def test_what_is_refused_at_once() -> None:
    program = moves(BOTH, COPY)
    with pytest.raises(InputError, match="no host buffer 'w'"):
        simulate(program, {"w": X}, no_kernel, no_kernel)
    with pytest.raises(InputError, match="has 4096 bytes, got 4"):
        simulate(program, {"x": X[:1]}, no_kernel, no_kernel)
    with pytest.raises(SimulationError, match="before it is started"):
        run(moves(BOTH, COPY, [Await("to")]))
    with pytest.raises(SimulationError, match="descriptor 0 goes to byte 4128 of x, which has 4096"):
        run(moves(BOTH, [Task("from", out(0), (line(8, 1024),)), COPY[1]]))
    with pytest.raises(SimulationError, match="no flow goes there"):
        run(moves([], COPY))


def test_words_without_a_taker() -> None:
    with pytest.raises(DeadlockError) as caught:
        run(moves(BOTH, [Task("from", out(0), (line(9),)), COPY[1]]))
    assert str(caught.value) == (
        "deadlock: after 8 cycles nothing can go on\n"
        "  the sequence awaits the task from on (0,0).out0\n"
        "  (0,0).out0 (task from, descriptor 0) has 1 words left for (1,0).in0\n"
        "  (1,0).in0 has no task to do\n"
        "  the sequence is at command 2 of 4: await from")
