"""Save a graph as one ``.zlg`` file and load it again. The format stands in ``docs/file-format.md``.

A file says what a network computes, and nothing about the machine that runs it: planning happens after loading.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from zellige.errors import FileFormatError
from zellige.graph.ir import Graph
from zellige.graph.serialize import graph_from_json, graph_to_json
from zellige.graph.verify import verify_graph
from zellige.pack.atomic import write_atomically
from zellige.pack.constants import check_room, restore_constants, store_constants
from zellige.pack.container import decode, encode
from zellige.pack.source import Bytes, OpenFile, Source
from zellige.pack.strict_json import read_json, write_json
from zellige.pack.tensors import kinds_of

SECTIONS = ("graph", "constants", "extra")
"""Metadata that are JSON objects: the graph without its numbers, how each constant is stored, what the saver adds."""


def save_graph(graph: Graph, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
    """Write ``graph`` to ``path``, whole or not at all; ``extra`` is any JSON object, given back by ``load_graph``.

    Raises ``FileFormatError`` if a constant holds NaN or infinity or ``extra`` is not JSON, ``GraphError`` if the graph
    is not valid, and ``ZelligeError`` if the file can't be written.
    """
    write_atomically(path, encode_graph(graph, extra or {}))


def load_graph(path: str | os.PathLike[str]) -> tuple[Graph, dict[str, Any]]:
    """The graph and ``extra`` as they were saved. Constants are read from the file, which stays open, when they are asked for.

    Raises ``FileFormatError`` if the file is truncated, altered, inconsistent or of a newer version, and
    ``ZelligeError`` if it can't be read.
    """
    try:
        return read_graph(OpenFile(path))
    except MemoryError as error:
        raise FileFormatError(f"{os.fspath(path)}: the content does not fit in memory") from error
    except FileFormatError as error:
        raise FileFormatError(f"{os.fspath(path)}: {error}") from error


def encode_graph(graph: Graph, extra: Mapping[str, Any]) -> Iterator[memoryview]:
    """The bytes of a file, in pieces; the same for the same graph."""
    verify_graph(graph)
    tensors, table = store_constants(graph.constants)
    sections = dict(zip(SECTIONS, (graph_to_json(graph), table, dict(extra)), strict=True))
    texts = {name: write_json(value, f"section {name!r}") for name, value in sections.items()}
    check_room(table, sum(kind.nbytes for kind in kinds_of(tensors).values()) + sum(map(len, texts.values())))
    return encode(tensors, texts)


def decode_graph(content: bytes) -> tuple[Graph, dict[str, Any]]:
    """The graph and ``extra`` in the bytes of a file."""
    return read_graph(Bytes(content))


def read_graph(source: Source) -> tuple[Graph, dict[str, Any]]:
    """The graph and ``extra`` in a file; constants stay there, and are read and unpacked whenever they are asked for."""
    tensors, metadata = decode(source)
    if set(metadata) != (expected := {"sha256", "format", "version", *SECTIONS}):
        raise FileFormatError(f"the metadata are {sorted(metadata)} instead of {sorted(expected)}")
    sections = {name: read_json(metadata[name], f"section {name!r}") for name in SECTIONS}
    for name, value in sections.items():
        if not isinstance(value, dict):
            raise FileFormatError(f"section {name!r} should be a JSON object, and is {type(value).__name__}")
    constants = restore_constants(tensors, sections["constants"], source.size)
    return graph_from_json(sections["graph"], constants), sections["extra"]
