"""Engines and threads: Python's that call them, their own, and those of a forked child."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from engine_checks import compiled, poison
from small_networks import Build

from zellige.cpu.host import usable_cpus
from zellige.cpu.lower.lowering import Options
from zellige.engine import Engine, build_engine
from zellige.errors import ZelligeError
from zellige.graph.ir import Graph
from zellige.passes.pipeline import optimize

CALLERS = 6
CALLS = 40


def residual() -> Graph:
    """Some convolutions with a residual, large enough that the second thread has something to do."""
    b = Build(1, 16, 20, 20, dtype="float32")
    y = b.activation(b.conv(b.x, 24, 3, padding=(1, 1, 1, 1)), "relu")
    z = b("add", b.conv(y, 16, 1, bias=True), b.x)
    return b.done(b.activation(z, "tanh"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return compiled(residual(), threads=2)


@pytest.fixture(scope="module")
def cases(engine: Engine) -> list[tuple[np.ndarray, np.ndarray]]:
    """An input and its result, one for each caller."""
    numbers = np.random.default_rng(3)
    inputs = [numbers.standard_normal((1, 16, 20, 20)).astype(np.float32) for _ in range(CALLERS)]
    return [(x, engine(x)) for x in inputs]


def call_at_once(engines: list[Engine], cases: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Callers in threads of their own, all at the same time, each on its own input."""
    start = threading.Barrier(CALLERS)

    def work(number: int) -> None:
        x, expected = cases[number]
        start.wait()
        for _ in range(CALLS):
            np.testing.assert_array_equal(engines[number % len(engines)](x), expected)

    with ThreadPoolExecutor(CALLERS) as callers:
        for done in [callers.submit(work, number) for number in range(CALLERS)]:
            done.result(timeout=60)


def test_one_engine_serves_many_threads(engine, cases):
    call_at_once([engine], cases)


def test_clones_run_side_by_side(engine, cases):
    call_at_once([engine, *(engine.clone() for _ in range(CALLERS - 1))], cases)


def test_more_callers_than_clones(engine, cases):
    call_at_once([engine, engine.clone()], cases)


def test_a_clone_shares_weights_and_code_but_no_memory(engine, cases):
    clone = engine.clone()
    ours, theirs = engine._program, clone._program
    assert theirs.tables is ours.tables and clone.graph is engine.graph and clone.threads == engine.threads
    assert [call.function for call in theirs._calls] == [call.function for call in ours._calls]
    assert not np.shares_memory(theirs.arena.bytes, ours.arena.bytes)
    poison(clone)
    for each in (engine, clone):
        np.testing.assert_array_equal(each(cases[0][0]), cases[0][1])


def test_a_clone_outlives_its_engine(cases):
    engine = compiled(residual(), threads=2)
    clone, gone = engine.clone(), weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    np.testing.assert_array_equal(clone(cases[0][0]), cases[0][1])


def test_an_engine_that_nobody_holds_ends_its_threads(cases):
    engine = compiled(residual(), threads=4)
    pool = engine._program.pool
    assert pool._crew is None  # none before the first call
    np.testing.assert_array_equal(engine(cases[0][0]), cases[0][1])
    workers = list(pool._crew.workers)
    assert len(workers) == 3 and all(worker.is_alive() for worker in workers)
    del engine, pool
    gc.collect()
    for worker in workers:
        worker.join(timeout=20)
    assert not any(worker.is_alive() for worker in workers)


def test_memory_of_dropped_clones_is_given_back(engine, cases):
    """Two hundred clones, a few hundred KB each: those that are gone take no place."""
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    each = engine._program.arena.bytes.nbytes
    for count in (20, 200):
        before = resident()
        for _ in range(count):
            clone = engine.clone()
            poison(clone)
        del clone
        gc.collect()
    assert resident() - before < 100 * each


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 2 * (os.cpu_count() or 1) + 1])
def test_any_number_of_threads_gives_the_same_bits(engine, cases, threads):
    other = compiled(residual(), threads=threads)
    for x, expected in cases[:2]:
        for _ in range(3):
            np.testing.assert_array_equal(other(x), expected)


def test_small_networks_need_no_other_thread():
    b = Build(1, 4, 4, 4, dtype="float32")
    engine = build_engine(optimize(b.done(b.activation(b.x, "relu"))), Options(), threads=3)
    x = np.full((1, 4, 4, 4), -1, np.float32)
    assert not engine(x).any() and engine.threads == 3
    assert not engine._program.pool._crew.workers


