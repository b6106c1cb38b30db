"""What permuting did: which tensors moved together, what the pattern keeps of each layer, and what stayed put, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("layer", "shape", "L1 kept before", "after", "can't be permuted")
AXES = ("rows", "columns")


@dataclass(frozen=True)
class Fixed:
    """Lines of a layer that can't be permuted: so many of all its rows or columns, and why."""

    axis: str
    lines: int
    of: int
    reason: str

    def __str__(self) -> str:
        count = "all" if self.lines == self.of else f"{self.lines} of {self.of}"
        return f"{count} {self.axis}: {self.reason}"


@dataclass(frozen=True)
class LayerShare:
    """One layer that is to be pruned. ``l1`` is the sum of magnitudes; the others are what the pattern would leave of it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int
    l1: float
    kept_before: float
    kept: float
    fixed: tuple[Fixed, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape), "fixed": [asdict(reason) for reason in self.fixed]}


@dataclass(frozen=True)
class GroupReport:
    """Units that may stand in any order: how many, how many of them moved, and the tensors that share them, with the axis."""

    units: int
    moved: int
    members: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        return {"units": self.units, "moved": self.moved, "members": [list(member) for member in self.members]}


@dataclass(frozen=True)
class PermuteReport:
    """What ``permute`` was asked, and what it did. Prints as a table."""

    pattern: str
    sparsity: float
    method: str
    seed: int
    layers: tuple[LayerShare, ...]
    groups: tuple[GroupReport, ...]
    warnings: tuple[str, ...] = ()

    @property
    def l1(self) -> float:
        """The sum of magnitudes of all layers that are to be pruned."""
        return sum(layer.l1 for layer in self.layers)

    @property
    def kept_before(self) -> float:
        """The share of L1 that the pattern would have left of these layers together."""
        return sum(layer.kept_before for layer in self.layers) / self.l1 if self.l1 else 1.0

    @property
    def kept(self) -> float:
        """The share of L1 that the pattern leaves of them now."""
        return sum(layer.kept for layer in self.layers) / self.l1 if self.l1 else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold."""
        asked = {"pattern": self.pattern, "sparsity": self.sparsity, "method": self.method, "seed": self.seed}
        found = {"l1": self.l1, "kept_before": self.kept_before, "kept": self.kept, "warnings": list(self.warnings)}
        return {**asked, **found, "layers": [layer.as_dict() for layer in self.layers],
                "groups": [group.as_dict() for group in self.groups]}

    def to_json(self) -> str:
        """Everything, as JSON text."""
        return json.dumps(self.as_dict(), indent=1)

    def __str__(self) -> str:
        cells = [COLUMNS, *map(_cells, self.layers)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        lines.insert(1, "  ".join("─" * width for width in widths))
        moved = [group for group in self.groups if group.moved]
        summary = [
            "",
            f"permuted for {self.pattern} at {self.sparsity:.4g} by {self.method}: {len(moved)} of {len(self.groups)} groups of "
            f"channels moved, {len({name for group in moved for name, _ in group.members})} tensors changed",
            f"L1 kept of {len(self.layers)} layers: {self.kept_before:.2%} before, {self.kept:.2%} after",
        ]
        return "\n".join([*lines, *summary, *(f"warning: {text}" for text in self.warnings)])


def _cells(layer: LayerShare) -> tuple[str, ...]:
    return (
        layer.name or "(the model)",
        "×".join(map(str, layer.shape)) + (f" /{layer.groups} groups" if layer.groups > 1 else ""),
        f"{layer.kept_before / layer.l1:.2%}" if layer.l1 else "",
        f"{layer.kept / layer.l1:.2%}" if layer.l1 else "",
        "; ".join(map(str, layer.fixed)),
    )
