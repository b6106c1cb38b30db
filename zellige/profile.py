"""Where the time of a compiled network goes: every call timed in its place, set beside what the model expects and what the machine
could do at best.

The floor of a layer is the longer of two times: its multiplications at the peak of multiply-adds, and its bytes (tables and weights
as packed, read once; maps read and written once) at the bandwidth of the level of memory where they are. Peak and bandwidths are
measured with the layers. This is the roofline model of Williams, Waterman and Patterson (2009).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zellige.cpu.calls import Call, LayerPlan
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.winograd_points import LARGE, SMALL
from zellige.cpu.program import largest_share
from zellige.cpu.speed import Bandwidth, cycles_per_second, measure_bandwidth, measure_peak

if TYPE_CHECKING:
    from zellige.cpu.program import Program

__all__ = ["Profile", "ProfileRow", "measure_peak", "profile_program"]

MULTIPLY_ADDS = "multiply-adds"
# F(4, 4) along rows multiplies at 7 points in place of 16
SAVED = {"winograd": LARGE.saved, "small winograd": SMALL.saved, "row winograd": 16 / 7}


@dataclass(frozen=True)
class ProfileRow:
    """One layer: what ran, why, how fast, and how fast it could be.

    ``gflops`` counts the multiplications and additions of the direct convolution on kept columns, so Winograd's layers may
    pass the peak. ``predicted_microseconds`` is the planner's model at the clock rate that the measured peak implies.
    ``floor_microseconds`` is what the multiplications that are really done, or the bytes that must be moved, take at least, and
    ``bound`` says which: multiply-adds, or the level of memory whose bandwidth is the limit (empty where there is neither).
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
    weight_bytes: int
    map_bytes: int
    gigabytes_per_second: float
    floor_microseconds: float
    bound: str


