"""The choice between the ways to run a layer: by the model, or by the clock."""

from __future__ import annotations

from dataclasses import replace

from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.measure import measure_paths


def choose(lowering: Lowering, paths: list[Path]) -> Path:
    """The path that takes the fewest cycles: as the model has it, or as measured with ``tune="measure"``."""
    asked = [path for path in paths if path.name == lowering.options.path]
    if asked or len(paths) == 1:
        return (asked or paths)[0]
    ranked = sorted(paths, key=lambda path: expected_cycles(lowering, path))
    if lowering.options.tune == "measure":
        return measure_paths(lowering, ranked)
    best, *others = ranked
    beaten = ", ".join(f"{expected_cycles(lowering, other) / expected_cycles(lowering, best):.2f}× the cycles by {other.name}"
                       for other in others)
    return replace(best, reason=f"{best.reason}; model: {beaten}")


def expected_cycles(lowering: Lowering, path: Path) -> float:
    """What the cost model expects all calls of a path to take on one core."""
    return sum(lowering.plan.costs.cycles(demand, lowering.plan.home) for demand in path.demands)
