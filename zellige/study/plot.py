"""The plot of a study: what is lost against what is won, one line per pattern, the Pareto front behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from zellige.errors import ZelligeError
from zellige.figures import figure_file, look, save_figure
from zellige.study.axes import AS_TRAINED
from zellige.study.study import Row, Study

PANEL, LEGEND = (4.6, 3.9), 2.0  # inches
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def plot_studies(path: str | os.PathLike[str], studies: Mapping[str, Study]) -> Path:
    """Draw several studies side by side, under their names; a pattern looks the same in all of them.

    Raises ``ZelligeError`` for a file that can't be written, where matplotlib is not installed, or a study without speeds.
    """
    file = figure_file(path)
    for name, study in studies.items():
        if not any(row.speed for row in study.rows):
            raise ZelligeError(f"the study{' of ' + name if name else ''} has no speeds, so nothing can be drawn against them")
    series = list(dict.fromkeys(_series(row, study) for study in studies.values() for row in study.rows if row.speed))

    def draw(panels: Any) -> None:
        every = list(panels) if len(studies) > 1 else [panels]
        for axes, (name, study) in zip(every, studies.items(), strict=True):
            _draw(axes, name, study, series)
        handles = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        every[0].figure.legend(handles.values(), handles.keys(), loc="outside right center")

    return save_figure(file, draw, len(studies), (len(studies) * PANEL[0] + LEGEND, PANEL[1]))


def _draw(axes: Any, name: str, study: Study, series: list[str]) -> None:
    front = study.best()
    axes.plot(*_points(front, study), color="#bbbbbb", linewidth=5, solid_capstyle="round", zorder=1, label="Pareto front")
    timed = [row for row in study.rows if row.speed]
    for label, rows in groupby(sorted(timed, key=lambda row: series.index(_series(row, study))), lambda row: _series(row, study)):
        style = {**look(series.index(label)), "markersize": 4.5, "linewidth": 0.9, "zorder": 2}
        axes.plot(*_points(sorted(rows, key=lambda row: row.trial.sparsity), study), label=label, **style)
    axes.axvline(1, color="#333333", linewidth=0.8)
    axes.plot([1], [0], "o", color="#333333", markersize=5, zorder=3, label="dense")
    lost = "L1 lost, %" if study.dense_accuracy is None else "accuracy lost, points"
    axes.set(xscale="log", xlabel="times as fast as the dense network", ylabel=lost, title=name)
    speeds = [1.0, *_points(timed, study)[0]]
    ticks = [tick for tick in TICKS if 0.9 * min(speeds) <= tick <= 1.1 * max(speeds)]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _points(rows: list[Row], study: Study) -> tuple[list[float], list[float]]:
    return [row.speed.over_dense.median for row in rows if row.speed], [100 * study.lost(row) for row in rows if row.speed]


def _series(row: Row, study: Study) -> str:
    """The name of a line: the pattern, and what else tells it from others of the study."""
    several = len({other.trial.criterion for other in study.rows if other.speed}) > 1
    parts = [row.trial.pattern, row.trial.criterion if several else "", row.trial.order if row.trial.order != AS_TRAINED else ""]
    return ", ".join(filter(None, parts))
