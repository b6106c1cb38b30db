"""Labels: of which unit each element of a value is, and at which place within the unit.

Labels are arrays of the value's rank that broadcast to its shape: channels of a feature map have labels of 1 × C × 1 × 1. What
labels don't vary along, an element's coordinate there completes its place. If one unit moves to where another stood, each of its
elements moves to where the element of the same place stood. Within labels, no two elements are of one unit and one place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Labels:
    """``unit`` and ``place``: int64 arrays of one shape, whose sizes are 1 or the value's."""

    unit: np.ndarray
    place: np.ndarray

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions along which labels vary."""
        return tuple(dim for dim, size in enumerate(self.unit.shape) if size > 1)

    def reshaped(self, shape: Sequence[int]) -> Labels:
        """The same labels in order; for shapes that differ in where sizes of 1 stand."""
        return Labels(self.unit.reshape(shape), self.place.reshape(shape))

    def transposed(self, order: Sequence[int]) -> Labels:
        return Labels(self.unit.transpose(order), self.place.transpose(order))

    def taken(self, indices: np.ndarray, dim: int) -> Labels:
        return Labels(self.unit.take(indices, dim), self.place.take(indices, dim))

    def coordinates(self, dims: Sequence[int]) -> np.ndarray:
        """Of every label, where it stands along these dimensions, as one number."""
        sizes = [self.unit.shape[dim] for dim in dims]
        grid = np.arange(math.prod(sizes)).reshape([size if dim in dims else 1 for dim, size in enumerate(self.unit.shape)])
        return np.broadcast_to(grid, self.unit.shape)


def along(dim: int, rank: int, unit: np.ndarray, place: np.ndarray | None = None) -> Labels:
    """Labels along one dimension of a value of that rank."""
    shape = [1] * rank
    shape[dim] = len(unit)
    return Labels(unit.reshape(shape), (np.zeros_like(unit) if place is None else place).reshape(shape))


def blocks_of(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """The smallest runs of dimensions that a reshape turns into one another; a dimension of 1 may make a run with none.

    >>> blocks_of((2, 64, 7, 7), (2, 3136))
    [(range(0, 1), range(0, 1)), (range(1, 4), range(1, 2))]
    """
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, second, start = i, j, True
        left = right = 1
        while start or left != right:
            start = False
            if j == len(new) or (i < len(old) and left <= right):
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        blocks.append((range(first, i), range(second, j)))
    return blocks


def through_reshape(labels: Labels, old: Sequence[int], new: Sequence[int]) -> Labels:
    """The labels of a reshaped value. Where dimensions are joined, coordinates become places; where they are parted again,
    labels stop varying along those that make no difference between units.
    """
    unit, place, shape = labels.unit, labels.place, []
    for before, after in blocks_of(old, new):
        touched = any(unit.shape[dim] > 1 for dim in before)
        shape += [new[dim] if touched else 1 for dim in after]
        for dim in before if touched else ():
            if unit.shape[dim] < old[dim]:
                steps = np.arange(old[dim]).reshape([-1 if at == dim else 1 for at in range(len(old))])
                unit, place = unit + 0 * steps, place * old[dim] + steps
    found = Labels(unit.reshape(shape), place.reshape(shape))
    for dim in found.dims:
        found = _without(found, dim)
    return found


def _without(labels: Labels, dim: int) -> Labels:
    """Labels that don't vary along a dimension, if it makes no difference: its coordinate then says what the place did."""
    first = labels.taken(np.array([0]), dim)
    if labels.dims == (dim,) or not (labels.unit == first.unit).all():
        return labels
    places = np.moveaxis(labels.place, dim, -1).reshape(-1, labels.place.shape[dim])
    _, example, same = np.unique(places[:, 0], return_index=True, return_inverse=True)
    return first if np.array_equal(places[example][same.ravel()], places) else labels
