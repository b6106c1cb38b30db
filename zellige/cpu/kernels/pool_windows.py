"""Windows of one size, taps unrolled: rows are combined first, on vectors that lie together, then what the columns gave.

Every tap of a 3 × 3 window at a step of 2 would take two loads and a shuffle. The three rows under a vector of outputs are
combined as they lie instead, and only the totals are taken apart into even and odd columns: nine loads and three shuffles in
place of eighteen and nine. Which taps of a vector count is a mask a row and a mask a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import llvmlite.ir as ir

from zellige.cpu.emitter import Emitter
from zellige.cpu.kernels.lanes import alternate

Values = Sequence[ir.Value]


def emit_window(b: Emitter, reduction: str, step: int, width: int, rows: Values, masks: tuple[Values, Values] | None) -> ir.Value:
    """The total of the windows of a vector of outputs, ``step`` (1 or 2) elements apart.

    ``rows`` point to the first tap of each row, for lane 0; ``masks`` are those of the rows and of the columns, if not all taps
    count. The masks of rows hold for all lanes or none where the step is 2.
    """
    start, combine = b.splat(START[reduction]), COMBINE[reduction]
    row_masks, column_masks = masks or ([], [])

    def column(x: int) -> ir.Value:
        values = [b.load_vector(b.at(row, x)) for row in rows]
        if row_masks:
            values = [b.select(mask, value, start) for mask, value in zip(row_masks, values, strict=True)]
        return combine(b, values)

    columns = list((neighbouring if step == 1 else every_second)(b, width, column))
    if column_masks:
        columns = [b.select(mask, value, start) for mask, value in zip(column_masks, columns, strict=True)]
    return combine(b, columns)


def neighbouring(b: Emitter, width: int, column: Callable[[int], ir.Value]) -> Iterator[ir.Value]:
    """The columns of windows side by side."""
    return map(column, range(width))


def every_second(b: Emitter, width: int, column: Callable[[int], ir.Value]) -> Iterator[ir.Value]:
    """The columns of windows two elements apart; nothing behind the last lane's last tap is asked for."""
    lanes = b.isa.lanes
    even = None
    for x in range(0, width, 2):
        if x + 1 < width:
            low, high = column(x), column(x + lanes)
            even = b.shuffle(low, high, list(range(0, 2 * lanes, 2)))
            yield even
            yield b.shuffle(low, high, list(range(1, 2 * lanes, 2)))
        elif even is None:
            yield alternate(b, column(x), column(x + lanes - 1))
        else:  # the last even column once more, a lane further on
            yield b.shuffle(even, column(x + lanes - 1), [*range(1, lanes), 2 * lanes - 1])


def sum_of(b: Emitter, values: Values) -> ir.Value:
    return reduce(b.fadd, values)


def maximum_of(b: Emitter, values: Values) -> ir.Value:
    """The largest, NaN if one is: a running maximum keeps the first one's NaN; two of the others are looked at together."""
    first, *others = values
    total = reduce(b.maximum, others, first)
    pairs = [b.fcmp_unordered("uno", *(others[number:number + 2] * 2)[:2]) for number in range(0, len(others), 2)]
    return b.select(reduce(b.or_, pairs), b.splat(float("nan")), total) if pairs else total


MAXIMUM, AVERAGE = "maximum", "average"
START = {MAXIMUM: float("-inf"), AVERAGE: 0.0}
COMBINE: dict[str, Callable[[Emitter, Values], ir.Value]] = {MAXIMUM: maximum_of, AVERAGE: sum_of}
