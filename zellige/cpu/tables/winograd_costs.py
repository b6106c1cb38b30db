"""What a Winograd layer costs, in cycles of one core as all cost models here: two vector FMAs a cycle.

The constants were fitted to 104 layers of 7² to 147² pixels and 32 to 512 channels, dense to 10 %, with warm
caches on a Zen 5 core; the median error is 4 %. Those of small tiles are as many times less as these took on a Zen 4 core beside
large ones, in maps of 6² to 14² pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.kernels.winograd_points import LARGE, SMALL, Transform

LIST_CYCLES = 19        # begin and end of one band at one point
COLUMN_CYCLES = 3.5     # the least of one column of a band at one point: the way of its weights
FAR_BYTES = 8 << 20     # a larger map does not wait in the cache for its reader
FAR_BYTES_PER_CYCLE = 8
EFFICIENCY = 0.97       # of the cycles that two FMAs a cycle would take, at the clock the constants were fitted to


@dataclass(frozen=True)
class TransformCycles:
    """What the transforms take: of one vector of windows and one channel; of one vector of tiles and one output channel; of one
    column of a band at the points of one x, from half transformed filters (0: they come whole)."""

    inputs: float
    outputs: float
    filters: float


CYCLES = {LARGE: TransformCycles(140, 140, 5.5), SMALL: TransformCycles(40, 36, 0)}


def product_cycles(transform: Transform, columns: np.ndarray, width: np.ndarray, share: np.ndarray, rows: int) -> np.ndarray:
    """The products of a band with so many columns and a strip of ``width`` vectors that take ``share`` rows at once: two FMAs a
    cycle, or two loads, but no faster than weights come."""
    parts = rows // share
    step = np.maximum(np.maximum(parts * width, parts + width + 1) / 2, COLUMN_CYCLES)
    return transform.points * (columns * step * EFFICIENCY + LIST_CYCLES)


def output_cycles(transform: Transform, width: np.ndarray, rows: int, lanes: int, target_bytes: int) -> np.ndarray:
    """The output transform of a band and a strip, and the way of its pixels to memory where the map is too large for caches."""
    far = transform.tile**2 * lanes * 4 / FAR_BYTES_PER_CYCLE if target_bytes > FAR_BYTES else 0
    return (CYCLES[transform].outputs + far) * rows * width


def input_cycles(transform: Transform, channels: int, vectors: np.ndarray) -> np.ndarray:
    """The input transform of so many vectors."""
    return np.asarray(CYCLES[transform].inputs * channels * vectors)


def filter_cycles(transform: Transform, columns: np.ndarray) -> np.ndarray:
    """The rest of the filter transform of a group with so many columns."""
    return CYCLES[transform].filters * transform.window * columns
