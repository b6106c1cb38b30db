"""Programs on pools of threads: same bits for every split, barriers that hold, no wake-up lost, forks, ends.

The kernel of these tests reads what other threads wrote in the call before, so a barrier that lets one thread through too early
changes the result.
"""

import ctypes
import functools
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.cpu.emitter import I64
from zellige.cpu.host import host_isa, usable_cpus
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel, emit_module
from zellige.cpu.launch import NativeCall, NativeProgram
from zellige.cpu.pool import Pool
from zellige.cpu.runtime import LINE, POOL, POOL_BYTES
from zellige.cpu.toolchain import Library, compile_ir, load_object
from zellige.errors import ZelligeError

MULTIPLIERS = (1, 3, 7)


@dataclass(frozen=True)
class Stir(Kernel):
    """target[i] = source[(factor · i + shift) mod count] · 3 + i"""

    factor: int

    SLOTS: ClassVar[tuple[str, ...]] = ("source", "target", "shift", "count")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        source, target = (self.slot(b, slots, name) for name in ("source", "target"))
        shift, count = (self.slot(b, slots, name, I64) for name in ("shift", "count"))
        with b.loop(begin, end) as i:
            place = b.urem(b.add(b.mul(i, ir.Constant(I64, self.factor)), shift), count)
            value = b.load(b.at(source, place, element=I64), typ=I64)
            b.store(b.add(b.mul(value, ir.Constant(I64, 3)), i), b.at(target, i, element=I64))
        b.ret_void()


@functools.cache
def library() -> Library:
    isa = host_isa()
    return load_object(compile_ir(emit_module([Stir(factor) for factor in MULTIPLIERS], isa), isa), "stir")


class Stirring:
    """A program of ``Stir`` calls, back and forth between two arrays, and what numpy makes of the same."""

    def __init__(self, count: int, steps: list[tuple[int, int]], boundaries: list[np.ndarray], timed: bool = False):
        self.steps = steps
        self.arrays = [np.arange(count, dtype=np.int64), np.zeros(count, np.int64)]
        self.slots = np.array([[self.arrays[number % 2].ctypes.data, self.arrays[1 - number % 2].ctypes.data, shift, count]
                               for number, (_, shift) in enumerate(steps)], np.int64).reshape(-1, 4)
        calls = [NativeCall(library().address(Stir(factor).symbol), self.slots[number].ctypes.data, boundaries[number])
                 for number, (factor, _) in enumerate(steps)]
        self.program = NativeProgram(calls, len(boundaries[0]) - 1 if boundaries else 1, timed)
        self.expected = [array.copy() for array in self.arrays]

    def follow(self) -> None:
        """Do in numpy what one launch does."""
        items = np.arange(len(self.arrays[0]))
        for number, (factor, shift) in enumerate(self.steps):
            source, target = self.expected[number % 2], self.expected[1 - number % 2]
            target[:] = source[(factor * items + shift) % len(items)] * 3 + items

    def check(self) -> None:
        for array, expected in zip(self.arrays, self.expected, strict=True):
            np.testing.assert_array_equal(array, expected)


def even(count: int, threads: int) -> np.ndarray:
    return np.arange(threads + 1) * count // threads


def stirring(threads: int, count: int = 64, calls: int = 5, timed: bool = False) -> Stirring:
    steps = [(MULTIPLIERS[number % 3], number) for number in range(calls)]
    return Stirring(count, steps, [even(count, threads)] * calls, timed)


