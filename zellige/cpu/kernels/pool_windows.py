"""Windows of one size, taps unrolled: rows are combined first, on vectors that lie together, then what the columns gave.

A load costs most here, since it begins anywhere and meets two cache lines. So as few elements as can be are loaded twice: the
rows of the first and the last column of a window are combined, and the totals between are shuffled out of those two. A 3 × 3
window takes six loads in place of nine. At a step of 2 the totals are taken apart into even and odd columns: six loads and
three numbers, in place of eighteen loads. Which taps of a vector count is a mask a row and a mask a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import llvmlite.ir as ir

from zellige.cpu.emitter import I32, Emitter
from zellige.cpu.kernels.lanes import alternate

Values = Sequence[ir.Value]
Mask = Callable[[int], ir.Value]


def emit_window(b: Emitter, reduction: str, step: int, width: int, rows: Values, mask: Mask | None) -> ir.Value:
    """The total of the windows of a vector of outputs, ``step`` (1 or 2) elements apart.

    ``rows`` point to the first tap of each row, for lane 0. If not all taps count, ``mask`` loads the mask of a number: those of
    the rows at the first column come first, those at the last then (at a step of 2 they hold for all lanes or none), at last those
    of the columns. Each is loaded where it is used: registers for masks are few.
    """
    start, combine = b.splat(START[reduction]), COMBINE[reduction]

    def counted(number: int, value: ir.Value) -> ir.Value:
        return b.select(mask(number), value, start) if mask else value

    def column(x: int, single: bool = False) -> ir.Value:
        """The total of all rows from element ``x`` on; of one element alone, in lane 0."""
        first = len(rows) if x and step == 1 else 0
        return combine(b, [counted(number, _single(b, row, x) if single else b.load_vector(b.at(row, x)))
                           for number, row in enumerate(rows, first)])

    columns = (neighbouring if step == 1 else every_second)(b, width, column)
    return combine(b, [counted(number, total) for number, total in enumerate(columns, 2 * len(rows))])


def neighbouring(b: Emitter, width: int, column: Callable[..., ir.Value]) -> Iterator[ir.Value]:
    """The columns of windows side by side; those between the first and the last have their elements in one of the two."""
    lanes, last = b.isa.lanes, width - 1
    first_column = column(0)
    yield first_column
    if last:
        last_column = column(last)
        for x in range(1, last):
            elements = range(x, x + lanes)
            yield b.shuffle(first_column, last_column, [lane if lane < lanes else lane + lanes - last for lane in elements])
        yield last_column


def every_second(b: Emitter, width: int, column: Callable[..., ir.Value]) -> Iterator[ir.Value]:
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
            yield b.shuffle(even, column(x + 2 * lanes - 2, single=True), list(range(1, lanes + 1)))


def _single(b: Emitter, row: ir.Value, x: int) -> ir.Value:
    return b.insert_element(ir.Constant(b.vector, ir.Undefined), b.load_scalar(row, x), ir.Constant(I32, 0))


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
