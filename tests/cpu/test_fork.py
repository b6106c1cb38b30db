"""Locks that a forked child finds open."""

import os
import signal
import threading

from zellige.cpu.fork import ForkLock


def test_a_child_finds_the_lock_open_that_another_thread_holds():
    lock, held, ended = ForkLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            ended.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs is killed
        with lock:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    ended.set()
    thread.join()
    with lock:
        pass


def test_holders_exclude_each_other():
    lock, total = ForkLock(), [0]

    def add() -> None:
        for _ in range(2000):
            with lock:
                before = total[0]
                total[0] = before + 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [8000]
