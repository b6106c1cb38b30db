"""Our engines alone: one network, pruned in several ways, each ready to be called."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import zellige as zl
from zellige.bench.rivals.rival import contiguous_arrays
from zellige.bench.subject import as_it_is, pruned_subject
from zellige.models import NamedModel, resolve
from zellige.patterns import parse_pattern

Way = tuple[str, str, float, int]
"""A name for it, the pattern, the sparsity (0: not pruned), the threads."""


def compiled(named: NamedModel, pattern: str, sparsity: float, threads: int) -> zl.Engine:
    """The network pruned so, compiled."""
    subject = pruned_subject(named, parse_pattern(pattern), sparsity) if sparsity else as_it_is(named)
    return zl.compile(subject.pruned, subject.inputs, threads=threads)


def engine_calls(model: str, ways: Iterable[Way]) -> dict[str, Callable[[], object]]:
    """For each way a call that runs the network once, on the same input."""
    named = resolve(model)
    arrays = contiguous_arrays(named.example_inputs)
    return {name: _call(compiled(named, pattern, sparsity, threads), arrays) for name, pattern, sparsity, threads in ways}


def _call(engine: zl.Engine, arrays: list[object]) -> Callable[[], object]:
    return lambda: engine(*arrays)
