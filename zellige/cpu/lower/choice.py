"""The choice between the ways to run a layer: by the model, or by the clock."""

from __future__ import annotations

from dataclasses import replace

from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.measure import measure_paths


def choose(lowering: Lowering, paths: list[Path]) -> Path:
    """The path that takes the fewest cycles: as the model has it, or as measured with ``tune="measure"``."""
    if len(paths) == 1:
        return paths[0]
    if lowering.options.tune == "measure":
        return measure_paths(lowering, paths)
    best, *others = sorted(paths, key=lambda path: path.cycles)
    beaten = ", ".join(f"{other.cycles / best.cycles:.2f}× the cycles by {other.name}" for other in others)
    return replace(best, reason=f"{best.reason}; model: {beaten}")
