"""Winograd's F(4×4, 3×3) and F(2×2, 3×3): what they do along one side, as matrices and as code on vectors of tiles.

The output map is cut into *tiles* of m × m pixels; a tile depends on a *window* of (m + 2) × (m + 2) input pixels. One linear
transform turns a window into values at (m + 2)² *points*, another turns each 3 × 3 filter into as many weights; sums of their
products go back to m × m pixels through a third (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). Two
dimensions apply the matrices of one from both sides. Point (x, y) has number (m + 2) · x + y.

Tiles of 4 × 4 pixels take a quarter of the multiplications, tiles of 2 × 2 four ninths: those are for maps that have too few
large tiles to fill a vector. A map of 14 × 14 is 16 tiles of 4 × 4, a map of 7 × 7 or 8 × 8 is 16 tiles of 2 × 2.

Points decide how exact the sums are. Along one side, large tiles have 0, ±√½, ±√2 and infinity, which lose half as much as the
usual 0, ±1, ±2 and infinity, for the same work. Powers of points are what amplifies rounding, and none of these is larger than 2√2,
or smaller than its inverse (Barabasz and others, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks", 2020). The values at ±√2 are halved, which is exact and makes the matrices mirror images of themselves. Small tiles have
0, ±1 and infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.ir as ir
import numpy as np

from zellige.cpu.emitter import Emitter

TAPS = 3
NEAR, FAR = 0.5**0.5, 2.0**0.5  # points of large tiles; each is the other's inverse

Side = Callable[[Emitter, list[ir.Value]], list[ir.Value]]
"""Code for one side: some values → others."""


@dataclass(frozen=True, eq=False)
class Transform:
    """F(tile × tile, 3 × 3), along one side: ``to_points`` takes the pixels of a window, ``from_points`` makes those of a tile, the
    matrix ``filters`` takes three taps to points.

    ``filter_to_points`` does the same where tiles are few, for filters that would grow to several times their bytes: they come
    transformed by half. Those of small tiles grow to 16/9 of them, and come whole.
    """

    tile: int
    filters: np.ndarray
    to_points: Side
    from_points: Side
    filter_to_points: Side | None = None

    @property
    def window(self) -> int:
        """Pixels along the side of a window, and as many points."""
        return self.tile + TAPS - 1

    @property
    def points(self) -> int:
        """Points of both sides."""
        return self.window**2

    @property
    def saved(self) -> float:
        """The direct convolution's multiplications, in those at the points."""
        return (self.tile * TAPS) ** 2 / self.points

    def __str__(self) -> str:
        return f"F({self.tile}×{self.tile}, {TAPS}×{TAPS})"


def to_large_points(b: Emitter, d: list[ir.Value]) -> list[ir.Value]:
    near_even, near_odd = b.multiply_add(2.0, d[2], b.fneg(d[4])), b.multiply_add(2.0, d[1], b.fneg(d[3]))
    far_even, far_odd = b.multiply_add(-0.5, d[2], d[4]), b.multiply_add(-0.5, d[1], d[3])
    return [b.multiply_add(-2.5, d[2], b.fadd(d[0], d[4])),
            b.multiply_add(NEAR, near_odd, near_even), b.multiply_add(-NEAR, near_odd, near_even),
            b.multiply_add(FAR, far_odd, far_even), b.multiply_add(-FAR, far_odd, far_even),
            b.multiply_add(-2.5, d[3], b.fadd(d[1], d[5]))]


def from_large_points(b: Emitter, m: list[ir.Value]) -> list[ir.Value]:
    near, near_step = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    far, far_step = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [b.multiply_add(0.5, far, b.fadd(near, m[0])), b.fmul(b.splat(NEAR), b.fadd(near_step, far_step)),
            b.multiply_add(0.5, near, far), b.multiply_add(FAR, far_step, b.multiply_add(NEAR / 2, near_step, m[5]))]


def filter_to_large_points(b: Emitter, g: list[ir.Value]) -> list[ir.Value]:
    near = b.multiply_add(2 / 3, g[0], b.fmul(b.splat(1 / 3), g[2]))
    far = b.multiply_add(2 / 3, g[2], b.fmul(b.splat(1 / 3), g[0]))
    return [g[0], b.multiply_add(FAR / 3, g[1], near), b.multiply_add(-FAR / 3, g[1], near),
            b.multiply_add(FAR / 3, g[1], far), b.multiply_add(-FAR / 3, g[1], far), g[2]]


def to_small_points(b: Emitter, d: list[ir.Value]) -> list[ir.Value]:
    return [b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[3], d[1])]


def from_small_points(b: Emitter, m: list[ir.Value]) -> list[ir.Value]:
    return [b.fadd(b.fadd(m[1], m[2]), m[0]), b.fadd(b.fsub(m[1], m[2]), m[3])]


LARGE = Transform(4, np.array([[1, 0, 0], [2 / 3, FAR / 3, 1 / 3], [2 / 3, -FAR / 3, 1 / 3],
                               [1 / 3, FAR / 3, 2 / 3], [1 / 3, -FAR / 3, 2 / 3], [0, 0, 1]]),
                  to_large_points, from_large_points, filter_to_large_points)
SMALL = Transform(2, np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
                  to_small_points, from_small_points)

TRANSFORMS = {transform.tile: transform for transform in (LARGE, SMALL)}
