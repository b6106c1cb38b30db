"""A sparsity for each layer, written down: a table from names to sparsities.

An entry is the name of a layer, the name of a module that holds layers, or ``re:`` and a regular expression, as in ``targets``.
What says most about a layer holds for it: its own name before that of a module, an inner module before an outer one, and any
name before an expression. The order in which entries stand doesn't matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from zellige.errors import PruneError
from zellige.prune.selection import REGULAR_EXPRESSION

OWN_NAME, MODULE, EXPRESSION = 2, 1, 0  # what an entry can be to a layer, the last the weakest


def sparsity_in(table: Mapping[str, float], names: Iterable[str]) -> float:
    """The sparsity of a layer that goes by these names, of which one matches an entry.

    >>> sparsity_in({"body": 0.5, "body.0": 0.75, "re:.*": 0.1}, ["body.0"])
    0.75

    Raises:
        PruneError: entries that say as much about the layer give it several.
    """
    names = tuple(names)
    ranked = [(rank, entry) for entry in table for name in names if (rank := _rank(entry, name)) is not None]
    most = max(rank for rank, _ in ranked)
    entries = sorted({entry for rank, entry in ranked if rank == most})
    if len({table[entry] for entry in entries}) > 1:
        raise PruneError(f"The table of sparsities gives layer '{names[0]}' several: "
                         + ", ".join(f"{float(table[entry]):g} by {entry!r}" for entry in entries) + ". Name the layer itself.")
    return table[entries[0]]


def _rank(entry: str, name: str) -> tuple[int, int] | None:
    """How much an entry says about a layer of that name; None if nothing."""
    if entry.startswith(REGULAR_EXPRESSION):
        return (EXPRESSION, 0) if re.match(entry.removeprefix(REGULAR_EXPRESSION), name) else None
    if entry == name:
        return OWN_NAME, 0
    return (MODULE, len(entry)) if name.startswith(entry + ".") else None
