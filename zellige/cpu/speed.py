"""What this machine can do at most: multiply-adds in a second, and bytes read in a second from each level of memory.

Both are measured by kernels of their own on the threads that ask, in a third of a second together: what they say depends on the
clock and on the neighbours of the moment, so it should come from the same minute as what it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zellige.cpu.calls import Call, External, Place, Plan
from zellige.cpu.code import build_kernels
from zellige.cpu.costs import LEVEL2, LEVEL3, LEVELS, MEMORY
from zellige.cpu.host import caches
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.peak import PeakKernel, flops_of_item
from zellige.cpu.kernels.stream import StreamKernel, bytes_of_item
from zellige.cpu.pool import Pool
from zellige.cpu.program import Memory, Program, Tables

FMA_PER_CYCLE = 2           # vectors that a core multiplies and adds at once, in the model's cycles
PEAK_ITEMS = 64             # for each thread
ROUNDS = 9
REPEATED_BYTES = 16 << 20   # a round reads about so many, a small buffer several times
WITHOUT_LEVEL3 = 32 << 20   # taken for the third level where there is none that is known
WORTH_SHARING = 1000        # cycles of an item: enough for a call to be shared out


@dataclass(frozen=True)
class Bandwidth:
    """GB/s that all threads together read from the second level of the caches, from the third, and from memory."""

    level2: float
    level3: float
    memory: float

    def __getitem__(self, level: str) -> float:
        return {LEVEL2: self.level2, LEVEL3: self.level3, MEMORY: self.memory}[level]

    def __str__(self) -> str:
        return ", ".join(f"{self[level]:.0f} GB/s from {level}" for level in LEVELS)


def cycles_per_second(peak_gflops: float, threads: int, isa: Isa) -> float:
    """The model's cycles that one core does in a second, at a measured peak of some threads."""
    return peak_gflops * 1e9 / (2 * FMA_PER_CYCLE * isa.lanes * threads)


def measure_peak(pool: Pool, isa: Isa) -> float:
    """GFLOP/s of a pool's threads in a loop of multiply-adds alone."""
    items = PEAK_ITEMS * pool.threads
    call = Call(PeakKernel(), {"result": Place("result")}, np.full(items, WORTH_SHARING), "peak")
    return items * flops_of_item(isa) / _shortest([call], pool, isa) / 1e9


def measure_bandwidth(pool: Pool, isa: Isa) -> Bandwidth:
    """GB/s of a pool's threads, each reading its own part: of as much as half of a second-level cache a thread, of a quarter of
    the third level, and of three times the third level."""
    sizes = caches()
    level3 = sizes.level3 or WITHOUT_LEVEL3
    memory = Memory(3 * level3)
    memory.bytes[...] = 0  # pages that nobody wrote to are all one page, which stays in the cache
    return Bandwidth(*(_bandwidth(memory, size, pool, isa) for size in (pool.threads * sizes.level2 // 2, level3 // 4, 3 * level3)))


def _bandwidth(memory: Memory, size: int, pool: Pool, isa: Isa) -> float:
    """GB/s of reading the first bytes of some memory."""
    items = size // bytes_of_item(isa)
    call = Call(StreamKernel(), {"source": External("input", 0), "result": Place("result")}, np.full(items, WORTH_SHARING),
                "stream", barrier=False)
    times = max(1, REPEATED_BYTES // size)
    return times * items * bytes_of_item(isa) / _shortest([call] * times, pool, isa, memory.address) / 1e9


def _shortest(calls: Sequence[Call], pool: Pool, isa: Isa, source: int = 0) -> float:
    """Seconds of the fastest of some rounds of a few calls."""
    code, libraries = build_kernels([calls[0].kernel], isa)
    plan = Plan(isa.name, list(calls), {"result": isa.lanes * pool.threads})
    program = Program(plan, Tables(plan), code, pool)
    program.bind(program.patches("input", 0), source)
    stamps = np.array([program.run_timed() for _ in range(ROUNDS)])
    del libraries
    return float((stamps[:, -1] - stamps[:, 0]).min()) / 1e9
