"""The tensors of a file that was checked, read anew whenever one is asked for: they take no memory until then.

The file may have been written into since. So the digest of every tensor is taken in the one pass that proves the file's
checksum, and compared with what is read later: either these are the bytes that the checksum vouched for, or an error says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zellige.errors import FileFormatError
from zellige.pack.source import PIECE, Source, read_bytes


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file, and what it is."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


class FileTensors(Mapping[str, np.ndarray]):
    """Tensors by name, each made when it is asked for. Raises ``FileFormatError`` if the file was altered since it was checked."""

    def __init__(self, source: Source, places: Mapping[str, Place], digests: Mapping[str, bytes]) -> None:
        self.source, self.places = source, places
        self._digests = digests

    def __getitem__(self, name: str) -> np.ndarray:
        place = self.places[name]
        try:
            content = read_bytes(self.source, place.start, place.stop)
        except FileFormatError as error:
            raise self._altered(str(error)) from error
        if hashlib.sha256(content.data).digest() != self._digests[name]:
            raise self._altered(f"the checksum of {name!r} is wrong")
        return content.view(place.dtype).reshape(place.shape)

    def _altered(self, reason: str) -> FileFormatError:
        return FileFormatError(f"{self.source.name} was altered since it was loaded: {reason}. Get or make the file again, "
                               "and load it")

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def kinds_of(tensors: Mapping[str, np.ndarray]) -> Mapping[str, Place] | Mapping[str, np.ndarray]:
    """``dtype``, ``shape`` and ``nbytes`` of every tensor, none of which is read for it."""
    return tensors.places if isinstance(tensors, FileTensors) else tensors


def digest_pieces(source: Source, places: Mapping[str, Place], whole: Any) -> dict[str, bytes]:
    """The digest of every tensor, from one pass over the file in which ``whole``, another digest, is taken further too."""
    buffer = bytearray(PIECE)
    digests = {}
    for name, place in places.items():
        own = hashlib.sha256()
        for start in range(place.start, place.stop, PIECE):
            piece = memoryview(buffer)[:min(PIECE, place.stop - start)]
            source.read_into(piece, start)
            whole.update(piece)
            own.update(piece)
        digests[name] = own.digest()
    return digests
