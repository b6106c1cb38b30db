"""Tables of the depthwise kernel: tiles of output pixels, and runs of them for every channel."""

from __future__ import annotations

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.layout import Planes
from zellige.cpu.tables.vectors import SOURCE, TARGET, flat_vectors, row_vectors
from zellige.cpu.tables.work import Work, table

ITEM_VECTORS = 128      # an item has about as many
ITEM_CYCLES = 20        # of an item without its filter
TILE_CYCLES = 4         # of a tile without its vectors
VECTOR_CYCLES = 2       # of a vector without its taps
CURVE_CYCLES = 8        # of a vector that goes through an exponential besides
MOST, MOST_WITHOUT_MASKS = 7, 4     # vectors of a tile; masks that are vectors take registers of their own


def depthwise_work(weight: np.ndarray, bias: np.ndarray, source: Planes, target: Planes, stride: tuple[int, int],
                   origin: tuple[int, int], dilation: tuple[int, int], isa: Isa,
                   curved: bool = False) -> tuple[tuple[int, ...], Work]:
    """The vectors of the tiles, which choose the kernel's variant, and the work of a filter for every output channel.

    ``weight`` is outputs × height × width; outputs that share an input channel stand side by side. ``origin`` is how far above
    and left of an output pixel's own place its first tap lies; ``curved``: an exponential follows.
    """
    size = weight.shape[1:]
    of_vector = VECTOR_CYCLES + CURVE_CYCLES * curved
    tiles = row_tiles(source, target, stride, isa.lanes, MOST if isa.masks else MOST_WITHOUT_MASKS)
    cycles = tile_cycles(tiles[:, -1], size, stride, dilation) + of_vector * tiles[:, -1]
    if stride == (1, 1) and source.row == target.row and source.image == target.image:
        flat = table(*flat_vectors(source, target, isa.lanes).T, np.int64(1))
        flat_cycles = tile_cycles(flat[:, -1], size, stride, dilation) + of_vector
        if flat_cycles.sum() < cycles.sum():
            tiles, cycles = flat, flat_cycles
    tiles[:, SOURCE] -= origin[0] * source.row + origin[1]
    begin = np.flatnonzero(np.diff(tiles[:, -1].cumsum() // ITEM_VECTORS, prepend=-1))
    end = np.append(begin[1:], len(tiles))
    outputs = np.arange(len(weight))[:, None]
    items = table(begin, end, outputs, outputs // (len(weight) // source.channels))
    taps = weight[0].size
    total = np.concatenate([[0], cycles.cumsum()])
    return tuple(sorted(set(tiles[:, -1].tolist()), reverse=True)), Work({
        "tiles": tiles, "items": items, "weights": np.ascontiguousarray(weight.reshape(len(weight), taps)), "bias": bias,
        "source_row": source.row, "target_row": target.row, "source_plane": source.plane, "target_plane": target.plane,
    }, ITEM_CYCLES + taps + total[items[:, 1]] - total[items[:, 0]])


def row_tiles(source: Planes, target: Planes, stride: tuple[int, int], lanes: int, most: int) -> np.ndarray:
    """The rows of every image, shared out evenly over tiles of at most so many: the first row's vectors, and the count of rows."""
    vectors = row_vectors(source, target, lanes, stride).reshape(target.images, target.height, -1, TARGET + 3)
    starts = np.linspace(0, target.height, -(-target.height // most) + 1).astype(int)
    first = vectors[:, starts[:-1]]
    counts = np.broadcast_to(np.diff(starts)[:, None], first.shape[:3])
    return table(*first.reshape(-1, first.shape[-1]).T, counts.ravel())


def tile_cycles(vectors: np.ndarray, size: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]) -> np.ndarray:
    """Of the taps of tiles with so many vectors: a cycle for each load, which crosses a cache line, or half for each product."""
    height, width = size
    of_row = width if stride[1] == 1 else 2 * width if dilation[1] > 1 else width + width % 2
    rows = np.array([len({vector * stride[0] + y * dilation[0] for vector in range(count) for y in range(height)})
                     for count in range(MOST + 1)])
    return TILE_CYCLES + np.maximum(of_row * rows[vectors], height * width * vectors / 2)