def launch_in_child(pool: Pool, work: Stirring) -> int:
    """Fork; the child launches twice and says by its exit status whether the result is right."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs is killed
        work.follow()
        work.follow()
        pool.launch(work.program)
        pool.launch(work.program)
        os._exit(0 if all(map(np.array_equal, work.arrays, work.expected)) else 1)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def pool():
    made = Pool(2)
    yield made
    made.close()


POOLS = functools.cache(Pool)


@given(st.data())
def test_any_split_gives_the_same_bits(data):
    threads = data.draw(st.integers(1, 4))
    count = data.draw(st.integers(1, 40))
    steps = data.draw(st.lists(st.tuples(st.sampled_from(MULTIPLIERS), st.integers(0, 50)), min_size=1, max_size=12))
    inner = st.lists(st.integers(0, count), min_size=threads - 1, max_size=threads - 1)
    boundaries = [np.array([0, *sorted(data.draw(inner)), count]) for _ in steps]
    work = Stirring(count, steps, boundaries)
    for _ in range(data.draw(st.integers(1, 3))):
        POOLS(threads).launch(work.program)
        work.follow()
    work.check()


def test_calls_without_a_barrier_follow_each_other_within_a_thread(pool):
    count = 1000
    data = np.zeros(count, np.int64)
    slots = np.array([data.ctypes.data, data.ctypes.data, 0, count], np.int64)  # each item from itself
    call = NativeCall(library().address(Stir(1).symbol), slots.ctypes.data, np.array([0, 300, count]), barrier=False)
    program = NativeProgram([call] * 10, 2)
    expected = np.zeros(count, np.int64)
    for _ in range(20):
        pool.launch(program)
        for _ in range(10):
            expected = expected * 3 + np.arange(count)
    np.testing.assert_array_equal(data, expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_thousands_of_launches_back_to_back(threads):
    launches = 20_000 if threads <= usable_cpus() else 500
    pool, work = Pool(threads), stirring(threads, count=8, calls=2)
    for _ in range(launches):
        pool.launch(work.program)
    pool.close()
    for _ in range(launches):
        work.follow()
    work.check()


@pytest.mark.parametrize("pause", [0.0, 0.0009, 0.00105, 0.005], ids=["spinning", "falling asleep", "just asleep", "asleep"])
def test_launches_after_pauses(pool, pause):
    work, generator = stirring(2), random.Random(1)
    for _ in range(60):
        pool.launch(work.program)
        work.follow()
        work.check()
        time.sleep(pause * generator.uniform(0.8, 1.2))


def test_more_threads_than_cpus():
    threads = 4 * usable_cpus()
    pool, work = Pool(threads), stirring(threads)
    for _ in range(20):
        pool.launch(work.program)
        work.follow()
    work.check()
    pool.close()


def test_two_threads_on_one_cpu():
    """Threads that wait must give the CPU away: else each of 20 barriers takes what is left of a time slice, 3 ms or so."""
    before = os.sched_getaffinity(0)
    pool, work, times = Pool(2), stirring(2, calls=20), []
    try:
        os.sched_setaffinity(0, {min(before)})  # of this thread and of those that it starts
        for _ in range(60):
            start = time.perf_counter()
            pool.launch(work.program)
            times.append(time.perf_counter() - start)
            work.follow()
    finally:
        os.sched_setaffinity(0, before)
        pool.close()
    work.check()
    assert min(times) < 20e-3  # 0.1 ms on an idle machine, 70 ms without giving it away


@pytest.mark.skipif(usable_cpus() < 2, reason="a worker has nowhere to go on one CPU")
def test_a_worker_leaves_the_launching_threads_cpu():
    """However often it is put there; the CPUs that it may use stay as they were."""
    before = os.sched_getaffinity(0)
    pool, work = Pool(2), stirring(2)
    pool.launch(work.program)
    work.follow()
    worker = pool._crew.workers[0].native_id
    apart = 0
    try:
        for home in sorted(before)[:2] * 10:
            os.sched_setaffinity(0, {home})
            os.sched_setaffinity(worker, {home})
            os.sched_setaffinity(worker, before)
            pool.launch(work.program)
            work.follow()
            apart += cpu_of(worker) != home
            assert os.sched_getaffinity(worker) == before
    finally:
        os.sched_setaffinity(0, before)
        pool.close()
    work.check()
    assert apart >= 18  # others may push it back at any time


def cpu_of(thread: int) -> int:
    """The CPU that a thread of this process ran on last."""
    with open(f"/proc/self/task/{thread}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[36])


def test_launches_from_several_threads_are_served_one_after_another(pool):
    works = [stirring(2) for _ in range(4)]

    def run(work: Stirring) -> None:
        for _ in range(200):
            pool.launch(work.program)
            work.follow()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for work in works:
        work.check()


def test_several_pools_at_once():
    pools = [Pool(2) for _ in range(3)]
    works = [stirring(2) for _ in pools]
    for _ in range(50):
        for pool, work in zip(pools, works, strict=True):
            pool.launch(work.program)
            work.follow()
    for pool, work in zip(pools, works, strict=True):
        work.check()
        pool.close()


@pytest.mark.parametrize("launched", [False, True])
def test_a_forked_child_has_workers_of_its_own(pool, launched):
    work = stirring(2)
    if launched:
        pool.launch(work.program)
        work.follow()
    assert launch_in_child(pool, work) == 0
    pool.launch(work.program)
    work.follow()
    work.check()


def test_fork_while_another_thread_launches(pool):
    busy, quiet, ended = stirring(2), stirring(2), threading.Event()

    def run() -> None:
        while not ended.is_set():
            pool.launch(busy.program)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(5):
            assert launch_in_child(pool, quiet) == 0
    finally:
        ended.set()
        thread.join()


def workers() -> int:
    return sum(thread.name.startswith("zellige-") for thread in threading.enumerate())


def test_a_dropped_pool_ends_its_threads():
    POOLS.cache_clear()
    gc.collect()
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers() == 0
    pool = Pool(3)
    assert workers() == 0  # none before they are needed
    pool.launch(stirring(3).program)
    assert workers() == 2
    time.sleep(0.005)  # asleep by now
    del pool
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers() == 0


def test_a_closed_pool_starts_again(pool):
    work = stirring(2)
    pool.close()
    for _ in range(3):
        pool.launch(work.program)
        work.follow()
        pool.close()
        pool.close()
    work.check()


def test_close_while_others_launch(pool):
    work = stirring(2)

    def run() -> None:
        for _ in range(300):
            pool.launch(work.program)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        pool.close()
        time.sleep(0.001)
    thread.join()
    for _ in range(300):
        work.follow()
    work.check()


def test_the_interpreter_ends_quietly_with_busy_workers():
    script = """
