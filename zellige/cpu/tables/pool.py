"""Tables of the pooling kernel: the windows of every output pixel as lists of taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zellige.cpu.kernels.pool import LISTED, Windows
from zellige.cpu.layout import Layout, Planes
from zellige.cpu.tables.parts import cut_parts, part_items
from zellige.cpu.tables.work import Work, lane_bits, table

ITEM_VECTORS = 64   # an item has no more than these
FEWEST_VECTORS = 48  # of a half of a plane: shorter pieces of planes take longer to come than to cross
UNROLLED_SIDE = 5   # windows of more rows or columns are lists
VECTOR_CYCLES = 6   # of a vector without its taps
LANE_CYCLES = 3     # of a lane that is read by itself
UNROLLED_CYCLES = {1: 0.7, 2: 1.0}  # of a tap in the code, for each step


@dataclass(frozen=True, eq=False)
class Axis:
    """The windows along height or width: where each begins, how far apart its taps lie, which of them count.

    ``step`` is the distance from window to window, or ``LISTED`` if it varies; ``counts`` what a window contributes to the
    divisor of an average. ``taps`` is outputs × taps. All windows have the same ``size``, if there is one.
    """

    begin: np.ndarray
    dilation: int
    taps: np.ndarray
    counts: np.ndarray
    step: int
    size: int | None = None


def window_axis(size: int, outputs: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int],
                counted: tuple[int, int]) -> Axis:
    """Windows at equal distances; of the ``padding`` before and after, ``counted`` positions count in a divisor."""
    begin = np.arange(outputs) * stride - padding[0]
    place = begin[:, None] + np.arange(kernel) * dilation
    counts = ((place >= -counted[0]) & (place < size + counted[1])).sum(1)
    return Axis(begin, dilation, (place >= 0) & (place < size), counts, stride if stride < 3 else LISTED, kernel)


def adaptive_axis(size: int, outputs: int) -> Axis:
    """Window i of n runs from ⌊i · size / n⌋ to ⌈(i + 1) · size / n⌉."""
    index = np.arange(outputs)
    begin, end = index * size // outputs, -(-(index + 1) * size // outputs)
    widest = int((end - begin).max())
    return Axis(begin, 1, np.arange(widest) < (end - begin)[:, None], end - begin, LISTED)


def pool_work(source: Layout, target: Layout, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
              dilation: Sequence[int] = (1, 1), count_padding: Sequence[int] = (0, 0, 0, 0), divisor: int = 0,
              additions: Sequence[Layout] = (), lanes: int = 16) -> tuple[Windows, Work]:
    """How the windows lie, which chooses the kernel's variant, and its tables.

    Paddings are (top, bottom, left, right). A ``divisor`` of 0 counts the positions of each window, ``count_padding`` included.
    """
    axes = [window_axis(source.shape[2 + axis], target.shape[2 + axis], kernel[axis], stride[axis], dilation[axis],
                        (padding[2 * axis], padding[2 * axis + 1]), (count_padding[2 * axis], count_padding[2 * axis + 1]))
            for axis in range(2)]
    return _work(source, target, axes[0], axes[1], divisor, additions, lanes)


def adaptive_work(source: Layout, target: Layout, additions: Sequence[Layout] = (), lanes: int = 16) -> tuple[Windows, Work]:
    """The same for windows that share the source out evenly."""
    axes = [adaptive_axis(source.shape[2 + axis], target.shape[2 + axis]) for axis in range(2)]
    return _work(source, target, axes[0], axes[1], 0, additions, lanes)


def _work(source: Layout, target: Layout, vertical: Axis, horizontal: Axis, divisor: int, additions: Sequence[Layout],
          lanes: int) -> tuple[Windows, Work]:
    _, _, height, width = target.shape
    row = target.row if isinstance(target, Planes) else width
    flat = isinstance(target, Planes) and isinstance(source, Planes) and source.row == row and vertical.step == horizontal.step == 1
    if any(layout.strides[2] != target.strides[2] or layout.strides[0] != target.strides[0] for layout in additions):
        raise ValueError("operands of a pool's epilogue must have rows and images as the target has them")
    lane = np.arange(lanes)
    if flat:
        place = np.arange(0, height * row, lanes)
        y, x = np.divmod(place[:, None] + lane, row)
        store = y < height
        offsets = vertical.begin[0] * row + horizontal.begin[0] + place[:, None] + lane
    else:
        first_y, first_x = (index.ravel() for index in np.meshgrid(np.arange(height), np.arange(0, row, lanes), indexing="ij"))
        place = first_y * target.strides[2] + first_x
        y, x = np.broadcast_to(first_y[:, None], (len(place), lanes)), first_x[:, None] + lane
        store = x < row
        offsets = vertical.begin[y] * source.strides[2] + horizontal.begin[np.minimum(x, width - 1)]
    inside = store & (x < width)
    y, x, begin = np.minimum(y, height - 1), np.minimum(x, width - 1), offsets[:, 0]
    counts = np.where(inside, divisor or vertical.counts[y] * horizontal.counts[x], 1).astype(np.float32)
    divisors, divisor_row = np.unique(counts, axis=0, return_inverse=True)
    tables: dict[str, np.ndarray | int] = {"divisors": divisors}
    windows = _windows(vertical, horizontal)
    if windows.size:
        edge, fields = _unrolled_windows(vertical, horizontal, y, x, inside, begin, source.shape[2], source.strides[2])
        cycles = np.full(len(begin), VECTOR_CYCLES + UNROLLED_CYCLES[windows.step] * np.prod(windows.size))
    else:
        tables["taps"], first, last, edge = _tap_lists(vertical, horizontal, y, x, inside, source.strides[2])
        listed = offsets - begin[:, None] if windows.step == LISTED else np.zeros((1, lanes))
        tables["indices"] = listed.astype(np.int32)
        fields = [begin, first, last]
        cycles = VECTOR_CYCLES + (last - first) * {1: 2.0, 2: 3.0, LISTED: LANE_CYCLES * lanes}[windows.step]
    tables["vectors"] = table(place, lane_bits(inside), lane_bits(store), edge, divisor_row.ravel(), *fields)
    items = tables["items"] = _items(source, target, additions, len(place))
    total = np.concatenate([[0], np.cumsum(cycles)])
    return windows, Work(tables, total[items[:, 1]] - total[items[:, 0]])


def _windows(vertical: Axis, horizontal: Axis) -> Windows:
    """Taps are part of the code where windows are small, of one size, their columns next to one another."""
    height, width = vertical.size, horizontal.size
    if not height or not width or max(height, width) > UNROLLED_SIDE or horizontal.step == LISTED or horizontal.dilation != 1:
        return Windows(horizontal.step)
    return Windows(horizontal.step, (height, width))


def _unrolled_windows(vertical: Axis, horizontal: Axis, y: np.ndarray, x: np.ndarray, inside: np.ndarray, begin: np.ndarray,
                      height: int, row: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Whether each vector is an edge, and its fields: where each row of taps lies, the masks of the rows at the first and at the
    last column, those of the columns.

    At a step of 1 the row of the map that an element lies in says whether it counts: columns are then shuffled out of others.
    A row that no lane uses may lie outside of memory; what is read in its place is the plane's first.
    """
    valid = np.moveaxis(vertical.taps[y], -1, 0)
    used = (valid & inside).any(-1)
    places = begin + np.arange(len(valid))[:, None] * vertical.dilation * row
    masks, valid = [], valid | ~inside
    for column in (0, horizontal.taps.shape[1] - 1):
        if horizontal.step == 1:
            element = places[..., None] + np.arange(y.shape[1]) + column
            valid = (element >= 0) & (element < height * row)
        masks.append(np.where(used, lane_bits(valid), 0))
    masks.append(lane_bits(np.moveaxis(horizontal.taps[x], -1, 0) | ~inside))
    edge = (np.concatenate(masks) != (1 << y.shape[1]) - 1).any(0)
    return edge, [*np.where(used, places, 0), *np.concatenate(masks)]


