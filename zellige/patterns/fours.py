"""Columns arranged in fours so that no line has more than two marks in any four: what makes a pruned weight 2:4 once its columns
may be gathered in any order.

Which columns shared a four when a weight was pruned is written nowhere, and columns may have lost all their weights since. So
fours are found again from the zeros alone, and may have places left over. Each line keeps two of the four columns, so that these,
as vectors of bits, add up to nothing by exclusive or: fours come of two pairs of columns with equal sums. Sums are compared by
hashes that are linear in the marks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EMPTY = -1
"""A place of a four that no column takes."""

MOST_NODES, MOST_COLUMNS = 20_000, 64
"""How long an exact search may take, and for how many columns there is one."""

MOST_AGAIN, LEAST_LINES, MOST_EQUAL = 1024, 16, 4
"""How many columns are looked through again by parts of the lines, how long such a part must be to tell columns apart; and how many
pairs of equal sums are tried, for each column."""


def arrange(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Fours of columns: each column that has a mark once, none in a line of which more than two are marked; fours × 4.

    ``marks``: lines × columns. Places that are left over are ``EMPTY``, at the end of their four. As few fours as are found: never
    more than by cutting the columns as they stand, and as few as can be where pruning drew fours of neighbours. Two columns always
    fit, so a mask that is not 2:4 in any order takes up to twice the fours. Deterministic.

    >>> arrange(np.array([[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0, 1, 0]], bool)).tolist()
    [[0, 1, -1, -1], [2, 3, 4, 6]]
    """
    columns = np.flatnonzero(marks.any(axis=0))
    lines = np.ascontiguousarray(marks[:, columns].T)
    least = fewest(marks)
    best = _neighbours(lines)
    if len(best) > least:
        best = min(best, _searched(lines, least), key=len)
    fours = np.array([[*four, *[EMPTY] * (4 - len(four))] for four in best], np.int64).reshape(-1, 4)
    return np.where(fours == EMPTY, EMPTY, columns[fours]) if len(columns) else fours


