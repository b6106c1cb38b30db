"""The threads that run programs: started at the first launch, asleep between bursts of launches, gone with their pool.

Workers are daemon threads of Python that enter the launch code (which needs no interpreter lock) and come back when they
are told to stop. They hold the pool's memory, never the pool itself, so a pool that nobody needs any more ends its threads.
"""

from __future__ import annotations

import os
import threading
import weakref

import numpy as np

from zellige.cpu.fork import ForkLock
from zellige.cpu.launch import NativeProgram
from zellige.cpu.runtime import LINE, POOL, POOL_BYTES, runtime
from zellige.errors import ZelligeError

_mustering = ForkLock()


class Crew:
    """The workers of one process and the memory that they share with whoever launches."""

    def __init__(self, threads: int):
        self.process = os.getpid()
        self.running = True
        self.lock = threading.Lock()
        self.native = runtime()
        self.memory = np.zeros(POOL_BYTES + LINE, np.uint8)
        self.address = -(-self.memory.ctypes.data // LINE) * LINE
        start = self.address - self.memory.ctypes.data + POOL["threads"]
        self.memory[start:start + 4].view(np.int32)[0] = threads
        self.workers = [threading.Thread(target=_work, args=(self.native.worker, self.memory, self.address, number),
                                         name=f"zellige-{number}", daemon=True) for number in range(1, threads)]
        try:
            for worker in self.workers:
                worker.start()
        except RuntimeError as error:
            self.stop()
            raise ZelligeError(f"the system lets this process start only some of {threads - 1} threads more: {error}. "
                               f"Use fewer threads, or raise its limit (ulimit -u)") from error

    def stop(self) -> None:
        """Tell the workers to end. They do so as soon as they are idle."""
        self.running = False
        self.native.stop(self.address)


def _work(worker: object, memory: np.ndarray, address: int, number: int) -> None:
    """A worker's life. ``memory`` is held for as long as the thread lives."""
    worker(address, number)  # type: ignore[operator]


class Pool:
    """``threads`` threads that run programs together, the launching one among them. With one thread there are no others.

    Launches from several threads are served one after another; whoever shares a program or its memory between threads must
    keep a lock around filling it, launching, and reading results. A forked child that launches gets workers of its own.
    """

    def __init__(self, threads: int):
        if threads < 1:
            raise ValueError(f"a pool needs at least one thread, not {threads}")
        self.threads = threads
        self._crew: Crew | None = None

    def launch(self, program: NativeProgram) -> None:
        """Run a program made for as many threads as the pool has; returns when all of it is done."""
        if program.threads != self.threads:
            raise ValueError(f"a program for {program.threads} threads can't run on {self.threads}")
        while True:
            crew = self._crew
            if crew is None or crew.process != os.getpid():
                crew = self._muster()
            with crew.lock:
                if crew.running:
                    crew.native.launch(crew.address, program.address)
                    return

    def close(self) -> None:
        """End the threads and wait until they are gone. A later launch starts new ones."""
        with _mustering:
            crew, self._crew = self._crew, None
        if crew is None or crew.process != os.getpid():
            return
        with crew.lock:
            crew.stop()
        for worker in crew.workers:
            worker.join()

    def _muster(self) -> Crew:
        with _mustering:
            if self._crew is None or self._crew.process != os.getpid():
                self._crew = crew = Crew(self.threads)
                weakref.finalize(self, crew.stop)  # at the end of the interpreter too
            return self._crew