import numpy as np
from zellige.cpu.launch import NativeCall, NativeProgram
from zellige.cpu.pool import Pool
from zellige.cpu.host import host_isa
from zellige.cpu.toolchain import compile_ir, load_object
nothing = load_object(compile_ir("define void @f(ptr %s, i64 %b, i64 %e, i64 %t) { ret void }", host_isa()), "nothing")
pool = Pool(3)
pool.launch(NativeProgram([NativeCall(nothing.address("f"), 0, np.arange(4))], 3))
print("done")
"""
    for _ in range(3):
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_times_of_calls(pool):
    work = stirring(2, count=200_000, calls=6, timed=True)
    before = time.monotonic_ns()
    pool.launch(work.program)
    after = time.monotonic_ns()
    times = work.program.times
    assert times.shape == (7,)
    assert before <= times[0] and times[-1] <= after
    assert np.all(np.diff(times) > 10_000)  # 100,000 divisions each
    work.follow()
    work.check()


def test_a_launch_costs_little():
    """Far from what an idle machine needs (1 µs), and far below what a kernel call, a lost CPU or a sleep would cost."""
    pool, work, times = Pool(2), stirring(2, count=2, calls=1), []
    for _ in range(5000):
        start = time.perf_counter()
        pool.launch(work.program)
        times.append(time.perf_counter() - start)
    pool.close()
    assert min(times) < 50e-6


def test_an_empty_program_does_nothing(pool):
    empty = NativeProgram([], 2)
    assert len(empty) == 0
    for _ in range(100):
        pool.launch(empty)
    work = stirring(2)
    pool.launch(work.program)
    work.follow()
    work.check()


def test_programs_and_pools_must_fit(pool):
    with pytest.raises(ValueError, match="3 threads can't run on 2"):
        pool.launch(stirring(3).program)
    with pytest.raises(ValueError, match="at least one thread"):
        Pool(0)
    for boundaries in ([0, 5], [0, 7, 5], [[0, 1, 2]]):
        with pytest.raises(ValueError, match="call 0 needs 3 boundaries"):
            NativeProgram([NativeCall(0, 0, np.array(boundaries))], 2)


def test_a_system_without_threads_left(monkeypatch):
    begun = []
    start = threading.Thread.start

    def start_two(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    pool, work = Pool(4), stirring(4)
    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(ZelligeError, match="lets this process start only some of 3 threads"):
        pool.launch(work.program)
    for thread in begun:
        thread.join(10)
        assert not thread.is_alive()
    monkeypatch.undo()
    pool.launch(work.program)
    work.follow()
    work.check()
    pool.close()


def test_slots_are_read_at_every_launch(pool):
    """An engine writes the addresses of its caller's arrays into the slots before every launch."""
    work = stirring(2, calls=1)
    others = [np.full(64, number, np.int64) for number in range(5)]
    for array in others:
        work.slots[0, 0] = array.ctypes.data
        pool.launch(work.program)
        np.testing.assert_array_equal(work.arrays[1], array[0] * 3 + np.arange(64))


def test_words_that_threads_write_share_no_cache_lines():
    written = [POOL[name] // LINE for name in ("epoch", "sleepers", "arrived", "phase")]
    assert len(set(written)) == 4 and POOL["stop"] // LINE not in written
    assert max(POOL.values()) + ctypes.sizeof(ctypes.c_void_p) <= POOL_BYTES
