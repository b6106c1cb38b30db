"""Patterns by name, as the command line writes them: ``block:8x8``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from zellige.errors import PruneError
from zellige.patterns.block import Block
from zellige.patterns.block_vector_wise import BlockVectorWise
from zellige.patterns.channel import Channel
from zellige.patterns.nm import NM
from zellige.patterns.pattern import Pattern
from zellige.patterns.tile_element_wise import TileElementWise
from zellige.patterns.tile_vector_wise import TileVectorWise
from zellige.patterns.tile_wise import TileWise
from zellige.patterns.unstructured import Unstructured
from zellige.patterns.vnm import VNM


@dataclass(frozen=True)
class Form:
    """How a pattern is written (NUMBERS in capitals, what may be left out in brackets), an example, and what makes it of the
    numbers and of whether each option is there."""

    text: str
    example: str
    make: Callable[..., Pattern]

    @property
    def name(self) -> str:
        """What the form begins with, up to its first number."""
        return self.text.partition(":")[0]

    def read(self, text: str) -> Pattern | None:
        """The pattern that a text of this form means; None for a text of another form."""
        words = re.sub(r"[A-Z]+", r"(\\d+(?:\\.\\d+)?(?:e-\\d+)?)", self.text)
        found = re.fullmatch(re.sub(r"\[(.+?)\]", r"(\1)?", words), text)
        return self.make(*map(_value, found.groups())) if found else None


def _value(part: str | None) -> int | float | bool:
    """A number, or whether an option is there."""
    if part is None or part.startswith(":"):
        return part is not None
    return int(part) if part.isdecimal() else float(part)


PATTERNS: tuple[Form, ...] = (
    Form("unstructured", "unstructured", Unstructured),
    Form("block:ROWSxCOLUMNS[:per-tap]", "block:8x8", Block),
    Form("channel", "channel", Channel),
    Form("nm:N:M[:outputs]", "nm:2:4", lambda n, m, outputs: NM(n, m, "outputs" if outputs else "inputs")),
    Form("vnm:V:N:M", "vnm:64:2:8", VNM),
    Form("tile:ROWS[:per-tap]", "tile:128", lambda rows, per_tap: TileWise(rows, True, per_tap)),
    Form("tile-rows:ROWS[:per-tap]", "tile-rows:128", lambda rows, per_tap: TileWise(rows, False, per_tap)),
    Form("tvw:ROWS:N:M[:tile-rows][:per-tap][:ordered]", "tvw:128:2:4",
         lambda rows, n, m, fixed, per_tap, ordered: TileVectorWise(rows, n, m, not fixed, per_tap, ordered)),
    Form("tvw:ROWSxCOLUMNS:N:M[:per-tap]", "tvw:128x64:2:4", BlockVectorWise),
    Form("tew:ROWS:DELTA[:tile-rows][:per-tap]", "tew:128:0.01",
         lambda rows, delta, fixed, per_tap: TileElementWise(rows, delta, not fixed, per_tap)),
)
"""All forms; a name may have several. A new pattern is one file beside this one, and one row here."""


def parse_pattern(text: str) -> Pattern:
    """Reads a pattern from its text form; ``str(pattern)`` gives the text back.

    >>> parse_pattern("block:8x4")
    Block(rows=8, columns=4, per_tap=False)

    Raises:
        PruneError: the name is not known, or the arguments do not fit it.
    """
    asked = text.strip()
    forms = [form for form in PATTERNS if form.name == asked.partition(":")[0]]
    if not forms:
        raise PruneError(f"Unknown pattern '{text}'. Known: {', '.join(form.example for form in PATTERNS)}.")
    for form in forms:
        if (pattern := form.read(asked)) is not None:
            return pattern
    known = ", or ".join(f"{form.text}, for instance {form.example}" for form in forms)
    raise PruneError(f"A pattern of this name is {known}; not '{text}'.")
