"""Programs on pools of threads: same bits for every split, barriers that hold, no wake-up lost."""

import ctypes
import os
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stirring import MULTIPLIERS, POOLS, Stir, Stirring, library, stirring

from zellige.cpu.host import usable_cpus
from zellige.cpu.launch import NativeCall, NativeProgram
from zellige.cpu.pool import Pool
from zellige.cpu.runtime import LINE, POOL, POOL_BYTES


@pytest.fixture
def pool():
    made = Pool(2)
    yield made
    made.close()


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
