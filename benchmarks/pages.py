"""Tables as Markdown, and the parts of a page that scripts write: what stands between a pair of markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns, ``texts`` of them, are words; the others are numbers, aligned to the right."""
    align = [":--"] * texts + ["--:"] * (len(headings) - texts)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, align, *rows))


def bold(text: str, yes: bool = True) -> str:
    return f"**{text}**" if yes else text


def milliseconds(value: float) -> str:
    """To a hundredth below ten, to a tenth above."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def times(value: float) -> str:
    return f"{value:.2f}×"


def replaced(text: str, begin: str, end: str, part: str) -> str:
    """The text with what is between the markers replaced; ``ValueError`` if they are missing or out of order."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"expected the markers {begin} and {end}, in this order")
    return f"{before}{begin}\n{part}\n{end}{after}"
