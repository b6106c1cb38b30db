"""The bytes of a ``.zlg`` file: a safetensors file whose first metadata is the checksum of all the rest.

Nothing is believed before it is checked: lengths against the file's size, the header as strict JSON, the version, where
tensors lie, the checksum. The layout stands in ``docs/file-format.md``. safetensors' own library reads these files too, but it
can't put the checksum first, nor hold what it reads to it, nor leave tensors in the file until they are asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from zellige.errors import FileFormatError
from zellige.pack.source import Source, read_bytes
from zellige.pack.strict_json import read_json, write_json
from zellige.pack.tensors import FileTensors, Place, digest_pieces, kinds_of

FORMAT = "zellige"
VERSION = 1
"""Raised whenever a reader of the version before would misunderstand a file."""

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"), "I64": np.dtype("<i8"), "F32": np.dtype("<f4"), "I32": np.dtype("<i4"),
    "BOOL": np.dtype("?"), "U8": np.dtype("u1")}
"""safetensors' names of the element types that a file may hold."""

LENGTH_BYTES = 8
OPENING = b'{"__metadata__":{"sha256":"'
DIGEST = slice(LENGTH_BYTES + len(OPENING), LENGTH_BYTES + len(OPENING) + 64)
"""Where the checksum stands in the file; it is taken over the file with 64 zeros here."""

LARGEST_HEADER = 64 << 20
MOST_DIMENSIONS = 8
MOST_ELEMENTS = 1 << 48
"""Of a tensor, sizes of zero left out: an array of any shape below it can be made."""


def encode(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Iterator[memoryview]:
    """The bytes of a file with ``tensors`` (C order, of ``DTYPES``) and ``metadata``; equal input gives equal bytes.

    Tensors that lie in a file are read one at a time, twice: for the checksum, and when their turn comes.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    identity = {"sha256": "0" * 64, "format": FORMAT, "version": str(VERSION)}
    header: dict[str, object] = {"__metadata__": identity | dict(metadata)}
    kinds = kinds_of(tensors)
    ordered = sorted(kinds, key=lambda name: -kinds[name].dtype.itemsize)   # so that each starts aligned
    start = 0
    for name in ordered:
        stop = start + kinds[name].nbytes
        header[name] = {"dtype": names[kinds[name].dtype], "shape": list(kinds[name].shape), "data_offsets": [start, stop]}
        start = stop
    text = write_json(header, "the header").encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise FileFormatError(f"the graph takes {len(text)} bytes as text; a file holds at most {LARGEST_HEADER}")
    head = bytearray(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    digest = hashlib.sha256(head)
    for data in _data(tensors, ordered):
        digest.update(data)
    head[DIGEST] = digest.hexdigest().encode("ascii")
    return _chunks(head, _data(tensors, ordered))


def _data(tensors: Mapping[str, np.ndarray], names: list[str]) -> Iterator[memoryview]:
    return (tensors[name].reshape(-1).view(np.uint8).data for name in names)


def _chunks(head: bytearray, data: Iterator[memoryview]) -> Iterator[memoryview]:
    yield memoryview(head)
    yield from data


def decode(source: Source) -> tuple[FileTensors, dict[str, str]]:
    """The tensors, which are read when they are asked for, and the metadata of a file, or ``FileFormatError``."""
    length = read_length(source)
    head = read_bytes(source, 0, LENGTH_BYTES + length)
    header = read_json(head[LENGTH_BYTES:].tobytes(), "the header")
    metadata = _check_metadata(header.pop("__metadata__"))
    try:
        places = _lay_out(header, head.nbytes, source.size)
    except FileFormatError as error:
        raise FileFormatError(f"the tensors are laid out wrongly: {error}") from error
    said = head[DIGEST].tobytes()
    head[DIGEST] = ord("0")
    digest = hashlib.sha256(head.data)
    tensors = FileTensors(source, places, digest_pieces(source, places, digest))
    if said != digest.hexdigest().encode("ascii"):
        raise FileFormatError("the checksum is wrong: the file was altered or damaged; get or make it again")
    return tensors, metadata


def read_length(source: Source) -> int:
    """The length of the header, if the first bytes are those of a ``.zlg``."""
    if source.size < DIGEST.stop:
        raise FileFormatError(f"only {source.size} bytes: the file is truncated, or not a .zlg file")
    head = read_bytes(source, 0, DIGEST.start).tobytes()
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if head[LENGTH_BYTES:] != OPENING:
        raise FileFormatError("not a .zlg file, or altered: it doesn't begin as zellige's files do")
    if length > min(source.size - LENGTH_BYTES, LARGEST_HEADER):
        raise FileFormatError(f"a header of {length} bytes in a file of {source.size}: the file is truncated or altered")
    return length


def _check_metadata(metadata: Any) -> dict[str, str]:
    """The metadata of a file of this format and no newer version."""
    if not all(isinstance(value, str) for value in metadata.values()) or metadata.get("format") != FORMAT:
        raise FileFormatError(f"not a .zlg file: its metadata doesn't say that the format is {FORMAT!r}")
    version = metadata.get("version", "")
    if not re.fullmatch("[1-9][0-9]{0,8}", version, re.ASCII):
        raise FileFormatError(f"the format's version is a positive number, not {version[:40]!r}")
    if int(version) > VERSION:
        raise FileFormatError(f"the file has version {version} of the format, and this zellige reads up to version "
                              f"{VERSION}: upgrade zellige")
    return metadata


def _lay_out(header: Mapping[str, Any], begin: int, end: int) -> dict[str, Place]:
    """Where each tensor lies, in the order of the file; together they must fill it from ``begin`` to ``end``."""
    places = sorted((_place(name, entry, begin) for name, entry in header.items()), key=lambda item: (item[1].start, item[1].stop))
    ends = [begin, *(place.stop for _, place in places)]
    for (name, place), expected in zip(places, ends, strict=False):
        if place.start != expected:
            raise FileFormatError(f"tensor {name!r} begins at byte {place.start} of the file, not at {expected}")
    if ends[-1] != end:
        raise FileFormatError(f"they end at byte {ends[-1]} of a file of {end}")
    return dict(places)


def _place(name: str, entry: Any, begin: int) -> tuple[str, Place]:
    """One entry of the header, its form and its numbers checked."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FileFormatError(f"tensor {name!r} needs 'dtype', 'shape' and 'data_offsets', and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FileFormatError(f"tensor {name!r} has the element type {dtype}; known are {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS or prod(size or 1 for size in shape) > MOST_ELEMENTS:
        raise FileFormatError(f"tensor {name!r}: 'shape' is a list of at most {MOST_DIMENSIONS} sizes of {MOST_ELEMENTS} elements")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise FileFormatError(f"tensor {name!r}: 'data_offsets' are where it begins and ends")
    place = Place(DTYPES[dtype], tuple(shape), begin + offsets[0], begin + offsets[1])
    if place.nbytes != prod(shape) * place.dtype.itemsize:
        raise FileFormatError(f"tensor {name!r} of {dtype}{shape} lies in {place.nbytes} bytes")
    return name, place


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)
