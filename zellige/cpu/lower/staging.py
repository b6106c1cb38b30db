"""Planes made for one convolution: padding written out, one plane for each phase of the stride."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.calls import Place, Stored
from zellige.cpu.kernels.copy import CopyKernel
from zellige.cpu.layout import Planes, planes
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.windows import positions, stage_work, window_work
from zellige.cpu.tables.work import Work
from zellige.graph.ir import Node


@dataclass(frozen=True)
class Window:
    """How a convolution looks at its source; ``reach`` are the pixels from its first to its last tap."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    mode: str
    reach: tuple[int, int]

    @property
    def phases(self) -> int:
        """Planes for each channel: a convolution of one tap needs but one phase."""
        return 1 if self.reach == (0, 0) else self.stride[0] * self.stride[1]


def staged_layout(channels: int, window: Window, target: Planes) -> Planes:
    """Planes whose rows are as long as the target's; its pixels' taps lie inside."""
    height = target.height + window.reach[0] // window.stride[0]
    width = target.width + window.reach[1] // window.stride[1]
    return planes(target.images, channels * window.phases, height, width, row=target.row)


def stage(lowering: Lowering, node: Node, name: str, window: Window, target: Planes, commit: bool) -> Stored:
    """Where the staged planes of a source lie; with ``commit``, also the call that fills them."""
    source = lowering.storage[name]
    buffer = f"{node.name} staged"
    layout = staged_layout(source.layout.shape[1], window, target)
    if not commit:
        return Stored(Place(buffer, layout.head), layout)
    stored = lowering.storage.reserve(buffer, layout)
    work = staging_work(lowering, source, layout, window)
    lowering.call(node, CopyKernel(), {"source": source.place, "target": stored.place, **work.tables}, work.costs)
    return stored


def staging_work(lowering: Lowering, source: Stored, layout: Planes, window: Window) -> Work:
    lanes = lowering.isa.lanes
    if window.phases > 1:
        return stage_work(source.layout, layout, window.stride, window.padding, window.mode, lanes)
    _, _, height, width = source.layout.shape
    top, bottom, left, right = window.padding
    rows = positions(height, top, bottom, window.mode)[::window.stride[0]][:layout.height]
    columns = positions(width, left, right, window.mode)[::window.stride[1]][:layout.width]
    return window_work(source.layout, layout, np.asarray(rows), np.asarray(columns), lanes)
