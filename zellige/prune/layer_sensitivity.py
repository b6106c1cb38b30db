"""Which layers a network can do without: what the loss does as each of them alone gets sparser, as numbers, a table and a plot.

Scope ``"sensitivity"`` shares sparsities out by these very curves (``sensitivity.py``; Li et al., arXiv 1608.08710).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import nn

from zellige.errors import PruneError
from zellige.figures import figure_file, look, save_figure
from zellige.patterns import Pattern
from zellige.patterns.shares import exact_sparsity
from zellige.prune.calibration import Calibration, Loss
from zellige.prune.curves import Curve
from zellige.prune.data_score import DataScore
from zellige.prune.request import checked_calibration, checked_pattern, layers_to_prune
from zellige.prune.scores import Score, name_of, score_named, scored_layers
from zellige.prune.sensitivity import LEVELS, loss_curves

MOST_NAMED = 14  # lines in a plot that have a name; the most sensitive layers have one


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The mean ``loss`` of a network as it is, and for every layer that the pattern takes a curve: the ``harm`` is what the loss
    rises by at each of the ``sparsities``, which count what the pattern counts. Prints as a table."""

    pattern: str
    score: str
    loss: float
    curves: tuple[Curve, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold."""
        layers = [
            {"name": curve.layer, "sparsities": [float(level) for level in curve.sparsities], "rise": list(curve.harm),
             "density": list(curve.density), "bytes": list(curve.bytes)}
            for curve in self.curves
        ]  # fmt: skip
        return {"pattern": self.pattern, "score": self.score, "loss": self.loss, "layers": layers}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Sensitivity:
        """What ``as_dict`` wrote down."""
        curves = tuple(
            Curve(layer["name"], tuple(map(exact_sparsity, layer["sparsities"])), tuple(layer["rise"]), tuple(layer["density"]),
                  tuple(layer["bytes"])) for layer in facts["layers"]
        )  # fmt: skip
        return cls(facts["pattern"], facts["score"], facts["loss"], curves)

    def __str__(self) -> str:
        heads = ("layer", *(f"{float(level):.0%}" for level in self.curves[0].sparsities))
        cells = [heads, *((curve.layer or "(the model)", *(f"{rise:+.3g}" for rise in curve.harm)) for curve in self.curves)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
        lines.insert(1, "  ".join("─" * width for width in widths))
        what = f"what the loss of {self.loss:.4g} rises by as one layer is pruned in {self.pattern} by {self.score}"
        return "\n".join([*lines, "", what])

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the curves into an .svg, .png or .pdf file. Layers beyond the most sensitive ones are grey, and have no name.

        Raises ``ZelligeError`` for another ending, a missing directory, or where matplotlib is not installed.
        """
        return save_figure(figure_file(path), self.draw)

    def draw(self, axes: Any) -> None:
        """Draw the curves on axes of matplotlib's."""
        ranked = sorted(self.curves, key=lambda curve: -max(curve.harm))
        named = {curve.layer for curve in ranked[:MOST_NAMED]}
        shown = 0
        for curve in self.curves:
            style: dict[str, Any] = {"color": "#cccccc", "linewidth": 0.8, "zorder": 1}
            if curve.layer in named:
                style = {**look(shown), "markersize": 3.5, "linewidth": 1.2, "label": curve.layer or "(the model)"}
                shown += 1
            axes.plot([100 * float(level) for level in curve.sparsities], [self.loss + rise for rise in curve.harm], **style)
        axes.axhline(self.loss, color="#333333", linewidth=0.8, linestyle=":")
        least = self.loss + min(min(curve.harm) for curve in self.curves)
        axes.set(xlabel=f"sparsity of one layer in {self.pattern}, %", ylabel="mean loss", yscale="log" if least > 0 else "linear",
                 title=f"What the loss does as one layer is pruned by {self.score}")  # fmt: skip
        axes.legend(loc="upper left", fontsize=7)


def sensitivity(
    model: nn.Module,
    pattern: Pattern | str,
    example_inputs: Any = None,
    *,
    data: Iterable[Any],
    loss: Loss,
    levels: Sequence[float] | None = None,
    score: str | Score | DataScore = "l1",
    targets: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Sensitivity:
    """Measures what the mean loss over all batches rises by when one layer alone is pruned, for each layer and several sparsities.

    The model is left as it was. It runs over the data once, and once more for each layer and each sparsity above 0.

    Args:
        levels: the sparsities, rising, each at least 0 and less than 1; 0, 0.25, 0.5, 0.75 and 0.9 if None. Those that the
            pattern can't have are left out.
        model, pattern, example_inputs, data, loss, score, targets, ignore, progress: as ``zl.prune`` takes them.

    Raises:
        PruneError: as ``zl.prune`` does; the levels don't rise, or the pattern can have fewer than two of them.

    >>> import torch
    >>> torch.manual_seed(0) and None
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    >>> found = sensitivity(model, "block:8x8", data=[torch.ones(4, 16)], loss=lambda model, batch: model(batch).square().mean())
    >>> [curve.layer for curve in found.curves], [float(level) for level in found.curves[0].sparsities]
    (['0', '2'], [0.0, 0.25, 0.5, 0.75, 0.9])
    """
    pattern, score_of = checked_pattern(pattern), score_named(score)
    chosen = LEVELS if levels is None else _checked_levels(levels)
    calibration = checked_calibration(Calibration(data, loss, progress), score_of, measured=True)
    layers = layers_to_prune(model, pattern, targets, ignore, example_inputs).pruned
    scored = scored_layers(score_of, model, layers, calibration)
    before, curves = loss_curves(model, pattern, layers, scored, calibration, chosen)
    return Sensitivity(str(pattern), name_of(score), before, tuple(curves))


def _checked_levels(levels: Sequence[float]) -> tuple[Fraction, ...]:
    """The levels as they were written."""
    found = tuple(map(exact_sparsity, levels)) if isinstance(levels, Iterable) and not isinstance(levels, str) else ()
    if not found or list(found) != sorted(set(found)):
        raise PruneError(f"levels are sparsities that rise, such as (0, 0.5, 0.75); not {levels!r}.")
    return found
