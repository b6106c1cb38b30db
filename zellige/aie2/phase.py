"""Phases: what the overlay does with one node of the quantised graph, as data, whatever the overlay.

All of them are windows over a map: every group of eight result channels sums *taps*, each eight channels of one pixel, through a
block of weights or as they are; then come the rescaling, the residual and the clamp that a packet (``packet.py``) has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Region:
    """Groups of a tensor, from a pixel on (which may be in its margins)."""

    tensor: str
    group: int
    groups: int
    y: int = 0
    x: int = 0


@dataclass(frozen=True, eq=False)
class Taps:
    """What is summed. Those of result group ``g`` are ``ends[g]`` to ``ends[g + 1]``, sorted by input group, row and column:
    a pixel of the window (``rows``, ``columns``), a group of the source (``groups``), and ``blocks`` ([taps, inputs, outputs]; of
    products only)."""

    ends: Array
    rows: Array
    columns: Array
    groups: Array
    blocks: Array


@dataclass(frozen=True, eq=False)
class Phase:
    """One operation on regions of host tensors.

    Result pixel (y, x) of ``height`` × ``width`` reads the ``window`` (rows, columns) that begins at (y, x) · ``stride`` of the
    ``source``, and the same pixel of the ``residual``. ``own``: a result group reads only the source group of its number.
    ``bias``, ``multiplier``, ``second`` (the residual's multiplier) and ``shift`` are int32 of [groups, 8]; ``table`` int8 of 256,
    or none. ``fill`` is what margins under its windows must hold; ``None`` if either will do.
    """

    name: str
    node: str
    operation: int
    source: Region
    target: Region
    height: int
    width: int
    taps: Taps
    multiplier: Array
    shift: Array
    bias: Array
    second: Array
    stride: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (1, 1)
    residual: Region | None = None
    table: Array | None = None
    low: int = -128
    high: int = 127
    own: bool = True
    fill: int | None = 0

    @property
    def groups(self) -> int:
        return self.target.groups

    def reads(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of the source under so many rows and columns of the result."""
        return tuple((size - 1) * step + reach for size, step, reach in  # type: ignore[return-value]
                     zip((rows, columns), self.stride, self.window, strict=True))
