"""Memories as arrays of words, and the words of a memory that a descriptor visits, in its order.

Whole descriptors are moved by numpy: as a slice where their words lie side by side, as a strided view where they are visited from
the first to the last in one go, and by their indices otherwise. Never word by word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np

from zellige.aie2.device import WORD
from zellige.aie2.packet import aligned_bytes
from zellige.aie2.program import Buffer

Dimensions = tuple[tuple[int, int], ...]
"""Sizes and strides, in words, outermost first."""


class Memory:
    """The memory of a tile, or a buffer of the host's, as little-endian words. ``buffers`` are the names of places in it."""

    def __init__(self, name: str, size: int, buffers: tuple[Buffer, ...] = ()) -> None:
        self.name = name
        self.bytes = aligned_bytes(-(-size // WORD) * WORD)
        self.words = self.bytes.view("<u4")
        self.filled: dict[str, str] = {}
        """By buffers: the task that went through them last."""
        self._buffers = buffers

    def place(self, word: int) -> str:
        """What lies there, for messages."""
        for one in self._buffers:
            if one.address <= word * WORD < one.address + one.size:
                return f"byte {word * WORD - one.address} of {one.name}"
        return f"byte {word * WORD} of {self.name}"


@cache
def merged(dimensions: Dimensions) -> Dimensions:
    """The same words in the same order, in as few dimensions as there can be.

    >>> merged(((2, 12), (3, 4), (4, 1))), merged(((2, 16), (1, 5), (4, 1)))
    (((24, 1),), ((2, 16), (4, 1)))
    """
    found: list[tuple[int, int]] = []
    for size, stride in reversed(dimensions):
        if size == 1:
            continue
        if found and stride == found[-1][0] * found[-1][1]:
            found[-1] = (size * found[-1][0], found[-1][1])
        else:
            found.append((size, stride))
    return tuple(reversed(found)) or ((1, 1),)


def indices(dimensions: Dimensions, first: int, last: int) -> np.ndarray:
    """Where the words number ``first`` … ``last`` − 1 of a pattern lie, counted from its start.

    >>> indices(((2, 16), (4, 1)), 2, 6).tolist()
    [2, 3, 16, 17]
    """
    at, found = np.arange(first, last), np.zeros(last - first, np.int64)
    for size, stride in reversed(dimensions):
        at, inside = np.divmod(at, size)
        found += inside * stride
    return found


@dataclass(frozen=True)
class Words:
    """Words number ``first`` … ``last`` − 1 of those that a pattern visits from the word ``start`` on."""

    start: int
    dimensions: Dimensions
    first: int
    last: int

    def take(self, array: np.ndarray) -> np.ndarray:
        """Those elements of an array with one element a word, in one dimension; a view, where they lie side by side."""
        selected = self._view(array)
        return array[self._indices()] if selected is None else selected.reshape(-1)

    def put(self, array: np.ndarray, values: np.ndarray | int) -> None:
        """Overwrite them, with as many values or one for all."""
        selected = self._view(array)
        if selected is None:
            array[self._indices()] = values
        else:
            selected[...] = values.reshape(selected.shape) if isinstance(values, np.ndarray) else values

    def at(self, number: int) -> int:
        """Where one of them lies: counted from the first of them."""
        return self.start + int(indices(self.dimensions, self.first + number, self.first + number + 1)[0])

    def _indices(self) -> np.ndarray:
        return self.start + indices(self.dimensions, self.first, self.last)

    def _view(self, array: np.ndarray) -> np.ndarray | None:
        if len(self.dimensions) == 1 and self.dimensions[0][1] == 1:
            return array[self.start + self.first : self.start + self.last]
        if self.first or self.last != prod(size for size, _ in self.dimensions) or any(step < 0 for _, step in self.dimensions):
            return None
        step = array.itemsize
        return np.ndarray([size for size, _ in self.dimensions], array.dtype, array, self.start * step,
                          [stride * step for _, stride in self.dimensions])  # fmt: skip
