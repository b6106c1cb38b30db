"""A table as data, and as plain text that reads well in a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = "  "


@dataclass(frozen=True)
class Column:
    """A heading, and whether its cells are numbers (aligned to the right)."""

    heading: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings.

    >>> print(Table("engines", (Column("engine"), Column("ms", numeric=True)), (("ours", "8.1"), ("theirs", "18.6"))))
    engines
    <BLANKLINE>
    engine    ms
    ------  ----
    ours     8.1
    theirs  18.6
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        cells = [[column.heading for column in self.columns], *self.rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        rule = ["-" * width for width in widths]
        lines = [self._line(row, widths) for row in (cells[0], rule, *cells[1:])]
        return "\n".join([self.title, "", *lines])

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        padded = (
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(row, widths, self.columns, strict=True)
        )
        return GAP.join(padded).rstrip()


def milliseconds(value: float) -> str:
    """Three significant digits, as a person reads times.

    >>> milliseconds(18.63), milliseconds(0.04567), milliseconds(131.2)
    ('18.6', '0.0457', '131')
    """
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
