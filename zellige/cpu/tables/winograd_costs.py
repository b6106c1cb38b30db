"""What a Winograd layer costs, in cycles of one core as all cost models here: two vector FMAs a cycle.

The constants were fitted to 104 layers of 7² to 147² pixels and 32 to 512 channels, dense to 10 %, with warm
caches on a Zen 5 core; the median error is 4 %.
"""

from __future__ import annotations

import numpy as np

from zellige.cpu.kernels.winograd_runs import TILE
from zellige.cpu.kernels.winograd_transforms import POINTS, WINDOW

INPUT_CYCLES = 140      # one vector of windows, one channel
OUTPUT_CYCLES = 140     # one vector of tiles, one output channel
SHARED_CYCLES = 90      # of one vector and channel, once more where tiles go through a buffer that threads share
LIST_CYCLES = 19        # begin and end of one band at one point
COLUMN_CYCLES = 3.5     # the least of one column of a band at one point: the way of its weights
FILTER_CYCLES = 5.5     # one column of a band at six points along x and y, from half transformed filters
FAR_BYTES = 8 << 20     # a larger map does not wait in the cache for its reader
FAR_BYTES_PER_CYCLE = 8
EFFICIENCY = 0.97       # of the cycles that two FMAs a cycle would take, at the clock the constants were fitted to


def product_cycles(columns: np.ndarray, width: np.ndarray, share: np.ndarray, rows: int) -> np.ndarray:
    """The products of a band with so many columns and a strip of ``width`` vectors that take ``share`` rows at once: two FMAs a
    cycle, or two loads, but no faster than weights come."""
    parts = rows // share
    step = np.maximum(np.maximum(parts * width, parts + width + 1) / 2, COLUMN_CYCLES)
    return POINTS * (columns * step * EFFICIENCY + LIST_CYCLES)


def output_cycles(width: np.ndarray, rows: int, lanes: int, target_bytes: int) -> np.ndarray:
    """The output transform of a band and a strip, and the way of its pixels to memory where the map is too large for caches."""
    far = TILE * TILE * lanes * 4 / FAR_BYTES_PER_CYCLE if target_bytes > FAR_BYTES else 0
    return (OUTPUT_CYCLES + far) * rows * width


def input_cycles(channels: np.ndarray | int, shared: bool) -> np.ndarray:
    """The input transform of a vector."""
    return np.asarray((INPUT_CYCLES + SHARED_CYCLES * shared) * channels)


def filter_cycles(columns: np.ndarray) -> np.ndarray:
    """The rest of the filter transform of a group with so many columns."""
    return FILTER_CYCLES * WINDOW * columns
