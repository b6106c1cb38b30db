"""The threads of a pool, from the first launch to the last: forks, closing, dropping, the interpreter's end, a full system."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from stirring import POOLS, Stirring, stirring

from zellige.cpu.pool import Pool
from zellige.errors import ZelligeError


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
