"""What pruning did to each layer, and why it left others alone: numbers to print, or to keep as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

COLUMNS = ("layer", "kind", "shape", "pattern", "blocks gone", "sparsity", "L1 kept", "left alone because")
ERROR_COLUMNS = ("output error", "by magnitude")


@dataclass(frozen=True)
class Amounts:
    """Sums over one layer or several. ``l1`` is the sum of magnitudes before pruning, ``l1_left`` the sum after it."""

    weights: int = 0
    zeros: int = 0
    blocks: int = 0
    removed: int = 0
    l1: float = 0.0
    l1_left: float = 0.0

    @property
    def sparsity(self) -> float:
        """Share of weights that are zero."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def l1_kept(self) -> float:
        """Share of the weights' magnitude that is left; 1 where there was none."""
        return self.l1_left / self.l1 if self.l1 else 1.0

    @classmethod
    def total(cls, parts: Iterable[Amounts]) -> Amounts:
        rows = list(parts)
        return cls(
            sum(row.weights for row in rows),
            sum(row.zeros for row in rows),
            sum(row.blocks for row in rows),
            sum(row.removed for row in rows),
            sum(row.l1 for row in rows),
            sum(row.l1_left for row in rows),
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "sparsity": self.sparsity, "l1_kept": self.l1_kept}


@dataclass(frozen=True)
class OutputErrors:
    """What pruning does to a layer's outputs on data, ‖(W − Ŵ)X‖² ÷ ‖WX‖²: with what the ``solver`` made of the weight, and with
    zeros alone where the ``magnitude`` of blocks is least. Both on the same inputs, at the same sparsity."""

    solver: float
    magnitude: float


@dataclass(frozen=True)
class LayerReport:
    """One layer: ``pattern`` is None and ``reason`` says why where it was left alone. ``errors`` are there where a solver was."""

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int
    pattern: str | None
    amounts: Amounts
    reason: str | None = None
    errors: OutputErrors | None = None

    @property
    def pruned(self) -> bool:
        return self.reason is None

    @property
    def sparsity(self) -> float:
        """Share of the layer's weights that are zero."""
        return self.amounts.sparsity

    @property
    def l1_kept(self) -> float:
        """Share of the layer's L1 norm that is left."""
        return self.amounts.l1_kept

    def as_dict(self) -> dict[str, Any]:
        head = {"name": self.name, "kind": self.kind, "shape": list(self.shape), "groups": self.groups}
        errors = None if self.errors is None else asdict(self.errors)
        return {**head, "pattern": self.pattern, **self.amounts.as_dict(), "reason": self.reason, "output_errors": errors}


@dataclass(frozen=True)
class PruneReport:
    """What ``prune`` was asked, and what it did, layer by layer in the order of definition. Prints as a table.

    ``solver`` is None where weights were only zeroed; ``measured_on`` says which data the output errors are of.
    """

    pattern: str
    sparsity: float
    score: str
    scope: str
    layers: tuple[LayerReport, ...]
    warnings: tuple[str, ...] = field(default=())
    solver: str | None = None
    measured_on: str | None = None

    @property
    def pruned(self) -> tuple[LayerReport, ...]:
        """The layers that lost weights."""
        return tuple(layer for layer in self.layers if layer.pruned)

    @property
    def skipped(self) -> tuple[LayerReport, ...]:
        """The layers left alone, each with its reason."""
        return tuple(layer for layer in self.layers if not layer.pruned)

    @property
    def totals(self) -> Amounts:
        """Sums over the pruned layers."""
        return Amounts.total(layer.amounts for layer in self.pruned)

    @property
    def model_totals(self) -> Amounts:
        """Sums over all layers listed, pruned or not."""
        return Amounts.total(layer.amounts for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold."""
        asked = {"pattern": self.pattern, "sparsity": self.sparsity, "score": self.score, "scope": self.scope,
                 "solver": self.solver, "measured_on": self.measured_on}
        totals = {"totals": self.totals.as_dict(), "model_totals": self.model_totals.as_dict()}
        rows = [layer.as_dict() for layer in self.layers]
        return {**asked, **totals, "warnings": list(self.warnings), "layers": rows}

    def to_json(self) -> str:
        """Everything, as JSON text."""
        return json.dumps(self.as_dict(), indent=1)

    def __str__(self) -> str:
        solved = self.solver is not None
        cells = [(*COLUMNS[:-1], *ERROR_COLUMNS * solved, COLUMNS[-1]), *(_cells(layer, solved) for layer in self.layers)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join([*lines, *self._summary(), *(f"warning: {text}" for text in self.warnings)])

    def _summary(self) -> list[str]:
        pruned, model = self.totals, self.model_totals
        counts = f"{len(self.pruned)} layers pruned, {len(self.skipped)} left alone"
        by = self.score if self.solver is None else f"solver {self.solver}"
        return [
            "",
            f"{self.pattern} at {self.sparsity:.4g} by {by}, scope {self.scope}: {counts}",
            f"pruned layers: {pruned.removed} of {pruned.blocks} blocks gone, {pruned.sparsity:.2%} of weights zero, "
            f"{pruned.l1_kept:.2%} of L1 kept",
            f"all layers:    {model.sparsity:.2%} of {model.weights:,} weights zero",
            *([] if self.measured_on is None else [f"output errors: of each layer by itself, on {self.measured_on}"]),
        ]


def _cells(layer: LayerReport, solved: bool) -> tuple[str, ...]:
    amounts, errors = layer.amounts, layer.errors
    of_outputs = ("", "") if errors is None else (f"{errors.solver:.2%}", f"{errors.magnitude:.2%}")
    return (
        layer.name or "(the model)",
        layer.kind,
        "×".join(map(str, layer.shape)) + (f" /{layer.groups} groups" if layer.groups > 1 else ""),
        layer.pattern or "dense",
        f"{amounts.removed}/{amounts.blocks}" if layer.pruned else "",
        f"{amounts.sparsity:.2%}" if amounts.weights else "",
        f"{amounts.l1_kept:.2%}" if layer.pruned else "",
        *(of_outputs if solved else ()),
        layer.reason or "",
    )
