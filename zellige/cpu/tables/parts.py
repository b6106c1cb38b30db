"""Parts of maps: how the items of a call are ordered, so that a thread finds what it reads where it wrote it itself.

Threads take items in order, the first thread the first ones. Where calls go through a map from top to bottom, each thread reads
what it has written, but for the rows at the seams. What one thread writes and another reads moves from cache to cache, and that is
not the worst: to write again what another has read takes ten times as long as to write what another has written, on a processor
with several third-level caches.
"""

from __future__ import annotations

import numpy as np

from zellige.cpu.tables.work import table

HALVES = 2  # of a map: two threads have one each, and of more each a part of one


def cut_evenly(count: int, most: int) -> np.ndarray:
    """As few ranges (first, end) as can be of at most ``most`` things, of about equal length. Shape (ranges, 2), int32.

    >>> cut_evenly(14, 3).tolist()
    [[0, 3], [3, 6], [6, 9], [9, 12], [12, 14]]
    """
    ranges = -(-count // most)
    ends = np.cumsum(count // ranges + (np.arange(ranges) < count % ranges))
    return np.stack([np.concatenate([[0], ends[:-1]]), ends], 1).astype(np.int32)


def cut_parts(vectors: int, fewest: int, most: int) -> np.ndarray:
    """The parts of a map as ranges of its vectors (first, end): halves, unless they had less than ``fewest``, and these cut into
    ranges of at most ``most``. The second half is not the smaller one, since a map's last vector is often not full.

    >>> cut_parts(13, 2, 4).tolist(), cut_parts(3, 2, 4).tolist()
    ([[0, 3], [3, 6], [6, 10], [10, 13]], [[0, 3]])
    """
    half = vectors // HALVES
    halves = [(0, half), (half, vectors)] if half >= fewest else [(0, vectors)]
    return np.concatenate([begin + cut_evenly(end - begin, most) for begin, end in halves])


def with_beginnings(costs: np.ndarray, part: np.ndarray, beginnings: np.ndarray) -> np.ndarray:
    """The costs of items of parts, with what it costs to begin each part: all of it with the part's first item, so that shares of
    items tend to end where parts do; of a single part, which threads must share and begin each on their own, over all items alike.

    >>> with_beginnings(np.ones(4), np.array([0, 0, 1, 1]), np.array([6.0, 8.0])).tolist()
    [7.0, 1.0, 9.0, 1.0]
    >>> with_beginnings(np.ones(2), np.array([0, 0]), np.array([6.0])).tolist()
    [4.0, 4.0]
    """
    if len(beginnings) == 1:
        return np.asarray(costs + beginnings[0] / len(costs))
    first = np.diff(part, prepend=-1) > 0
    return np.asarray(costs + np.where(first, beginnings[part], 0.0))


def part_items(parts: np.ndarray, images: int, *columns: np.ndarray) -> np.ndarray:
    """Items: the first and end of a part, then a number of each of the ``columns``, which have one for every plane: those of all
    images one after another. All planes of a part of an image follow each other. Shape (items, 2 + columns), int32.

    >>> part_items(np.array([[0, 2], [2, 4]]), 1, np.array([10, 20])).tolist()
    [[0, 2, 10], [0, 2, 20], [2, 4, 10], [2, 4, 20]]
    """
    planes = [column.reshape(images, 1, -1) for column in columns]
    return table(parts[:, 0, None], parts[:, 1, None], *planes)
