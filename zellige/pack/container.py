"""The bytes of a ``.zlg`` file: a safetensors file whose first metadata is the checksum of all the rest.

Nothing is believed before it is checked: lengths against the file's size, the header as strict JSON, the version, the
checksum; then safetensors' own parser checks offsets, shapes and sizes. The layout stands in ``docs/file-format.md``.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors

from zellige.errors import FileFormatError, ZelligeError
from zellige.pack.strict_json import read_json, write_json

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


def encode(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> list[memoryview]:
    """The bytes of a file with ``tensors`` (C order, of ``DTYPES``) and ``metadata``; equal input gives equal bytes."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    identity = {"sha256": "0" * 64, "format": FORMAT, "version": str(VERSION)}
    header: dict[str, object] = {"__metadata__": identity | dict(metadata)}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)   # so that each starts aligned
    start = 0
    for name, array in ordered:
        stop = start + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
    text = write_json(header, "the header").encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise FileFormatError(f"the graph takes {len(text)} bytes as text; a file holds at most {LARGEST_HEADER}")
    head = bytearray(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    data = [array.reshape(-1).view(np.uint8).data for _, array in ordered]
    head[DIGEST] = _digest([memoryview(head), *data])
    return [memoryview(head), *data]


def decode(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a file, or ``FileFormatError``."""
    metadata = _read_metadata(content)
    view = memoryview(content)
    zeroed = [view[:DIGEST.start], memoryview(b"0" * 64), view[DIGEST.stop:]]
    if bytes(view[DIGEST]) != _digest(zeroed):
        raise FileFormatError("the checksum is wrong: the file was altered or damaged; get or make it again")
    try:
        entries = safetensors.deserialize(content)
        return {name: _array(name, entry) for name, entry in entries}, metadata
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:
        raise FileFormatError(f"the tensors are laid out wrongly: {error}") from error


def read_file(path: str | os.PathLike[str]) -> bytes:
    """All bytes of the file at ``path``, read only if its length and the header's can belong to a ``.zlg``."""
    try:
        # O_NONBLOCK: a pipe that nobody writes to must not make us wait.
        descriptor = os.open(os.fspath(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ZelligeError(f"can't load {path}: it is not a file")
            with open(descriptor, "rb", closefd=False) as file:
                _check_opening(file.read(DIGEST.start), status.st_size)
                file.seek(0)
                return file.read(status.st_size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise ZelligeError(f"can't load {path}: {getattr(error, 'strerror', None) or error}") from error


def _check_opening(head: bytes, size: int) -> int:
    """The length of the header, if the first bytes of a file of ``size`` bytes are those of a ``.zlg``."""
    if size < DIGEST.stop:
        raise FileFormatError(f"only {size} bytes: the file is truncated, or not a .zlg file")
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if head[LENGTH_BYTES:DIGEST.start] != OPENING:
        raise FileFormatError("not a .zlg file, or altered: it doesn't begin as zellige's files do")
    if length > min(size - LENGTH_BYTES, LARGEST_HEADER):
        raise FileFormatError(f"a header of {length} bytes in a file of {size}: the file is truncated or altered")
    return length


def _read_metadata(content: bytes) -> dict[str, str]:
    """The metadata of a file of this format and no newer version."""
    length = _check_opening(content, len(content))
    header = read_json(content[LENGTH_BYTES:LENGTH_BYTES + length], "the header")
    metadata = header["__metadata__"]
    if not all(isinstance(value, str) for value in metadata.values()) or metadata.get("format") != FORMAT:
        raise FileFormatError(f"not a .zlg file: its metadata doesn't say that the format is {FORMAT!r}")
    version = metadata.get("version", "")
    if not re.fullmatch("[1-9][0-9]{0,8}", version, re.ASCII):
        raise FileFormatError(f"the format's version is a positive number, not {version[:40]!r}")
    if int(version) > VERSION:
        raise FileFormatError(f"the file has version {version} of the format, and this zellige reads up to version "
                              f"{VERSION}: upgrade zellige")
    return metadata


def _array(name: str, entry: Mapping[str, Any]) -> np.ndarray:
    dtype = DTYPES.get(str(entry["dtype"]))
    if dtype is None:
        raise FileFormatError(f"tensor {name!r} has the element type {entry['dtype']}; known are {', '.join(DTYPES)}")
    flat = np.frombuffer(entry["data"], np.uint8)
    if dtype.kind == "b" and flat.size and flat.max() > 1:
        raise FileFormatError(f"tensor {name!r} is of booleans and holds other bytes than 0 and 1")
    return flat.view(dtype).reshape(entry["shape"])


def _digest(chunks: Iterable[memoryview]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest().encode("ascii")
