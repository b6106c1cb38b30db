"""Where the elements of a value lie, relative to the value's buffer.

Feature maps lie in planes, one per channel, all images of a batch in one plane, with margins of zeros so that a tap of a
convolution is one offset for all pixels. A row is longer than the map is wide by the margin: its zeros pad the right of
one row and the left of the next. Everything else is dense: row-major and contiguous. Unit: f32 elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LINE = 16  # elements of a cache line


@dataclass(frozen=True)
class Margins:
    """Rows and columns of zeros that readers need around an image."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def union(self, other: Margins) -> Margins:
        return Margins(max(self.top, other.top), max(self.bottom, other.bottom),
                       max(self.left, other.left), max(self.right, other.right))

    @property
    def any(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)


@dataclass(frozen=True)
class Planes:
    """Pixel (y, x) of image n in channel c is element ``head + c·plane + n·image + y·row + x`` of the buffer.

    >>> map = planes(images=1, channels=64, height=56, width=56, margins=Margins(1, 1, 1, 1))
    >>> map.row, map.head, map.plane % 32
    (57, 64, 16)
    """

    images: int
    channels: int
    height: int
    width: int
    row: int
    image: int
    plane: int
    head: int
    margins: Margins = Margins()

    @property
    def pixels(self) -> int:
        """Pixels of a plane that hold data."""
        return self.images * self.height * self.width

    @property
    def span(self) -> int:
        """Elements from one image's first pixel to the end of its last row."""
        return self.height * self.row

    @property
    def elements(self) -> int:
        """Elements of the whole buffer."""
        return self.channels * self.plane

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.images, self.channels, self.height, self.width)

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next, for N, C, H, W."""
        return (self.image, self.plane, self.row, 1)

    def margin_runs(self) -> np.ndarray:
        """The (begin, length) runs of one plane, relative to its pixel (0, 0), that lie outside of the rows of all images."""
        body = (self.images - 1) * self.image + self.span
        runs = [(-self.head, self.head), (body, self.plane - self.head - body)]
        runs += [(n * self.image + self.span, self.image - self.span) for n in range(self.images - 1)]
        return np.array([run for run in runs if run[1] > 0], np.int64).reshape(-1, 2)


def planes(images: int, channels: int, height: int, width: int, margins: Margins = Margins(), row: int = 0, gap: int = 0) -> Planes:
    """The planes of a map; ``row`` asks for a longer row, ``gap`` for more rows between images than the margins need.

    The count of cache lines in a plane is odd, so that neighbouring planes don't fall into the same cache sets.
    """
    row = max(row, width + max(margins.left, margins.right))
    image = (height + (max(margins.top, margins.bottom, gap) if images > 1 else 0)) * row
    head = round_up(margins.top * row + margins.left, LINE)
    body = (images - 1) * image + height * row
    lines = -(-(head + body + margins.bottom * row + margins.right) // LINE) | 1
    return Planes(images, channels, height, width, row, image, lines * LINE, head, margins)


@dataclass(frozen=True)
class Dense:
    """A value in row-major order without gaps."""

    shape: tuple[int, ...]
    head: int = 0

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def strides(self) -> tuple[int, ...]:
        strides, step = [], 1
        for size in reversed(self.shape):
            strides.append(step)
            step *= size
        return tuple(reversed(strides))


Layout = Planes | Dense


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
