"""Choosing by the clock: every path of a layer is built by itself and run, the fastest is taken (``tune="measure"``)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from zellige.cpu.calls import Call, External, Plan, Stored
from zellige.cpu.code import build_kernels
from zellige.cpu.host import usable_cpus
from zellige.cpu.layout import Dense
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.pool import Pool
from zellige.cpu.program import Program, Tables
from zellige.cpu.toolchain import Library

ROUNDS = 7


def measure_paths(lowering: Lowering, ranked: list[Path]) -> Path:
    """The path whose calls take the least time, in turns; the first of them in case of a tie."""
    # One pool for all: workers that wait for another trial would take the CPUs from this one.
    pool = Pool(lowering.options.threads or usable_cpus())
    trials = [build(lowering, path, pool) for path in ranked]
    spans = np.array([[trial.seconds() for trial in trials] for _ in range(ROUNDS)]).min(0)
    best = int(spans.argmin())
    others = ", ".join(f"{1e6 * spans[index]:.0f} µs by {path.name}" for index, path in enumerate(ranked) if index != best)
    return replace(ranked[best], reason=f"{ranked[best].reason}; measured {1e6 * spans[best]:.0f} µs, {others}")


@dataclass(frozen=True)
class Trial:
    """One path, ready to run; the libraries hold its code."""

    program: Program
    libraries: tuple[Library, ...]

    def seconds(self) -> float:
        """The time of one run, after one to warm the caches."""
        self.program.run()
        begin = time.perf_counter()
        self.program.run()
        return time.perf_counter() - begin


def build(lowering: Lowering, path: Path, pool: Pool) -> Trial:
    """A program of one path's calls alone; the plan stays as it was."""
    first, buffers = len(lowering.plan.calls), dict(lowering.plan.buffers)
    path.append()
    largest = max((kind.elements for kind in lowering.graph.inputs.values()), default=0)
    caller = lowering.storage.reserve("memory of the caller", Dense((largest,)))
    calls = [alone(call, caller) for call in lowering.plan.calls[first:]]
    sizes = dict(lowering.plan.buffers)
    del lowering.plan.calls[first:]
    lowering.plan.buffers.clear()
    lowering.plan.buffers.update(buffers)
    plan = Plan(lowering.isa.name, calls, sizes)
    code, libraries = build_kernels(plan.kernels, lowering.isa)
    return Trial(Program(plan, Tables(plan), code, pool), libraries)


def alone(call: Call, caller: Stored) -> Call:
    """A copy of a call that reads a buffer in place of the caller's memory."""
    slots = {name: caller.place if isinstance(slot, External) else slot for name, slot in call.slots.items()}
    return Call(call.kernel, slots, call.costs, call.label, call.barrier)
