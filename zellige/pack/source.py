"""Where the bytes of a file are read from: the file itself, held open, or memory.

A file that is held open can be read for as long as its reader lives, whatever happens to its name: one that is replaced
by another, as ``atomic.py`` does, stays what it was. One that is written into does not: whoever reads twice checks twice.
"""

from __future__ import annotations

import os
import stat
import weakref
from typing import Protocol

import numpy as np

from zellige.errors import FileFormatError, ZelligeError
from zellige.pack.path import checked_path

PIECE = 1 << 20
"""Bytes that are read at a time where all of a file is."""


class Source(Protocol):
    """Bytes that can be read in any order; ``name`` is for messages."""

    name: str
    size: int

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill ``buffer`` with the bytes from ``start`` on."""


class OpenFile:
    """A plain file, open until nobody holds it. Forked children, and threads, read it independently of one another."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = checked_path(path)
        try:
            # O_NONBLOCK: a pipe that nobody writes to must not make us wait.
            self._descriptor = os.open(self.name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise ZelligeError(f"can't load {self.name}: {getattr(error, 'strerror', None) or error}") from error
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ZelligeError(f"can't load {self.name}: it is not a file")
        self.size = status.st_size

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Raises ``FileFormatError`` if the file has become shorter, ``ZelligeError`` if the disk fails."""
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[filled:]], start + filled)
            except OSError as error:
                raise ZelligeError(f"can't read {self.name}: {error.strerror}") from error
            if count == 0:
                raise FileFormatError(f"the file was cut to {start + filled} bytes while it was read")
            filled += count


class Bytes:
    """A file's content in memory."""

    def __init__(self, content: bytes) -> None:
        self.name, self.size = "these bytes", len(content)
        self._content = memoryview(content)

    def read_into(self, buffer: memoryview, start: int) -> None:
        buffer[:] = self._content[start:start + len(buffer)]


def read_bytes(source: Source, start: int, stop: int) -> np.ndarray:
    """The bytes from ``start`` to ``stop`` in memory of their own, aligned for any element type."""
    array = np.empty(stop - start, np.uint8)
    source.read_into(array.data, start)
    return array
