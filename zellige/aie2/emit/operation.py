"""MLIR's generic form as data: operations with operands, attributes and one region at most. An operation is written on a line of
its own, the end of its region on another; ``parse.py`` reads that, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Integer:
    """A number with its type."""

    value: int
    type: str = "i32"


@dataclass(frozen=True)
class Symbol:
    """The name of a function."""

    name: str


@dataclass(frozen=True)
class FunctionType:
    arguments: tuple[str, ...]


Attribute = Integer | Symbol | FunctionType | str | bool | tuple[int, ...] | tuple[str, ...]
"""Tuples of numbers are ``array<i64: …>``, those of strings ``["…", …]``; empty ones aren't written."""


@dataclass(frozen=True)
class Block:
    """Operations in a row. ``label`` is ``None`` for the first one of a region, unless it has ``arguments``: names and types."""

    operations: tuple[Operation, ...]
    label: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Operation:
    """``results`` and ``operands``: names and types. ``line`` is where it was read."""

    name: str
    operands: tuple[tuple[str, str], ...] = ()
    results: tuple[tuple[str, str], ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    successors: tuple[str, ...] = ()
    region: tuple[Block, ...] | None = None
    line: int = field(default=0, compare=False)


def region(operations: Iterable[Operation], arguments: Iterable[tuple[str, str]] = ()) -> tuple[Block, ...]:
    """A region of one block."""
    arguments = tuple(arguments)
    return (Block(tuple(operations), "bb0" if arguments else None, arguments),)


def write(operation: Operation) -> str:
    """The text of an operation."""
    return "\n".join(_lines(operation, "")) + "\n"


def _lines(one: Operation, indent: str) -> Iterator[str]:
    results = ", ".join(f"%{name}" for name, _ in one.results) + (" = " if one.results else "")
    operands = ", ".join(f"%{name}" for name, _ in one.operands)
    successors = f"[{', '.join('^' + label for label in one.successors)}]" if one.successors else ""
    head = f'{indent}{results}"{one.name}"({operands}){successors}'
    attributes = ", ".join(f"{name} = {_attribute(value)}" for name, value in one.attributes.items())
    types = tuple(type for _, type in one.results)
    tail = (f" {{{attributes}}}" if attributes else "") + f" : {_function(tuple(t for _, t in one.operands))} -> {_results(types)}"
    if one.region is None:
        yield head + tail
        return
    yield head + " ({"
    for block in one.region:
        if block.label is not None:
            arguments = ", ".join(f"%{name}: {type}" for name, type in block.arguments)
            yield f"{indent}^{block.label}{f'({arguments})' if arguments else ''}:"
        for inner in block.operations:
            yield from _lines(inner, indent + "  ")
    yield f"{indent}}}){tail}"


def _function(types: tuple[str, ...]) -> str:
    return f"({', '.join(types)})"


def _results(types: tuple[str, ...]) -> str:
    return types[0] if len(types) == 1 else _function(types)


def _attribute(value: Attribute) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Integer):
        return f"{value.value} : {value.type}"
    if isinstance(value, Symbol):
        return f"@{value.name}"
    if isinstance(value, FunctionType):
        return f"{_function(value.arguments)} -> ()"
    if isinstance(value, str):
        return f'"{value}"'
    if all(isinstance(one, int) for one in value):
        return f"array<i64: {', '.join(map(str, value))}>"
    return "[" + ", ".join(f'"{one}"' for one in value) + "]"
