"""Where the time of a compiled network goes: every call timed in its place, set beside the peak of the machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zellige.cpu.calls import Call, Place, Plan
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.peak import PeakKernel, flops_of_item

if TYPE_CHECKING:
    from zellige.cpu.program import Program

FMA_PER_CYCLE = 2  # vectors that a core multiplies and adds at once, in the model's cycles
PEAK_ITEMS = 64
PEAK_ROUNDS = 9


@dataclass(frozen=True)
class ProfileRow:
    """One layer: what ran, why, and how fast.

    ``gflops`` counts the multiplications and additions of the direct convolution on kept columns, so Winograd's layers may
    pass the peak. ``predicted_microseconds`` is the planner's model at the clock rate that the measured peak implies.
    """

    name: str
    op: str
    pattern: str
    density: float
    path: str
    reason: str
    microseconds: float
    predicted_microseconds: float
    gflops: float
    peak_share: float


@dataclass(frozen=True)
class Profile:
    """All layers; ``peak_gflops`` is what the used threads reach together in a loop of multiply-adds alone, just measured."""

    rows: tuple[ProfileRow, ...]
    threads: int
    peak_gflops: float

    @property
    def total_microseconds(self) -> float:
        return sum(row.microseconds for row in self.rows)

    def __str__(self) -> str:
        width = max([len(row.name) for row in self.rows] + [5])
        head = (f"{'layer':{width}} {'op':16} {'path':13} {'density':>7} {'µs':>9} {'model':>9} {'GFLOP/s':>8} "
                f"{'of peak':>8}  reason")
        lines = [f"{row.name:{width}} {row.op:16} {row.path:13} {row.density:7.0%} {row.microseconds:9.1f} "
                 f"{row.predicted_microseconds:9.1f} {row.gflops:8.1f} {row.peak_share:8.0%}  {row.reason}" for row in self.rows]
        return "\n".join([head, *lines, f"{self.total_microseconds:.0f} µs in all, {self.threads} threads, "
                                        f"peak {self.peak_gflops:.0f} GFLOP/s (measured)"])

    def to_json(self) -> dict[str, Any]:
        """A JSON value, with ``rows`` as dicts."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value | {"total_microseconds": self.total_microseconds}


def profile_program(program: Program, isa: Isa, rounds: int) -> Profile:
    """Medians over rounds; the caller has bound inputs and outputs."""
    calls = program.plan.calls
    stamps = np.array([program.run_timed() for _ in range(rounds + 1)][1:])
    spans = np.median(np.diff(stamps, axis=1), axis=0) / 1e3
    by_label: dict[str, float] = {}
    for call, span in zip(calls, spans, strict=True):
        by_label[call.label] = by_label.get(call.label, 0.0) + float(span)
    peak = measure_peak(program, isa)
    cycles_per_microsecond = peak * 1e3 / (2 * FMA_PER_CYCLE * isa.lanes)  # of all threads together
    rows, known = [], set()
    for layer in program.plan.layers:
        known.add(layer.name)
        span = by_label.get(layer.name, 0.0)
        gflops = 2e-3 * layer.kept_macs / span if span else 0.0
        rows.append(ProfileRow(layer.name, layer.op, layer.pattern, layer.density, layer.path, layer.reason,
                               span, layer.cycles / cycles_per_microsecond, gflops, gflops / peak))
    rows += [ProfileRow(label, "", "", 1.0, "", "copies in and out, margins", span, 0.0, 0.0, 0.0)
             for label, span in by_label.items() if label not in known]
    return Profile(tuple(rows), program.pool.threads, peak)


def measure_peak(program: Program, isa: Isa) -> float:
    """GFLOP/s of the program's threads in a loop of multiply-adds alone."""
    from zellige.cpu.code import build_kernels
    from zellige.cpu.program import Program, Tables

    kernel, threads = PeakKernel(), program.pool.threads
    code, libraries = build_kernels([kernel], isa)
    call = Call(kernel, {"result": Place("result")}, np.full(PEAK_ITEMS * threads, 1000), "peak")
    plan = Plan(isa.name, [call], {"result": isa.lanes * threads})
    peak = Program(plan, Tables(plan), code, program.pool)
    stamps = np.array([peak.run_timed() for _ in range(PEAK_ROUNDS)])
    del libraries
    return float(len(call.costs) * flops_of_item(isa) / np.diff(stamps, axis=1).min())
