"""Values for kernel tests: arrays laid out in buffers as the compiler lays them out, and read back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from zellige.cpu.layout import Dense, Layout, Margins, Planes, planes


@dataclass
class Value:
    """A buffer with a layout; its margins begin as zeros in a value that is read, as 7.0 in one that is written."""

    layout: Layout
    buffer: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def of(cls, layout: Layout, array: np.ndarray) -> Value:
        value = cls(layout, np.zeros(layout.elements, np.float32))
        value.view()[...] = array
        return value

    @classmethod
    def blank(cls, layout: Layout) -> Value:
        return cls(layout, np.full(layout.elements, 7.0, np.float32))

    @property
    def slot(self) -> tuple[np.ndarray, int]:
        """What the harness takes for a slot: the buffer, and where its first pixel lies."""
        return self.buffer, self.layout.head

    def view(self) -> np.ndarray:
        """The elements of the value, as its shape has them."""
        return _strided(self.buffer[self.layout.head:], self.layout.shape, self.layout.strides)

    def check_row_margins(self) -> None:
        """The margin right of every row is zero, everything else outside of the pixels is as it was."""
        if not isinstance(self.layout, Planes):
            return
        rest = self.buffer.copy()
        layout = self.layout
        rows = _strided(rest[layout.head:], (*layout.shape[:3], layout.row), layout.strides)
        assert not rows[..., layout.width:].any(), "a row's margin is not zero"
        rows[...] = 7.0
        assert (rest == 7.0).all(), "wrote outside of the rows"


def _strided(array: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(array, shape, [4 * step for step in strides], writeable=True)


@st.composite
def margins(draw: st.DrawFn, most: int = 3) -> Margins:
    return Margins(*(draw(st.integers(0, most)) for _ in range(4)))


@st.composite
def plane_layouts(draw: st.DrawFn, shape: tuple[int, int, int, int] | None = None) -> Planes:
    """Planes of any margins and pitch, of a given N × C × H × W or a small one."""
    if shape is None:
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(st.integers(1, 37)))
    images, channels, height, width = shape
    extra = draw(st.integers(0, 20))
    return planes(images, channels, height, width, draw(margins()), row=width + extra if draw(st.booleans()) else 0)


def layout_of(draw: st.DrawFn, shape: tuple[int, ...]) -> Layout:
    """The layout that the compiler would give: planes for maps of more than one pixel."""
    if len(shape) == 4 and shape[2] * shape[3] > 1:
        return draw(plane_layouts(shape))
    return Dense(shape)


def numbers(seed: int, shape: tuple[int, ...], special: bool = False) -> np.ndarray:
    """Normal numbers; ``special`` ones have some NaN, infinities and zeros of both signs among them."""
    random = np.random.default_rng(seed)
    array = random.standard_normal(shape).astype(np.float32)
    if special and array.size:
        places = random.random(shape) < 0.2
        array[places] = random.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32), places.sum())
    return array
