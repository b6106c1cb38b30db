"""The timeline as a picture: a lane for every core and every channel, in colours by phase. An estimate, like all times here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from zellige.aie2.estimate.phases import phase_of
from zellige.aie2.simulate import EXTERNAL, Run
from zellige.aie2.simulate.timeline import Lane
from zellige.figures import COLOURS, save_figure

FINEST = 1 / 3000
"""Spans of a phase that are less than this share of the whole time apart are drawn as one."""

WIDTH, LANE, EDGE = 10.0, 0.11, 0.9
"""In inches."""

NONE = "#999999"
"""The colour of what belongs to no phase."""


def timeline_figure(run: Run, clock: float, path: str | os.PathLike[str]) -> Path:
    """Draw when everything was busy; the format follows from the file's ending.

    ``clock`` in Hz. Raises ``ZelligeError`` for an ending that is no format, and if matplotlib is missing.
    """
    lanes = sorted((lane for lane in run.lanes.values() if len(lane)), key=_place)
    drawn = [(lane, merged_spans(lane, FINEST * run.cycles)) for lane in lanes]
    begun = sorted((start, phase) for _, spans in drawn for phase, start, _ in spans if phase)
    colours = {phase: COLOURS[at % len(COLOURS)] for at, phase in enumerate(dict.fromkeys(phase for _, phase in begun))}

    def draw(axes: Any) -> None:  # Any: matplotlib's own types come and go
        for height, (_, spans) in enumerate(reversed(drawn)):
            bars = [(start / clock * 1e3, (end - start) / clock * 1e3) for _, start, end in spans]
            axes.broken_barh(bars, (height - 0.4, 0.8), facecolors=[colours.get(phase, NONE) for phase, _, _ in spans], linewidth=0)
        axes.set_yticks(range(len(lanes)), [lane.name for lane in reversed(lanes)], fontsize=5)
        axes.set_ylim(-1, len(lanes))
        axes.set_xlim(0, run.cycles / clock * 1e3)
        axes.set_xlabel("ms (an estimate); colours are phases")
        axes.grid(axis="y", visible=False)

    return save_figure(path, draw, size=(WIDTH, EDGE + LANE * len(lanes)))


def merged_spans(lane: Lane, gap: float) -> list[tuple[str, float, float]]:
    """Phase, and from when to when the lane was busy with it; spans of a phase less than ``gap`` apart become one."""
    phases = np.array([phase_of(task) for task in lane.tasks])
    names, of_task = np.unique(phases, return_inverse=True)
    starts, ends, of = lane.starts, lane.ends, of_task[lane.numbers]
    cut = np.flatnonzero((starts[1:] - ends[:-1] > gap) | (of[1:] != of[:-1])) + 1
    edges = zip(np.r_[0, cut], np.r_[cut, len(starts)] - 1, strict=True)
    return [(str(names[of[first]]), float(starts[first]), float(ends[last])) for first, last in edges]


def _place(lane: Lane) -> tuple[bool, tuple[int, ...], str]:
    """External memory first, then column by column, from the shim up."""
    column, row = (int(number) for number in re.findall(r"\d+", lane.name)[:2] or (-1, -1))
    return lane.name != EXTERNAL, (column, row), lane.name
