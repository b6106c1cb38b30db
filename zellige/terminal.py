"""What goes to the terminal: tables, progress while something takes time, and JSON files.

Progress is shown on a terminal only, on standard error; results go to standard output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from zellige.bench.table import Table
from zellige.pack.atomic import write_atomically


@contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done while it is being done; gives a function that changes the message."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(message) as status:
        yield lambda text: status.update(text)


def show(table: Table) -> None:
    """Print a table: ruled on a terminal, as plain aligned text elsewhere."""
    console = Console()
    if not console.is_terminal:
        print(table, end="\n\n")
        return
    drawn = RichTable(title=table.title, title_justify="left")
    for column in table.columns:
        drawn.add_column(column.heading, justify="right" if column.numeric else "left")
    for row in table.rows:
        drawn.add_row(*row)
    console.print(drawn)


def write_json(path: Path | None, content: Any) -> None:
    """Write the content as JSON, whole or not at all, where a file was asked for."""
    if path is not None:
        write_atomically(path, [(json.dumps(content, indent=1) + "\n").encode()])
