"""Programs: shares of work, barriers, memory, and what all of them do to results (nothing)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.cpu import program
from zellige.cpu.calls import Call, External, Place, Plan, Scratch
from zellige.cpu.code import build_kernels
from zellige.cpu.emitter import F32, I64
from zellige.cpu.host import host_isa
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.layout import LINE
from zellige.cpu.pool import Pool
from zellige.cpu.program import SLACK, Memory, Program, Tables, needed_barriers, shares


@dataclass(frozen=True)
class Blend(Kernel):
    """Item i: ``target[i] = source[i] + 0.5 · source[(i + shift) mod count] + table[i]``: reads what other items' threads wrote."""

    SLOTS: ClassVar[tuple[str, ...]] = ("source", "target", "table", "count", "shift")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        builder, slots, begin, end, _ = self.entry(module, isa)
        source, target, table = (self.slot(builder, slots, name) for name in ("source", "target", "table"))
        count, shift = (self.slot(builder, slots, name, I64) for name in ("count", "shift"))
        with builder.loop(begin, end) as item:
            other = builder.urem(builder.add(item, shift), count)
            values = [builder.load(builder.gep(source, [place], source_etype=F32), typ=F32) for place in (item, other)]
            added = builder.load(builder.gep(table, [item], source_etype=F32), typ=F32)
            total = builder.fadd(builder.fadd(values[0], builder.fmul(values[1], ir.Constant(F32, 0.5))), added)
            builder.store(total, builder.gep(target, [item], source_etype=F32))
        builder.ret_void()