@dataclass(frozen=True)
class Profile:
    """All layers; ``peak_gflops`` is what the used threads reach together in a loop of multiply-adds alone, ``bandwidth`` what they
    read together from each level of memory, both just measured. ``home`` is the level where the weights stay between two runs,
    ``batch`` says how many images run at a time, and why: layers' times are sums over all of them."""

    rows: tuple[ProfileRow, ...]
    threads: int
    peak_gflops: float
    bandwidth: Bandwidth
    home: str
    batch: str = ""

    @property
    def total_microseconds(self) -> float:
        return sum(row.microseconds for row in self.rows)

    @property
    def floor_microseconds(self) -> float:
        return sum(row.floor_microseconds for row in self.rows)

    @property
    def mean_error(self) -> float:
        """|predicted − measured| ÷ measured, the mean over all layers that run, each counting the same."""
        errors = [abs(row.predicted_microseconds / row.microseconds - 1) for row in self._layers()]
        return float(np.mean(errors)) if errors else 0.0

    @property
    def weighted_error(self) -> float:
        """The same error with every layer counting by its time: Σ|predicted − measured| ÷ Σ measured."""
        layers = self._layers()
        total = sum(row.microseconds for row in layers)
        return sum(abs(row.predicted_microseconds - row.microseconds) for row in layers) / total if layers else 0.0

    def _layers(self) -> list[ProfileRow]:
        """The rows that a layer of the network stands behind, if it does anything."""
        return [row for row in self.rows if row.op and row.microseconds > 0]

    def __str__(self) -> str:
        width = max([len(row.name) for row in self.rows] + [5])
        head = (f"{'layer':{width}} {'op':16} {'path':14} {'density':>7} {'µs':>9} {'model':>9} {'floor':>9} {'GFLOP/s':>8} "
                f"{'of peak':>8} {'GB/s':>6} {'bound by':13}  reason")
        lines = [f"{row.name:{width}} {row.op:16} {row.path:14} {row.density:7.0%} {row.microseconds:9.1f} "
                 f"{row.predicted_microseconds:9.1f} {row.floor_microseconds:9.1f} {row.gflops:8.1f} {row.peak_share:8.0%} "
                 f"{row.gigabytes_per_second:6.1f} {row.bound:13}  {row.reason}" for row in self.rows]
        return "\n".join([
            head, *lines,
            f"{self.total_microseconds:.0f} µs in all, floor {self.floor_microseconds:.0f} µs, {self.threads} threads",
            *([self.batch] if self.batch else []),
            f"measured with it: peak {self.peak_gflops:.0f} GFLOP/s; {self.bandwidth}; weights stay in {self.home}",
            f"model: mean error of a layer {self.mean_error:.1%}, weighted by time {self.weighted_error:.1%}"])

    def to_json(self) -> dict[str, Any]:
        """A JSON value, with ``rows`` as dicts."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        sums = ("total_microseconds", "floor_microseconds", "mean_error", "weighted_error")
        return value | {name: getattr(self, name) for name in sums}


def profile_program(program: Program, isa: Isa, rounds: int) -> Profile:
    """Medians over rounds; the caller has bound inputs and outputs."""
    plan = program.plan
    stamps = np.array([program.run_timed() for _ in range(rounds + 1)][1:])
    spans = np.median(np.diff(stamps, axis=1).reshape(rounds, plan.parts, -1).sum(1), axis=0) / 1e3
    machine = Machine.measured(program, isa)
    calls: dict[str, list[tuple[Call, float]]] = {}
    for call, span in zip(plan.calls, spans, strict=True):
        calls.setdefault(call.label, []).append((call, float(span)))
    layers = {layer.name: layer for layer in plan.layers}
    rows = [machine.row(layer, calls.get(name, [])) for name, layer in layers.items()]
    beside = "copies in and out, margins"
    rows += [machine.row(LayerPlan(label, "", (), "", 1.0, "", beside, 0, 0, 0.0), timed)
             for label, timed in calls.items() if label not in layers]
    return Profile(tuple(rows), program.pool.threads, machine.peak, machine.bandwidth, plan.home, plan.batch)


@dataclass(frozen=True)
class Machine:
    """What a program's threads can do, and what its plan expects of them."""

    program: Program
    peak: float
    bandwidth: Bandwidth
    cycles_per_microsecond: float

    @classmethod
    def measured(cls, program: Program, isa: Isa) -> Machine:
        pool = program.pool
        peak = measure_peak(pool, isa)
        return cls(program, peak, measure_bandwidth(pool, isa), cycles_per_second(peak, pool.threads, isa) / 1e6)

    def row(self, layer: LayerPlan, timed: list[tuple[Call, float]]) -> ProfileRow:
        """A layer's row from its calls and what each took in all parts of the batch, in µs."""
        parts = self.program.plan.parts
        span = sum(time for _, time in timed)
        weights = parts * sum(call.demand.weight_bytes for call, _ in timed)
        maps = parts * sum(call.map_bytes for call, _ in timed)
        gflops = 2e-3 * layer.kept_macs / span if span else 0.0
        floor, bound = self.floor(layer, weights, maps)
        return ProfileRow(layer.name, layer.op, layer.pattern, layer.density, layer.path, layer.reason, span,
                          parts * sum(self.expected(call) for call, _ in timed), gflops, gflops / self.peak, weights, maps,
                          1e-3 * (weights + maps) / span if span else 0.0, floor, bound)

    def expected(self, call: Call) -> float:
        """The model's µs of a call."""
        plan = self.program.plan
        cycles = plan.costs.cycles(call.demand, plan.home, largest_share(call, self.program.pool.threads))
        return cycles / self.cycles_per_microsecond

    def floor(self, layer: LayerPlan, weight_bytes: int, map_bytes: int) -> tuple[float, str]:
        """The µs that a layer takes at least, and what bounds it."""
        plan = self.program.plan
        where = (plan.home, plan.costs.levels.holding(map_bytes // plan.parts))
        moves = [1e-3 * size / self.bandwidth[level] for size, level in zip((weight_bytes, map_bytes), where, strict=True)]
        multiplying = 2e-3 * layer.kept_macs / SAVED.get(layer.path, 1) / self.peak
        if multiplying >= sum(moves):
            return multiplying, MULTIPLY_ADDS if layer.kept_macs else ""
        return sum(moves), where[int(np.argmax(moves))]
