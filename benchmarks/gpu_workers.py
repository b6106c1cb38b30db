"""Jobs in other processes, each of which does one after another: what crashes or hangs takes no other job along.

After an illegal access a process can do nothing more on its GPU, and what hangs there can only be ended from outside. So whoever
uses the GPU lives in such a process, which stays for the next job (imports and the GPU's context take seconds) unless it can't.
Processes are forked from a server that has imported what jobs need, and has not touched the GPU.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import PriorityQueue
from threading import Lock, Thread
from typing import Any

import torch

Work = Callable[[Any], Any]
"""From a job to its result. If that is a generator, what it yields is the result so far."""

Heard = Callable[[Any], None]
"""What is done with results so far."""

TOO_LONG, DIED, NOT_BEGUN = "took too long", "its process died", "its process could not begin"

LAST = 1 << 30
"""The rank of what comes when nothing more does."""

GONE_SECONDS = 10.0
"""For a process that was killed: the GPU's driver may still be busy with it."""

FORKED, ANEW = "forkserver", "spawn"
"""How processes begin: forked from a server, or by themselves, which takes some seconds more each time."""


def serve() -> None:
    """Have the server import what jobs need, unless it does already; it is not waited for. It finds the modules beside this one by
    the environment alone."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), before)))
    forkserver.set_forkserver_preload(["gpu_plan"])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def unheard(_: Any) -> None:
    """Nobody listens."""


class Worker:
    """One process, started when it is first wanted. ``prepare``: what it does before its first job."""

    def __init__(self, prepare: Callable[[], None], method: str):
        self.prepare = prepare
        self.processes: Any = get_context(method)
        self.process: Any = None
        self.pipe: Connection | None = None
        self.ready = self.stopped = False
        self.lock = Lock()

    def start(self) -> Connection:
        """Start the process, unless there is one; it is not waited for. ``EOFError`` when it was stopped."""
        with self.lock:
            if self.stopped:
                raise EOFError
            if self.pipe is None:
                self.pipe, other = self.processes.Pipe()
                self.process = self.processes.Process(target=_serve, args=(other, self.prepare))
                self.process.start()
                other.close()  # so that the pipe ends when the process does
            return self.pipe

    def do(self, work: Work, job: Any, patience: float, end: float, heard: Heard = unheard) -> tuple[Any, str]:
        """The result, or the last one so far, and what went wrong: the job may take so many seconds, and until the clock says
        ``end``, and the process may die."""
        found = None
        try:
            pipe = self.start()
            if not self.ready and not _speaks(pipe, end):
                raise TimeoutError
            if not self.ready and (reason := pipe.recv()):
                self.end()
                return None, f"{NOT_BEGUN}: {reason}"
            self.ready = True
            end = min(end, time.monotonic() + patience)
            pipe.send((work, job))
            while _speaks(pipe, end):
                done, found, reason, fit = pipe.recv()
                if not done:
                    heard(found)
                    continue
                if not fit:
                    self.end()
                return found, reason
            raise TimeoutError
        except (EOFError, ConnectionError, TimeoutError) as error:
            self.end()
            return found, TOO_LONG if isinstance(error, TimeoutError) else DIED
        except Exception:  # whoever listens fell, and what the process says next is no answer to what is asked next
            self.end()
            raise

    def end(self) -> None:
        """Let the process go, also one that would not end by itself."""
        with self.lock:
            if self.pipe is not None:
                self.process.kill()
                self.process.join(GONE_SECONDS)
                self.pipe.close()
            self.process, self.pipe, self.ready = None, None, False

    def stop(self) -> None:
        """End whatever is done at this moment, by another thread; nothing more is."""
        with self.lock:
            self.stopped = True
            if self.pipe is not None:
                self.process.kill()


def _speaks(pipe: Connection, end: float) -> bool:
    return pipe.poll(max(0.0, end - time.monotonic()))


def _serve(pipe: Connection, prepare: Callable[[], None]) -> None:
    """Do what is asked, until nobody can ask any more."""
    try:
        prepare()
    except Exception as error:
        pipe.send(_told(error))
        return
    gc.freeze()  # what is there stays: it need not be looked through after every job
    pipe.send("")
    while True:
        try:
            work, job = pipe.recv()
        except EOFError:
            return
        found, reason = None, ""
        try:
            found = work(job)
            if isinstance(found, Iterator):
                steps, found = found, None
                for found in steps:
                    pipe.send((False, found, "", True))
        except Exception as error:
            reason = _told(error)
        fit = _give_back()
        pipe.send((True, found, reason, fit))
        if not fit:
            os._exit(1)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def _give_back() -> bool:
    """Let memory go that the last job had; False where the GPU is of no use to this process any more."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception:
        return False
    return True


@dataclass(order=True)
class Asked:
    """A job that somebody waits for; what has the lower ``rank`` comes first, and of that what was asked first."""

    rank: int
    number: int
    work: Work = field(compare=False)
    job: Any = field(compare=False)
    patience: float = field(compare=False)
    end: float = field(compare=False)
    heard: Heard = field(compare=False)
    answer: Future[tuple[Any, str] | None] = field(compare=False, default_factory=Future)


class Workers:
    """So many processes that do what several threads ask of them. ``with`` ends them all."""

    def __init__(self, many: int, prepare: Callable[[], None], method: str = FORKED):
        self.method, self.workers = method, [Worker(prepare, method) for _ in range(many)]
        self.numbers = count()
        self.asked: PriorityQueue[Asked] = PriorityQueue()
        self.threads = [Thread(target=self._work, args=(worker,), daemon=True) for worker in self.workers]

    def __enter__(self) -> Workers:
        if self.method == FORKED:
            serve()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.stop()
        for _ in self.threads:
            self.asked.put(Asked(LAST, next(self.numbers), unheard, None, 0.0, 0.0, unheard))
        for thread in self.threads:
            thread.join()

    def each(self, work: Work, jobs: Sequence[Any], patience: float, end: float, rank: int = 0, heard: Heard = unheard,
             ) -> Iterator[tuple[Any, Any, str]]:
        """Job, result and what went wrong, in order. No job may take longer than ``patience``; those that are not done when the
        clock says ``end`` are left out."""
        asked = [Asked(rank, next(self.numbers), work, job, patience, end, heard) for job in jobs]
        for one in asked:
            self.asked.put(one)
        try:
            for one in asked:
                answer = one.answer.result()
                if answer is not None:
                    yield one.job, *answer
        finally:
            for one in asked:
                one.answer.cancel()

    def _work(self, worker: Worker) -> None:
        """What one process does, job after job."""
        with suppress(EOFError, OSError):  # the next to need it says what is wrong
            worker.start()
        while (one := self.asked.get()).rank != LAST:
            if one.answer.set_running_or_notify_cancel():
                try:
                    one.answer.set_result(_answer(worker, one))
                except Exception as error:
                    one.answer.set_exception(error)
        worker.end()


def _answer(worker: Worker, one: Asked) -> tuple[Any, str] | None:
    """None of what the end came before."""
    if time.monotonic() >= one.end or worker.stopped:
        return None
    found, reason = worker.do(one.work, one.job, one.patience, one.end, one.heard)
    cut = worker.stopped or (reason == TOO_LONG and time.monotonic() >= one.end)
    return None if cut else (found, reason)