COUNT = 50


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A chain of calls over buffers that may be used again, from the caller's input to the caller's output."""
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    table = numbers.standard_normal(COUNT).astype(np.float32)
    calls, value = [], External("input", 0)
    length = draw(st.integers(1, 6))
    for step in range(length):
        target = External("output", 0) if step == length - 1 else Place(f"b{step}")
        own = table if draw(st.booleans()) else numbers.standard_normal(COUNT).astype(np.float32)
        costs = np.array(draw(st.lists(st.sampled_from([0, 1, 10, 5000, 10**6]), min_size=COUNT, max_size=COUNT)))
        calls.append(Call(Blend(), {"source": value, "target": target, "table": own, "count": COUNT,
                                    "shift": draw(st.integers(0, COUNT - 1))}, costs, f"call {step}"))
        value = target
    return Plan(host_isa().name, calls, {f"b{step}": COUNT for step in range(length - 1)})


def expected(plan: Plan, x: np.ndarray) -> np.ndarray:
    for call in plan.calls:
        x = x + np.float32(0.5) * np.roll(x, -call.slots["shift"]) + call.slots["table"]
    return x


CODE, LIBRARIES = build_kernels([Blend()], host_isa())


def made(plan: Plan, threads: int, tables: Tables | None = None) -> Program:
    return Program(plan, tables or Tables(plan), CODE, Pool(threads))


def run(ready: Program, x: np.ndarray) -> np.ndarray:
    result = np.full(COUNT, np.nan, np.float32)
    ready.bind(ready.patches("input", 0), x.ctypes.data)
    ready.bind(ready.patches("output", 0), result.ctypes.data)
    ready.run()
    return result


@given(plan=plans(), threads=st.integers(1, 5), small=st.sampled_from([0, 6000]))
def test_any_plan_gives_the_same_bits_with_any_number_of_threads(plan, threads, small):
    x = np.random.default_rng(1).standard_normal(COUNT).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "SMALL_CALL", small)
        ready = made(plan, threads)
        for _ in range(2):
            ready.arena.bytes.fill(0xFF)
            np.testing.assert_array_equal(run(ready, x), expected(plan, x))
        ready.pool.close()


@given(plan=plans())
def test_programs_share_tables_and_nothing_else(plan):
    tables, x = Tables(plan), np.arange(COUNT, dtype=np.float32)
    one, other = made(plan, 1, tables), made(plan, 2, tables)
    right = run(one, x)
    other.arena.bytes.fill(0xFF)
    np.testing.assert_array_equal(run(one, x), right)
    np.testing.assert_array_equal(run(other, x), right)
    other.pool.close()


def test_addresses_are_read_at_every_run():
    plan = Plan(host_isa().name, [Call(Blend(), {"source": External("input", 0), "target": External("output", 0), "count": COUNT,
                                                 "table": np.zeros(COUNT, np.float32), "shift": 1}, np.ones(COUNT), "call")])
    ready = made(plan, 1)
    assert len(ready.patches("input", 0)) == 1 and ready.patches("input", 1) == ()
    for scale in (1, 2):
        x = np.full(COUNT, scale, np.float32)
        np.testing.assert_array_equal(run(ready, x), 1.5 * x)


def chain(*costs: int) -> Plan:
    """Calls from one buffer to another, of so many cycles an item."""
    slots = {"source": Place("a"), "target": Place("b"), "table": np.zeros(COUNT, np.float32), "count": COUNT, "shift": 1}
    calls = [Call(Blend(), dict(slots), np.full(COUNT, cost), "call") for cost in costs]
    return Plan(host_isa().name, calls, {"a": COUNT, "b": COUNT})


def test_times_begin_with_the_run_and_grow():
    for threads in (1, 3):
        ready = made(chain(10, 10_000, 10), threads)
        times = ready.run_timed()
        assert len(times) == 4 and (np.diff(times) >= 0).all()
        ready.pool.close()


# Tables


def test_tables_keep_every_array_once_and_in_order():
    shared, single = np.arange(5, dtype=np.int32), np.arange(7, dtype=np.float32).reshape(7, 1)
    calls = [Call(Blend(), {"table": shared}, np.ones(1), "a"), Call(Blend(), {"table": single, "source": shared}, np.ones(1), "b")]
    plan = Plan("any", calls)
    tables = Tables(plan)
    first, second, third = calls[0].slots["table"], calls[1].slots["table"], calls[1].slots["source"]
    assert first is third and first is not shared and (first == shared).all() and (second == single).all()
    assert second.shape == single.shape and second.dtype == single.dtype
    start = tables.memory.address
    places = [array.ctypes.data - start for array in (first, second)]
    assert places == [0, 4 * LINE] and tables.nbytes == 8 * LINE
    assert tables.memory.bytes.nbytes >= tables.nbytes + SLACK  # what kernels may read past the end


def test_memory_is_zero_and_begins_on_a_page():
    for size in (0, 1, 5000, 3 << 20):
        memory = Memory(size)
        assert memory.address % 4096 == 0 and memory.bytes.nbytes >= size and not memory.bytes.any()


def test_memory_that_there_is_not():
    with pytest.raises(MemoryError, match="does not give"):
        Memory(1 << 60)


def test_every_thread_has_scratch_memory_of_its_own():
    call = Call(Blend(), {"source": Scratch(300), "target": Place("b"), "count": 1}, np.full(4, 10**6), "call")
    ready = made(Plan(host_isa().name, [call], {"b": 4}), 3)
    assert ready.scratch.bytes.nbytes >= 3 * 4 * 300


# Shares


@given(costs=st.lists(st.integers(0, 10**6), min_size=1, max_size=60), threads=st.integers(1, 9))
def test_shares_are_all_items_in_order(costs, threads):
    ends = shares(np.array(costs), threads)
    assert len(ends) == threads + 1 and ends[0] == 0 and ends[-1] == len(costs)
    assert (np.diff(ends) >= 0).all()


@given(costs=st.lists(st.integers(1, 10**6), min_size=1, max_size=60), threads=st.integers(1, 9))
def test_no_share_is_much_larger_than_another(costs, threads):
    costs = np.array(costs)
    if costs.sum() < program.SMALL_CALL:
        assert shares(costs, threads).tolist() == [0] + [len(costs)] * threads
        return
    ends = shares(costs, threads)
    largest = max(costs[begin:end].sum() for begin, end in itertools.pairwise(ends))
    assert largest <= costs.sum() / threads + costs.max()


def test_costs_of_a_giant_layer_do_not_overflow():
    costs = np.full(100_000, 10**9)
    assert shares(costs, 4).tolist() == [0, 25_000, 50_000, 75_000, 100_000]


# Barriers


def calls_with(barriers: list[bool]) -> list[Call]:
    return [Call(Blend(), {}, np.ones(2), "call", barrier) for barrier in barriers]


def boundaries_of(alone: list[bool]) -> np.ndarray:
    return np.array([[0, 2, 2] if by_one else [0, 1, 2] for by_one in alone])


def needed(barriers: list[bool], alone: list[bool]) -> list[bool]:
    return needed_barriers(calls_with(barriers), boundaries_of(alone)).tolist()


def test_calls_that_thread_0_does_alone_need_no_barrier_between_them():
    assert needed([True] * 4, [True] * 4) == [False, False, False, True]
    assert needed([True] * 4, [True, False, True, True]) == [True, True, False, True]
    assert needed([True] * 3, [False] * 3) == [True] * 3
    assert needed([True], [True]) == [True]


def test_calls_of_one_phase_count_together():
    # The second phase is a shared call and one that thread 0 does alone.
    assert needed([True, False, True, True], [True, False, True, True]) == [True, False, True, True]
    assert needed([False, True, True], [True, True, True]) == [False, False, True]


@given(calls=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_no_thread_runs_ahead_of_what_another_may_still_do(calls):
    """Between two calls of different phases of which others than thread 0 do either there is a barrier."""
    barriers, alone = [call[0] for call in calls], [call[1] for call in calls]
    kept = needed(barriers, alone)
    assert kept[-1] and all(planned or not left for planned, left in zip(barriers[:-1], kept[:-1], strict=True))
    for first in range(len(calls)):
        for second in range(first + 1, len(calls)):
            if any(barriers[first:second]) and not (alone[first] and alone[second]):
                assert any(kept[first:second])


def test_programs_of_small_calls_run_on_the_calling_thread():
    assert made(chain(1, 100), 4).pool.threads == 1
    assert made(chain(1, 10_000), 4).pool.threads == 4