def fewest(marks: NDArray[np.bool_]) -> int:
    """Fewer fours than this can't hold the marks: they hold four columns each, and two marks of a line."""
    return max(-(-int(marks.any(axis=0).sum()) // 4), -(-int(marks.sum(axis=1).max(initial=0)) // 2))


def worth_packing(marks: NDArray[np.bool_], fours: NDArray[np.int64]) -> bool:
    """Whether fours of a mask are no more than those of all its columns as they stand, or hold more than two columns on average:
    otherwise there is no 2:4 in it, and the columns that have a mark are better multiplied whole.

    >>> dense, two_four = np.ones((1, 8), bool), np.array([[1, 1, 0, 0, 0, 0, 1, 1]], bool)
    >>> worth_packing(dense, arrange(dense)), worth_packing(two_four, arrange(two_four))
    (False, True)
    """
    return len(fours) <= -(-marks.shape[1] // 4) or 2 * len(fours) < int(marks.any(axis=0).sum())


Fours = list[list[int]]


def _neighbours(columns: NDArray[np.bool_]) -> Fours:
    """Fours of neighbours, each as long as it can be: of all cuts into neighbours the one with the fewest."""
    fours: Fours = []
    once = twice = 0
    for number, bits in enumerate(_integers(columns)):
        if not fours or len(fours[-1]) == 4 or twice & bits:
            fours.append([])
            once = twice = 0
        fours[-1].append(number)
        once, twice = once | bits, twice | (once & bits)
    return fours


def _searched(columns: NDArray[np.bool_], least: int) -> Fours:
    """Fours from anywhere: those that every line fills, and what is left by first fit; exactly where columns are few."""
    found = _first_fit(columns)
    if len(found) <= least:
        return found
    full = _filled(columns) if 4 * columns.sum() >= columns.size else []  # fours that lines fill have half of their places marked
    if full:
        left = np.setdiff1d(np.arange(len(columns)), np.array([number for four in full for number in four], np.int64))
        found = min(found, full + [[int(left[number]) for number in four] for four in _first_fit(columns[left])], key=len)
    if len(found) > least and len(columns) <= MOST_COLUMNS:
        found = _exactly(_integers(columns), least) or found
    return found


def _filled(columns: NDArray[np.bool_]) -> Fours:
    """Fours, or threes, in which every line has two marks; or most lines, where weights happen to be zero.

    The latter are found by parts of the lines, as some part of them will be without such a zero.
    """
    free, fours = np.ones(len(columns), bool), []
    for parts in (1, 2, 4, 8):
        for lines in np.array_split(np.arange(columns.shape[1]), parts):
            if parts == 1 or (len(lines) >= LEAST_LINES and 3 <= free.sum() <= MOST_AGAIN):
                fours += _vanishing(columns, lines, free)
    return fours


def _vanishing(columns: NDArray[np.bool_], lines: NDArray[np.int64], free: NDArray[np.bool_]) -> Fours:
    """Fours of free columns (which they then are no more) that add up to nothing in some lines, and fit in all.

    Pairs of columns are looked through in classes, by a few bits of their sum. A four is in three classes, by its three pairings;
    it is found in the first of them, and its columns have left when the others come. Of the fours that pruning drew some are in
    each class: where all columns are free, and the first eighth of the classes has no four, there are none.
    """
    count = len(columns)
    words = np.random.default_rng(0).integers(0, 1 << 63, (len(lines), 1), dtype=np.uint64)
    hashes = np.bitwise_xor.reduce(np.where(columns.T[lines], words, np.uint64(0)), axis=0, initial=np.uint64(0))
    hashes = np.append(hashes, np.uint64(0))  # of no column at all: threes are fours with it
    classes = 1 << min(6, (count >> 6).bit_length())
    kind = (hashes & np.uint64(classes - 1)).astype(np.int64)
    all_free, fours = free.all(), Fours()
    for wanted in range(classes):
        if all_free and not fours and wanted >= max(1, classes // 8):
            break
        members = [np.flatnonzero(np.append(free, True) & (kind == one)) for one in range(classes)]
        halves = [_pairs(members[one], members[one ^ wanted]) for one in range(classes) if one <= one ^ wanted]
        pairs = np.concatenate(halves, axis=1)
        sums = hashes[pairs[0]] ^ hashes[pairs[1]]
        pairs = pairs[:, np.argsort(sums, kind="stable")]
        sums.sort()
        for at in np.flatnonzero(sums[1:] == sums[:-1])[: MOST_EQUAL * count].tolist():
            four = pairs[:, at : at + 2].flatten()
            real = four[four < count]
            if len(set(four.tolist())) == 4 and free[real].all() and (columns[real].sum(axis=0) <= 2).all():
                fours.append(sorted(real.tolist()))
                free[real] = False
    return fours


def _pairs(these: NDArray[np.int64], those: NDArray[np.int64]) -> NDArray[np.int64]:
    """All pairs of one of these and one of those, the lower number first, none twice: 2 × pairs."""
    pairs = np.stack([np.repeat(these, len(those)), np.tile(those, len(these))])
    return pairs[:, pairs[0] < pairs[1]] if these is those else np.sort(pairs, axis=0)


def _first_fit(columns: NDArray[np.bool_]) -> Fours:
    """Each column, those of most marks first, into the first four that has room for it."""
    bits = np.packbits(columns, axis=1)
    once, twice = np.zeros_like(bits), np.zeros_like(bits)
    sizes = np.zeros(len(columns), np.int64)
    fours: Fours = [[] for _ in columns]
    for number in np.argsort(-columns.sum(axis=1), kind="stable").tolist():
        open_ = np.flatnonzero(sizes[: np.count_nonzero(sizes) + 1] < 4)
        four = open_[np.argmin((twice[open_] & bits[number]).any(axis=1))]
        fours[four].append(number)
        sizes[four] += 1
        twice[four] |= once[four] & bits[number]
        once[four] |= bits[number]
    return [sorted(four) for four in fours if four]


def _exactly(columns: list[int], most: int) -> Fours | None:
    """At most so many fours, by going back wherever a column finds no place; None where that takes too long."""
    order = sorted(range(len(columns)), key=lambda number: -columns[number].bit_count())
    once, twice, fours = [0] * most, [0] * most, [[] for _ in range(most)]  # type: list[int], list[int], Fours
    nodes = 0

    def place(at: int) -> bool:
        nonlocal nodes
        if at == len(order):
            return True
        bits, tried = columns[order[at]], set()
        room = [four for four in range(most) if len(fours[four]) < 4 and not twice[four] & bits]
        for four in sorted(room, key=lambda four: -(once[four] & bits).bit_count()):
            state = once[four], twice[four], len(fours[four])
            if state in tried:
                continue
            tried.add(state)
            nodes += 1
            if nodes > MOST_NODES:
                return False
            once[four], twice[four] = once[four] | bits, twice[four] | (once[four] & bits)
            fours[four].append(order[at])
            if place(at + 1):
                return True
            once[four], twice[four] = state[:2]
            fours[four].pop()
        return False

    return [sorted(four) for four in fours if four] if place(0) else None


def _integers(columns: NDArray[np.bool_]) -> list[int]:
    """Each column's marks as one number."""
    return [int.from_bytes(line.tobytes(), "big") for line in np.packbits(columns, axis=1)]
