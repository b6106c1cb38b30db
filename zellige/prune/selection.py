"""Which layers the user asked for: names and ``re:`` patterns, each of which must match something.

An entry is the name of a layer, the name of a module that holds layers, or ``re:`` and a regular expression that the
beginning of a layer's name matches (as in compressed-tensors' recipes).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zellige.errors import PruneError

REGULAR_EXPRESSION = "re:"


@dataclass(frozen=True)
class Selection:
    """The layers that are wanted (all, if ``targets`` is None), and those that are to be left alone."""

    targets: tuple[str, ...] | None
    ignore: tuple[str, ...]

    @classmethod
    def of(
        cls, targets: str | Sequence[str] | None, ignore: str | Sequence[str] | None, layers: Iterable[str]
    ) -> Selection:
        """Checks the entries against the names of all layers.

        Raises:
            PruneError: an entry matches no layer, or is no text, or no valid regular expression.
        """
        names = tuple(layers)
        wanted = None if targets is None else _entries("targets", targets)
        selection = cls(wanted, () if ignore is None else _entries("ignore", ignore))
        for argument, entries in (("targets", selection.targets or ()), ("ignore", selection.ignore)):
            for entry in entries:
                if not any(_matches(entry, name) for name in names):
                    raise PruneError(_no_match(argument, entry, names))
        return selection

    def ignores(self, names: Iterable[str]) -> bool:
        """Whether any of a layer's names is to be left alone."""
        return any(_matches(entry, name) for entry in self.ignore for name in names)

    def wants(self, names: Iterable[str]) -> bool:
        """Whether any of a layer's names is asked for."""
        return self.targets is None or any(_matches(entry, name) for entry in self.targets for name in names)

    def insists_on(self, names: Iterable[str]) -> bool:
        """Whether a layer is asked for by its own full name, which overrides what stays dense by default."""
        return any(name in (self.targets or ()) for name in names)


def _entries(argument: str, value: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(value, Iterable):
        raise PruneError(f"{argument} takes names of layers and 're:' patterns, not {value!r}.")
    entries = (value,) if isinstance(value, str) else tuple(value)
    for entry in entries:
        if not isinstance(entry, str):
            raise PruneError(f"{argument} takes names of layers and 're:' patterns, not {entry!r}.")
        if entry.startswith(REGULAR_EXPRESSION):
            try:
                re.compile(entry.removeprefix(REGULAR_EXPRESSION))
            except re.error as error:
                raise PruneError(f"{argument} entry {entry!r} is no valid regular expression: {error}.") from None
    return entries


def _matches(entry: str, name: str) -> bool:
    if entry.startswith(REGULAR_EXPRESSION):
        return re.match(entry.removeprefix(REGULAR_EXPRESSION), name) is not None
    return name == entry or name.startswith(entry + ".")


def _no_match(argument: str, entry: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(entry.removeprefix(REGULAR_EXPRESSION), names, n=3) or names[:3]
    hint = f" Names look like: {', '.join(close)}." if close else ""
    if entry.startswith(REGULAR_EXPRESSION):
        hint += " A regular expression must match from the beginning of a name: start it with '.*' to match further on."
    return f"{argument} entry {entry!r} matches no convolution or linear layer of the model.{hint}"
