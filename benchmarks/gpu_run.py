"""A benchmark within a budget of time: sections, each guarded, in processes that may die without taking the rest along."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as OutOfTime
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton
from gpu_join import joined

from zellige.pack.atomic import write_atomically


def say(text: str) -> None:
    print(text, flush=True)


def conditions() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    return {"gpu": properties.name, "multiprocessors": properties.multi_processor_count,
            "l2_bytes": getattr(properties, "L2_cache_size", None), "memory_bytes": properties.total_memory,
            "torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__,
            "python": sys.version.split()[0], "dtype": "bfloat16"}


class Processes:
    """Jobs in other processes, up to ``count`` at a time. One that crashes takes its process along, and the next gets a new one:
    after an illegal access a process can do nothing more on its GPU."""

    def __init__(self, count: int):
        self.count = count
        self.pool: ProcessPoolExecutor | None = None

    def each(self, work: Callable[[Any], Any], jobs: Sequence[Any], end: float, patience: float) -> Iterator[tuple[Any, Any, str]]:
        """Job, result and what went wrong, in order, until the clock says ``end``; no job may take longer than ``patience``."""
        waiting = list(jobs)
        while waiting and time.monotonic() < end:
            self.pool = self.pool or ProcessPoolExecutor(self.count, mp_context=get_context("spawn"))
            futures = [self.pool.submit(_guarded, work, job) for job in waiting]
            for future in futures:
                limit = max(0.1, min(patience, end - time.monotonic()))
                try:
                    result, reason = future.result(timeout=limit)
                except (OutOfTime, BrokenProcessPool) as error:
                    yield waiting.pop(0), None, "took too long" if isinstance(error, OutOfTime) else "its process died"
                    self.end()
                    break
                yield waiting.pop(0), result, reason
        if waiting:
            say(f"   {len(waiting)} of {len(jobs)} jobs left undone: out of time")

    def end(self) -> None:
        """Let the processes go, also those that would not end by themselves."""
        if self.pool is not None:
            own = list((self.pool._processes or {}).values())
            self.pool.shutdown(wait=False, cancel_futures=True)
            for process in own:
                process.kill()
            self.pool = None


def _guarded(work: Callable[[Any], Any], job: Any) -> tuple[Any, str]:
    """The result, or why there is none; an error that the GPU does not recover from ends the process."""
    try:
        return work(job), ""
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        try:
            torch.cuda.synchronize()
        except Exception:
            print(f"   {job}: {reason}", flush=True)
            os._exit(1)
        return None, reason


class Run:
    """What is left of the budget, and what was found. ``join``: keep what the file has from sections that are not run now."""

    def __init__(self, results: Path, budget: float, join: bool = False):
        self.results, self.end, self.before = results, time.monotonic() + budget, None
        if join and self.file.exists():
            self.before = json.loads(self.file.read_text())
            joined(self.before, {"conditions": conditions()})  # or it raises now
        self.facts: dict[str, Any] = {}

    @property
    def file(self) -> Path:
        name = torch.cuda.get_device_name().lower().replace("nvidia ", "").split()[0]
        return self.results / f"gpu-{name}.json"

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def section(self, name: str, work: Callable[[Run], object], least: float, most: float) -> None:
        """Do a part of the whole, if ``least`` seconds are left; to it, the budget ends after ``most``."""
        if self.left < least:
            say(f"== {name}: left out, {self.left:.0f} s are left of the budget and it takes {least:.0f}")
            return
        say(f"== {name} ({self.left:.0f} s left)")
        begin, end = time.monotonic(), self.end
        self.end = min(end, begin + most)
        try:
            self.facts[name] = work(self)
        except Exception:
            self.facts[name] = {"error": traceback.format_exc()}
            say(traceback.format_exc())
        self.end = end
        say(f"-- {name}: {time.monotonic() - begin:.1f} s")
        self.write()

    def many(self, work: Callable[[Any], Any], jobs: Sequence[Any], limit: float) -> Iterator[tuple[Any, Any, str]]:
        """Jobs that are not timed, on all cores, for so many seconds at most."""
        processes = Processes(max(1, min(12, (os.cpu_count() or 2) - 2)))
        try:
            yield from processes.each(work, jobs, min(self.end, time.monotonic() + limit), limit)
        finally:
            processes.end()

    def one_by_one(self, work: Callable[[Any], Any], jobs: Sequence[Any], patience: float) -> Iterator[tuple[Any, Any, str]]:
        """Jobs that are timed."""
        processes = Processes(1)
        try:
            yield from processes.each(work, jobs, self.end, patience)
        finally:
            processes.end()

    def write(self) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        facts = {"conditions": conditions(), **self.facts}
        text = json.dumps(facts if self.before is None else joined(self.before, facts), indent=1) + "\n"
        write_atomically(self.file, [text.encode()])
