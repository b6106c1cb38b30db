"""What a comparison found: as data, as JSON, as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zellige.bench.clock import Ratio, Timing
from zellige.bench.table import Column, Table, milliseconds

OURS, OURS_DENSE = "zellige", "zellige-dense"


@dataclass(frozen=True)
class LayerRow:
    """One layer of the compiled network: what ran, how, why, and for how long. No peak is measured on GPUs."""

    name: str
    op: str
    pattern: str
    density: float
    path: str
    reason: str
    us: float
    gflops: float
    peak_share: float | None


@dataclass(frozen=True)
class Contestant:
    """One engine in the comparison: version, settings, error against float64, and times."""

    name: str
    version: str
    settings: Mapping[str, object]
    relative_error: float
    timing: Timing


@dataclass(frozen=True)
class Comparison:
    """The whole result. ``unavailable`` says of every engine that could not take part why."""

    model: str
    pattern: str
    sparsity: float
    dtype: str
    batch: int
    threads: int | None
    contestants: Mapping[str, Contestant]
    unavailable: Mapping[str, str]
    speedups: Mapping[str, Ratio]
    over_fastest: Ratio | None
    torch_error: float
    compile_seconds: float
    file_bytes: int | None
    dense_bytes: int
    layers: tuple[LayerRow, ...]
    conditions: Mapping[str, object]

    @property
    def rivals(self) -> list[Contestant]:
        return [one for name, one in self.contestants.items() if name not in (OURS, OURS_DENSE)]

    @property
    def fastest_dense(self) -> str | None:
        """The rival with the smallest median, none where none could run."""
        return min(self.rivals, key=lambda one: one.timing.median_ms).name if self.rivals else None

    def as_dict(self) -> dict[str, Any]:
        """The result as plain data, with the keys that readers of the JSON rely on."""
        return {
            "model": self.model,
            "pattern": self.pattern,
            "sparsity": self.sparsity,
            "dtype": self.dtype,
            "batch": self.batch,
            "threads": self.threads,
            "engines": {name: _engine(one) for name, one in self.contestants.items()},
            "unavailable": dict(self.unavailable),
            "fastest_dense": self.fastest_dense,
            "speedup_over_fastest": self.over_fastest.median if self.over_fastest else None,
            "speedup_over_fastest_quartiles": list(self.over_fastest.quartiles) if self.over_fastest else None,
            "speedup": {name: ratio.median for name, ratio in self.speedups.items()},
            "speedup_quartiles": {name: list(ratio.quartiles) for name, ratio in self.speedups.items()},
            "max_relative_error": self.contestants[OURS].relative_error,
            f"torch_{self.dtype}_relative_error": self.torch_error,
            "compile_s": self.compile_seconds,
            "file_bytes": self.file_bytes,
            "dense_bytes": self.dense_bytes,
            "layers": [vars(layer) for layer in self.layers],
            "conditions": dict(self.conditions),
        }

    def to_json(self) -> str:
        """The result as JSON text."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n"

    def tables(self) -> tuple[Table, Table]:
        """The engines beside each other, and the layers of ours."""
        return self._engine_table(), self._layer_table()

    def summary(self) -> str:
        """What a reader wants to know first, in a few lines."""
        ours = self.contestants[OURS]
        lines = [
            f"conditions: {self.conditions['summary']}",
            f"weights: {self.conditions['weights']}",
            f"error: {ours.relative_error:.1e} of the largest output, against PyTorch in float64 "
            f"(PyTorch itself in {self.dtype}: {self.torch_error:.1e})",
            f"compiled in {self.compile_seconds:.1f} s"
            + ("" if self.file_bytes is None else f"; file {self.file_bytes / 1e6:.1f} MB")
            + f"; dense f32 weights {self.dense_bytes / 1e6:.1f} MB",
        ]
        if self.over_fastest:
            lower, upper = self.over_fastest.quartiles
            lines.append(
                f"speedup over the fastest dense engine ({self.fastest_dense}): {self.over_fastest.median:.2f} "
                f"(quartiles {lower:.2f} to {upper:.2f})"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.tables()), self.summary()])

    def _engine_table(self) -> Table:
        headings = ("engine", "version", "median ms", "min ms", "p99 ms", "its time ÷ zellige's", "error")
        columns = tuple(Column(heading, numeric=index > 1) for index, heading in enumerate(headings))
        rows = [self._engine_row(one) for one in sorted(self.contestants.values(), key=lambda c: c.timing.median_ms)]
        rows += [(name, why, *[""] * 5) for name, why in self.unavailable.items()]
        what = "dense" if self.sparsity == 0 else f"{self.pattern} at {self.sparsity:.0%}"
        return Table(f"{self.model}, {what}, {self.dtype}, batch {self.batch}", columns, tuple(rows))

    def _engine_row(self, one: Contestant) -> tuple[str, ...]:
        ratio = self.speedups.get(one.name)
        times = (one.timing.median_ms, one.timing.min_ms, one.timing.p99_ms)
        faster = f"{ratio.median:.2f}×" if ratio else ""
        return (one.name, one.version, *map(milliseconds, times), faster, f"{one.relative_error:.0e}")

    def _layer_table(self) -> Table:
        peaks = any(row.peak_share is not None for row in self.layers)
        columns = (
            Column("layer"), Column("op"), Column("pattern"), Column("density", True), Column("path"),
            Column("µs", True), Column("GFLOP/s", True), *([Column("of peak", True)] if peaks else []), Column("reason"),
        )  # fmt: skip
        rows = tuple(
            (
                row.name, row.op, row.pattern, f"{row.density:.2f}", row.path, f"{row.us:.1f}", f"{row.gflops:.0f}",
                *([f"{row.peak_share:.0%}" if row.peak_share is not None else ""] if peaks else []), row.reason,
            )
            for row in self.layers
        )  # fmt: skip
        return Table("layer by layer", columns, rows)


def _engine(one: Contestant) -> dict[str, object]:
    return {
        "median_ms": one.timing.median_ms,
        "min_ms": one.timing.min_ms,
        "p99_ms": one.timing.p99_ms,
        "rounds_ms": list(one.timing.rounds),
        "version": one.version,
        "settings": dict(one.settings),
        "max_relative_error": one.relative_error,
    }