def test_a_call_of_one_tiny_layer_costs_little():
    """20 µs were asked for. The best of many calls tells, whatever else the machine is doing."""
    b = Build(1, 8, 4, 4, dtype="float32")
    engine = build_engine(optimize(b.done(b.conv(b.x, 8))), Options(), threads=2)
    x = np.zeros((1, 8, 4, 4), np.float32)
    spans = []
    for _ in range(3000):
        begin = time.perf_counter_ns()
        engine(x)
        spans.append(time.perf_counter_ns() - begin)
    assert min(spans) < 20_000


# Affinity and limits


def in_process(script: str, affinity: set[int] | None = None) -> str:
    """What a script prints in a Python of its own, which sees the support modules of these tests."""
    def restrict() -> None:
        if affinity is not None:
            os.sched_setaffinity(0, affinity)

    here = os.path.dirname(__file__)
    result = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r})\n{script}"], capture_output=True,
                            text=True, timeout=120, preexec_fn=restrict, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


SCRIPT = """
import numpy as np
from test_threads import residual
from zellige.cpu.lower.lowering import Options
from zellige.engine import build_engine
from zellige.passes.pipeline import optimize
x = np.random.default_rng(0).standard_normal((1, 16, 20, 20)).astype(np.float32)
results = [(engine := build_engine(optimize(residual()), Options(), threads=threads))(x) for threads in (None, 1, 2, 5)]
print(build_engine(optimize(residual()), Options()).threads, all(np.array_equal(y, results[0]) for y in results))
"""


def test_one_cpu():
    """As many threads as there are CPUs by default; more of them take turns on one CPU and give the same bits."""
    assert in_process(SCRIPT, {min(os.sched_getaffinity(0))}) == "1 True\n"
    assert in_process(SCRIPT) == f"{usable_cpus()} True\n"


def test_a_system_that_starts_no_more_threads(cases, monkeypatch):
    engine = compiled(residual(), threads=3)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ZelligeError, match=r"only some of 2 threads more.*Use fewer threads"):
            engine(cases[0][0])
    np.testing.assert_array_equal(engine(cases[0][0]), cases[0][1])


# Forks


def in_child(work: Callable[[], bool]) -> bool:
    """Whether ``work`` gives true in a forked child, which has a minute for it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


@pytest.mark.parametrize("called", [False, True], ids=["not called yet", "called before"])
def test_a_forked_child_uses_an_engine_made_before(cases, called):
    engine = compiled(residual(), threads=2)
    x, expected = cases[0]
    if called:
        engine(x)
    assert in_child(lambda: all(np.array_equal(engine(x), expected) for _ in range(20)))
    np.testing.assert_array_equal(engine(x), expected)


def test_children_of_children(engine, cases):
    x, expected = cases[1]
    assert in_child(lambda: np.array_equal(engine(x), expected) and in_child(lambda: np.array_equal(engine(x), expected)))


def test_a_child_may_clone_and_compile(engine, cases):
    x, expected = cases[2]
    assert in_child(lambda: np.array_equal(engine.clone()(x), expected)
                    and np.array_equal(compiled(residual(), threads=2)(x), expected))


def test_forks_while_other_threads_call(engine, cases):
    """The child finds no lock closed, whoever held it, and no result half done."""
    ended, wrong = threading.Event(), []

    def call(number: int) -> None:
        x, expected = cases[number]
        while not ended.is_set():
            if not np.array_equal(engine(x), expected):
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    for caller in callers:
        caller.start()
    try:
        for number in range(6):
            x, expected = cases[number]
            assert in_child(lambda x=x, expected=expected: np.array_equal(engine(x), expected))
    finally:
        ended.set()
        for caller in callers:
            caller.join()
    assert not wrong


def test_parent_and_child_at_once(engine, cases):
    """Both run at the same time, on memory of their own."""
    (x, expected), (other, others) = cases[:2]
    child = os.fork()
    if child == 0:
        os._exit(0 if all(np.array_equal(engine(other), others) for _ in range(CALLS)) else 1)
    same = all(np.array_equal(engine(x), expected) for _ in range(CALLS))
    assert os.waitpid(child, 0)[1] == 0 and same
