"""Units: what moves as one. Which channels of which tensors belong together, and which can't move, and why.

A unit starts as one output of one layer. Where two values meet element by element, their units become one (union-find); where a
unit's place matters to what comes next, it is frozen.
"""

from __future__ import annotations

import numpy as np


class Units:
    """Sets of units, for each of which its oldest stands. ``changed`` says whether any was united or frozen since it was reset."""

    def __init__(self) -> None:
        self.changed = False
        self._parents = np.zeros(0, dtype=np.int64)
        self._reasons: dict[int, str] = {}
        self._made: dict[str, np.ndarray] = {}

    def made_by(self, maker: str, count: int) -> np.ndarray:
        """The units of a maker: made when it is first asked for, the same ones each time."""
        if maker not in self._made:
            first = len(self._parents)
            self._made[maker] = np.arange(first, first + count)
            self._parents = np.concatenate([self._parents, self._made[maker]])
        return self._made[maker]

    def find(self, units: np.ndarray) -> np.ndarray:
        """Who stands for each of the units."""
        found = self._parents[units]
        while not np.array_equal(found, further := self._parents[found]):
            found = further
        return found

    def unite(self, left: np.ndarray, right: np.ndarray) -> None:
        """The units of two arrays of one shape, pair by pair, become one."""
        one, other = self.find(left).ravel(), self.find(right).ravel()
        for a, b in zip(*(side[one != other].tolist() for side in (one, other)), strict=True):
            self._join(a, b)

    def freeze(self, units: np.ndarray, reason: str) -> None:
        """None of these units can move; the first reason counts."""
        for unit in np.unique(self.find(units)).tolist():
            if unit not in self._reasons:
                self._reasons[unit] = reason
                self.changed = True

    def reason(self, unit: int) -> str | None:
        """Why a unit, which stands for its set, can't move; None if it is free to."""
        return self._reasons.get(unit)

    def _join(self, one: int, other: int) -> None:
        roots = [self._root(one), self._root(other)]
        oldest, youngest = min(roots), max(roots)
        if oldest == youngest:
            return
        self._parents[youngest] = oldest
        reason = self._reasons.pop(youngest, None)
        if reason is not None:
            self._reasons.setdefault(oldest, reason)
        self.changed = True

    def _root(self, unit: int) -> int:
        while (parent := int(self._parents[unit])) != unit:
            unit = parent
        return unit
