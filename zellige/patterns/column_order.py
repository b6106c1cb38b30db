"""An order of a tile's columns in which 2:4 keeps more of the weight; it costs nothing at run time, as the kernel gathers columns.

Which columns share a group of four decides what 2:4 may keep: the two largest numbers of each row in each group. Groups are drawn
into pairs, and the eight columns of each pair are split anew in the best of the 35 ways; after some rounds little is left to gain.
What is kept never falls. (Pool and Yu, "Channel permutations for N:M sparsity", NeurIPS 2021, exchange single columns.)
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from zellige.errors import InputError

_SPLITS = np.array([[0, *three, *sorted({*range(1, 8)} - {*three})] for three in combinations(range(1, 8), 3)])
"""The 35 ways to split 8 columns into groups of 4; the first leaves them as they are. Which group comes first doesn't matter."""

_TWOS = [*combinations(range(8), 2)]
"""The 28 ways to take two of 8 columns: each is a half of many groups."""

_HALVES = np.array([[[_TWOS.index((a, b)), _TWOS.index((c, d))] for a, b, c, d in groups]
                    for groups in _SPLITS.reshape(-1, 2, 4).tolist()])
"""The two halves of both groups of each split, as places in ``_TWOS``: splits × groups × halves."""

AT_ONCE = 1 << 15
"""Numbers that are weighed at a time, so that they stay in the caches."""


def kept(scores: NDArray) -> float:
    """The sum of the two largest scores of each row in each 4 consecutive columns.

    >>> kept(np.array([[1.0, 2.0, 3.0, 4.0, 9.0, 0.0, 0.0, 0.0]]))
    16.0
    """
    first, second, third, fourth = np.moveaxis(scores.reshape(len(scores), -1, 4), -1, 0)
    low, high = np.minimum(first, second), np.maximum(first, second)
    least, most = np.minimum(third, fourth), np.maximum(third, fourth)
    return float(np.maximum(np.maximum(high + low, most + least), high + most).sum())


def order_columns(scores: NDArray, rounds: int = 30, seed: int = 0) -> NDArray[np.int64]:
    """An order of the columns of ``scores`` (rows × columns, not negative, columns a multiple of 4) that keeps much under 2:4.

    Deterministic by ``seed``. With 8 columns the order is the best there is.
    """
    if scores.ndim != 2 or scores.shape[1] % 4 or (scores < 0).any():
        raise InputError(f"expected scores that are not negative, rows × a multiple of 4 columns, got shape {list(scores.shape)}")
    random = np.random.default_rng(seed)
    groups, by_column = np.arange(scores.shape[1]).reshape(-1, 4), np.ascontiguousarray(scores.T)
    for _ in range(rounds if len(groups) > 2 else len(groups) - 1):
        drawn = random.permutation(len(groups))[: len(groups) // 2 * 2].reshape(-1, 2)
        eight = groups[drawn].reshape(-1, 8)
        columns = by_column[eight]  # pairs × 8 × rows
        some = max(1, AT_ONCE // (2 * len(_SPLITS) * max(1, len(scores))))
        best = [_best_split(columns[first : first + some]) for first in range(0, len(eight), some)]
        groups[drawn] = np.take_along_axis(eight, _SPLITS[np.concatenate(best)], axis=1).reshape(-1, 2, 4)
    return groups.reshape(-1)


def _best_split(columns: NDArray) -> NDArray[np.int64]:
    """For pairs × 8 × rows, which of the splits of each pair keeps most."""
    one, other = (columns[:, list(half)] for half in zip(*_TWOS, strict=True))
    both, larger = one + other, np.maximum(one, other)
    left, right = _HALVES[:, :, 0], _HALVES[:, :, 1]
    most = np.maximum(both[:, left], both[:, right])
    np.maximum(most, larger[:, left] + larger[:, right], out=most)  # pairs × splits × groups × rows
    return most.reshape(len(columns), len(_SPLITS), -1).sum(2).argmax(1)
