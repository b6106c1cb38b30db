"""How values lie in host memory: int8 of [rows][groups][width][8], where a group is eight channels.

Margins around a tensor hold what readers' windows see beyond its edges, so that no kernel knows of padding. Values may share a
tensor: the parts of a concatenation lie side by side, each from a group of its own on, and a slice is a part of what it was
cut from. Which *lane* (8 · group + place in the group) holds a channel is written down for every value; what lies in the other
lanes is read by nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from zellige.aie2.packet import GROUP
from zellige.errors import CompileError

Array = np.ndarray
Lanes = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A host buffer of [rows][groups][columns][8] with (top, bottom, left, right) ``margins`` of ``fill`` around ``height`` ×
    ``width``, and ``slack`` bytes behind, which tiles read and don't use."""

    name: str
    groups: int
    height: int
    width: int
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: int = 0
    slack: int = 0

    @property
    def rows(self) -> int:
        return self.margins[0] + self.height + self.margins[1]

    @property
    def columns(self) -> int:
        return self.margins[2] + self.width + self.margins[3]

    @property
    def line(self) -> int:
        """Bytes from a group to the next."""
        return GROUP * self.columns

    @property
    def row(self) -> int:
        """Bytes from a row to the next."""
        return self.groups * self.line

    @property
    def size(self) -> int:
        return self.rows * self.row + self.slack

    def offset(self, y: int, group: int, x: int) -> int:
        """Byte of a pixel; ``y`` and ``x`` may be in the margins."""
        return (self.margins[0] + y) * self.row + group * self.line + (self.margins[2] + x) * GROUP


@dataclass(frozen=True)
class Place:
    """Where a value of ``shape`` ([1, C, H, W] or [1, C]) lies in a tensor: its ``lanes``, and the pixel at which it begins.

    ``height`` and ``width`` are those of the map that a vector was flattened from, and 1 for other vectors.
    """

    tensor: str
    lanes: Lanes
    height: int
    width: int
    shape: tuple[int, ...]
    y: int = 0
    x: int = 0

    @property
    def group(self) -> int:
        """The first group that it needs."""
        return min(self.lanes) // GROUP

    @property
    def groups(self) -> int:
        """From the first group to the last, all."""
        return max(self.lanes) // GROUP + 1 - self.group

    def moved(self, tensor: str, group: int) -> Place:
        """The same lanes elsewhere: from ``group`` of a tensor on."""
        step = GROUP * (group - self.group)
        return replace(self, tensor=tensor, lanes=tuple(lane + step for lane in self.lanes), y=0, x=0)


@dataclass(frozen=True)
class HostValue:
    """A value in a host buffer, as a ``Program`` notes it: ``str`` and ``host_value`` are inverse.

    ``fold`` of its columns lie in one of the buffer's, each behind the other's lanes (``lowering/stems.py``).

    >>> noted = HostValue("x", 230, 1, 230, 3, 3, (0, 1, 2), 224, 224, (1, 3, 224, 224))
    >>> str(noted)
    'x[230][1][230][8] at 3,3 of 224x224 lanes 0-2 shape 1x3x224x224'
    >>> str(replace(noted, columns=115, x=2, fold=2))
    'x[230][1][115][8] at 3,2 of 224x224 lanes 0-2 shape 1x3x224x224 folded 2'
    >>> host_value(str(noted)) == noted
    True
    """

    buffer: str
    rows: int
    groups: int
    columns: int
    y: int
    x: int
    lanes: Lanes
    height: int
    width: int
    shape: tuple[int, ...]
    fold: int = 1

    def __str__(self) -> str:
        runs = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in _runs(self.lanes))
        tensor = f"{self.buffer}[{self.rows}][{self.groups}][{self.columns}][{GROUP}]"
        return (f"{tensor} at {self.y},{self.x} of {self.height}x{self.width} lanes {runs} "
                f"shape {'x'.join(map(str, self.shape))}" + (f" folded {self.fold}" if self.fold > 1 else ""))

    def write(self, buffer: Array, value: Array) -> None:
        """Put an int8 array into the bytes of the host buffer. Raises ``CompileError`` for another shape or element type."""
        if tuple(value.shape) != self.shape or value.dtype != np.int8:
            raise CompileError(f"{self.buffer}: expected int8 of {list(self.shape)}, got {value.dtype} of {list(value.shape)}")
        whole, values = self._within(buffer), value.reshape(len(self.lanes), self.height, self.width)
        for place in range(self.fold):
            columns = values[:, :, place :: self.fold]
            group, lane = self._lanes(place)
            whole[:, group, : columns.shape[2], lane] = columns

    def read(self, buffer: Array) -> Array:
        """The int8 array that the bytes of the host buffer hold."""
        whole, values = self._within(buffer), np.zeros((len(self.lanes), self.height, self.width), np.int8)
        for place in range(self.fold):
            columns = values[:, :, place :: self.fold]
            group, lane = self._lanes(place)
            columns[...] = whole[:, group, : columns.shape[2], lane]
        return values.reshape(self.shape)

    def _lanes(self, place: int) -> tuple[Array, Array]:
        """Groups and lanes of the columns that come at that place of a fold."""
        return np.divmod(np.array(self.lanes) + place * len(self.lanes), GROUP)

    def _within(self, buffer: Array) -> Array:
        """The pixels of the value: [height, groups, width / fold, 8]."""
        shape = (self.rows, self.groups, self.columns, GROUP)
        if buffer.nbytes < prod(shape):
            raise CompileError(f"{self.buffer}: expected at least {prod(shape)} bytes, got {buffer.nbytes}")
        whole = buffer.reshape(-1).view(np.int8)[: prod(shape)].reshape(shape)
        return whole[self.y : self.y + self.height, :, self.x : self.x - (-self.width // self.fold)]


def noted(place: Place, tensor: Tensor) -> HostValue:
    """A place, with all that is needed to find it in the bytes of its tensor."""
    y, x = tensor.margins[0] + place.y, tensor.margins[2] + place.x
    return HostValue(tensor.name, tensor.rows, tensor.groups, tensor.columns, y, x, place.lanes, place.height, place.width,
                     place.shape)


FORM = re.compile(r"(.+)\[(\d+)\]\[(\d+)\]\[(\d+)\]\[8\] at (\d+),(\d+) of (\d+)x(\d+) lanes ([\d,-]+) shape ([\dx]+)"
                  r"(?: folded (\d+))?")


def host_value(text: str) -> HostValue:
    """What ``str`` of a ``HostValue`` says. Raises ``CompileError`` if it can't be one."""
    if (found := FORM.fullmatch(text)) is None:
        raise CompileError(f"expected a value in a host buffer ({FORM.pattern}), got {text!r}")
    buffer, *numbers, runs, shape, fold = found.groups()
    rows, groups, columns, y, x, height, width = map(int, numbers)
    ends = [[int(end) for end in run.split("-")] for run in runs.split(",")]
    lanes = tuple(lane for run in ends for lane in range(run[0], run[-1] + 1))
    return HostValue(buffer, rows, groups, columns, y, x, lanes, height, width, tuple(map(int, shape.split("x"))), int(fold or 1))


def _runs(lanes: Lanes) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for lane in lanes:
        if runs and runs[-1][1] == lane - 1:
            runs[-1] = (runs[-1][0], lane)
        else:
            runs.append((lane, lane))
    return runs