def _tap_lists(vertical: Axis, horizontal: Axis, y: np.ndarray, x: np.ndarray, inside: np.ndarray,
               row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All lists of taps one after another; for each vector where its list begins and ends, and whether it is an edge.

    Lanes outside of the map count as if they were inside, so that vectors with the same taps share a list.
    """
    tall, wide = vertical.taps.shape[1], horizontal.taps.shape[1]
    counts = (vertical.taps[y][..., :, None] & horizontal.taps[x][..., None, :]).reshape(*y.shape, tall * wide).swapaxes(1, 2)
    used = (counts & inside[:, None]).any(2)
    masks = lane_bits(counts | ~inside[:, None]) * used
    offset = (np.arange(tall)[:, None] * vertical.dilation * row + np.arange(wide) * horizontal.dilation).ravel()
    lists, number = np.unique(masks, axis=0, return_inverse=True)
    number = number.ravel()
    kept = lists != 0
    taps = table(np.broadcast_to(offset, lists.shape)[kept], lists[kept])
    ends = np.cumsum(kept.sum(1))
    edge = (lists[number] != (1 << y.shape[1]) - 1).any(1)
    return taps if len(taps) else np.zeros((1, 2), np.int32), (ends - kept.sum(1))[number], ends[number], edge


def _items(source: Layout, target: Layout, additions: Sequence[Layout], vectors: int) -> np.ndarray:
    """Parts of planes, all planes of an image's part after one another."""
    images, channels = target.shape[:2]
    image, channel = (index.ravel() for index in np.indices((images, channels)))
    places = [image * layout.strides[0] + channel * layout.strides[1] for layout in (source, target, *additions)]
    places += [np.zeros_like(image)] * (2 - len(additions))
    return part_items(cut_parts(vectors, FEWEST_VECTORS, ITEM_VECTORS), images, *places)
