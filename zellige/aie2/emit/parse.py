"""Reads back what ``operation.py`` writes: one operation a line. Whatever else stands in a file is an error with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from zellige.aie2.emit.operation import Attribute, Block, FunctionType, Integer, Operation, Symbol
from zellige.errors import FileFormatError

NAME = r"[A-Za-z0-9_$.-]+"
OPENING = re.compile(rf'\s*(?:(?P<results>%{NAME}(?:, %{NAME})*) = )?"(?P<name>[a-z0-9_.]+)"\((?P<operands>[^)]*)\)'
                     rf"(?:\[(?P<successors>[^\]]*)\])?(?P<rest>.*)")
LABEL = re.compile(rf"\s*\^(?P<label>{NAME})(?:\((?P<arguments>[^)]*)\))?:")
TAIL = re.compile(r"(?: \{(?P<attributes>.*)\})? : \((?P<operands>.*?)\) -> (?P<results>.*)")
CLOSING = re.compile(r"\s*\}\)(?P<tail>.*)")
ARGUMENT = re.compile(rf"%(?P<name>{NAME}): (?P<type>.+)")
ATTRIBUTE = re.compile(rf'(?P<key>{NAME}) = (?:(?P<integer>-?[0-9]+) : (?P<type>[a-z0-9]+)|(?P<bool>true|false)|@(?P<symbol>{NAME})'
                       r'|"(?P<string>[^"]*)"|array<i64: (?P<numbers>-?[0-9]+(?:, -?[0-9]+)*)>'
                       r'|\[(?P<strings>"[^"]*"(?:, "[^"]*")*)\]|\((?P<function>[^)]*)\) -> \(\))(?:, |$)')


def parse(text: str, file: str) -> Operation:
    """The one operation of a file. Raises ``FileFormatError`` with the file's name and the line."""
    reader = _Reader(text.splitlines(), file)
    found = reader.operation()
    if reader.at != len(reader.lines):
        reader.refuse("the end of the file")
    return found


class _Reader:
    def __init__(self, lines: list[str], file: str):
        self.lines, self.file, self.at = lines, file, 0

    def refuse(self, expected: str) -> NoReturn:
        came = repr(self.lines[self.at].strip()[:80]) if self.at < len(self.lines) else "the end of the file"
        raise FileFormatError(f"{self.file}:{self.at + 1}: expected {expected}, got {came}")

    def operation(self) -> Operation:
        """The operation that starts at this line."""
        opening = OPENING.fullmatch(self.lines[self.at]) if self.at < len(self.lines) else None
        if opening is None:
            self.refuse("an operation")
        line, rest, blocks = self.at, opening["rest"], None
        if rest == " ({":
            self.at += 1
            blocks = tuple(self._blocks())
            closing = CLOSING.fullmatch(self.lines[self.at]) if self.at < len(self.lines) else None
            if closing is None:
                self.refuse("the end of a region")
            rest = closing["tail"]
        tail = TAIL.fullmatch(rest)
        if tail is None:
            self.refuse("attributes and a type")
        attributes = dict(self._attributes(tail["attributes"] or ""))
        results = tail["results"]
        types = _split(results[1:-1]) if results.startswith("(") else [results]
        found = Operation(opening["name"], self._typed(opening["operands"], _split(tail["operands"])),
                          self._typed(opening["results"] or "", types), attributes,
                          tuple(one[1:] for one in _split(opening["successors"] or "")), blocks, line + 1)
        self.at += 1
        return found

    def _typed(self, names: str, types: list[str]) -> tuple[tuple[str, str], ...]:
        if not names and not types:
            return ()
        split = _split(names)
        if len(split) != len(types) or not all(one.startswith("%") for one in split):
            self.refuse(f"{len(split)} types for {names or 'nothing'}")
        return tuple([(name[1:], type) for name, type in zip(split, types, strict=True)])

    def _blocks(self) -> Iterator[Block]:
        first = True
        while self.at < len(self.lines) and not CLOSING.fullmatch(self.lines[self.at]):
            label = LABEL.fullmatch(self.lines[self.at])
            if label is None and not first:
                self.refuse("a label")
            arguments: list[tuple[str, str]] = []
            for one in _split(label["arguments"] or "") if label else []:
                match = ARGUMENT.fullmatch(one)
                if match is None:
                    self.refuse("a name and a type as argument")
                arguments.append((match["name"], match["type"]))
            self.at += label is not None
            yield Block(tuple(self._operations()), label["label"] if label else None, tuple(arguments))
            first = False

    def _operations(self) -> Iterator[Operation]:
        while self.at < len(self.lines) and not CLOSING.fullmatch(self.lines[self.at]) and not LABEL.fullmatch(self.lines[self.at]):
            yield self.operation()

    def _attributes(self, text: str) -> Iterator[tuple[str, Attribute]]:
        at = 0
        while at < len(text):
            match = ATTRIBUTE.match(text, at)
            if match is None:
                self.refuse(f"an attribute at {text[at : at + 40]!r}")
            yield match["key"], _value(match)
            at = match.end()


def _split(text: str) -> list[str]:
    return text.split(", ") if text else []


def _value(match: re.Match[str]) -> Attribute:
    if match["integer"] is not None:
        return Integer(int(match["integer"]), match["type"])
    if match["bool"] is not None:
        return match["bool"] == "true"
    if match["symbol"] is not None:
        return Symbol(match["symbol"])
    if match["string"] is not None:
        return match["string"]
    if match["numbers"] is not None:
        return tuple(map(int, match["numbers"].split(", ")))
    if match["strings"] is not None:
        return tuple(match["strings"][1:-1].split('", "'))
    return FunctionType(tuple(_split(match["function"])))
