"""Planes made for one convolution: padding written out, and the pixels of every stride together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.calls import Place, Stored
from zellige.cpu.kernels.copy import CopyKernel
from zellige.cpu.layout import Planes, planes
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.tables.windows import Stage, stage_work
from zellige.graph.ir import Node


@dataclass(frozen=True)
class Window:
    """How a convolution with this ``kernel`` and ``dilation`` looks at its source, through the planes of a stage."""

    kernel: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    mode: str
    stage: Stage


def staged_layout(channels: int, window: Window, target: Planes) -> Planes:
    """Planes whose rows are as long as the target's; its pixels' taps lie inside."""
    y, x = (np.arange(size) * step for size, step in zip(window.kernel, window.dilation, strict=True))
    _, down, _ = window.stage.place(y, np.zeros(1))
    _, _, right = window.stage.place(np.zeros(1), x)
    return planes(target.images, channels * window.stage.planes, target.height + int(down.max()), target.width + int(right.max()),
                  row=target.row)


def stage(lowering: Lowering, node: Node, name: str, window: Window, target: Planes, commit: bool) -> Stored:
    """Where the staged planes of a source lie; with ``commit``, also the call that fills them."""
    source = lowering.storage[name]
    buffer = f"{node.name} staged"
    layout = staged_layout(source.layout.shape[1], window, target)
    if not commit:
        return Stored(Place(buffer, layout.head), layout)
    stored = lowering.storage.reserve(buffer, layout)
    work = stage_work(source.layout, layout, window.stage, window.padding, window.mode, lowering.isa.lanes)
    lowering.call(node, CopyKernel(), {"source": source.place, "target": stored.place, **work.tables}, work.costs)
    return stored
