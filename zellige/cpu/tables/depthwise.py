"""Tables of the depthwise kernel: vectors of output pixels, and runs of them for every channel."""

from __future__ import annotations

import numpy as np

from zellige.cpu.layout import Planes
from zellige.cpu.tables.vectors import SOURCE, flat_vectors, row_vectors
from zellige.cpu.tables.work import Work, table

ITEM_VECTORS = 128              # an item has no more than these
ITEM_CYCLES = 20                # of an item without its filter
VECTOR_CYCLES = 7               # of a vector without its taps
TAP_CYCLES = {1: 0.75, 2: 1.5}  # by stride: one load, or two and a shuffle


def depthwise_work(weight: np.ndarray, bias: np.ndarray, source: Planes, target: Planes, stride: tuple[int, int],
                   origin: tuple[int, int], dilation: int, lanes: int) -> Work:
    """The work of a filter for every output channel, ``weight`` (outputs × height × width).

    Outputs that share an input channel stand side by side. ``origin`` is how far above and left of an output pixel's own
    place its first tap lies; ``dilation`` how many rows lie between rows of taps.
    """
    vectors = row_vectors(source, target, lanes, stride)
    if stride == (1, 1) and source.row == target.row and source.image == target.image:
        flat = flat_vectors(source, target, lanes)
        vectors = flat if len(flat) <= len(vectors) else vectors
    vectors[:, SOURCE] -= origin[0] * source.row + origin[1]
    begin = np.arange(0, len(vectors), ITEM_VECTORS)
    outputs = np.arange(len(weight))[:, None]
    items = table(begin, np.minimum(begin + ITEM_VECTORS, len(vectors)), outputs, outputs // (len(weight) // source.channels))
    taps = weight[0].size
    costs = ITEM_CYCLES + taps + (items[:, 1] - items[:, 0]) * (VECTOR_CYCLES + taps * TAP_CYCLES[stride[1]])
    return Work({
        "vectors": vectors, "items": items, "weights": np.ascontiguousarray(weight.reshape(len(weight), taps)), "bias": bias,
        "row_step": dilation * source.row, "source_plane": source.plane, "target_plane": target.plane}, costs)
