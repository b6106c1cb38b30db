"""How much the machine code cache may hold, and what goes when it holds more: the entries that were used least recently.

``$ZELLIGE_CACHE_SIZE`` is the limit in bytes, or with K, M or G in thousands, millions or billions of them; 1G by default.

An entry's time of modification is when it was last used (times of access are often not kept). Any number of processes may
evict, read and write at the same time: who reads an entry has it open, and one that is gone is compiled anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from zellige.errors import CacheError

VARIABLE = "ZELLIGE_CACHE_SIZE"
DEFAULT = "1G"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
ENTRY = re.compile(r"[0-9a-f]{64}")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
ABANDONED = 3600.0
"""Seconds after which a temporary file is one of a process that was killed."""


def size_limit() -> int:
    """The bytes that a cache may hold. ``CacheError`` if the variable says something else than a size.

    >>> size_limit()
    1000000000
    """
    text = os.environ.get(VARIABLE) or DEFAULT
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.strip().upper(), re.ASCII)
    if match is None:
        raise CacheError(f"{VARIABLE} must be a number of bytes, or one with K, M or G, such as 500M; got {text!r}")
    return int(match[1]) * UNITS[match[2]]


def mark_used(handle: int) -> None:
    """Note that an open entry is used now, where its file system lets us."""
    with contextlib.suppress(OSError):
        os.utime(handle)


def evict(directory: int, limit: int) -> None:
    """Remove the least recently used entries of an open directory until those left take at most ``limit`` bytes.

    Files that are no entries are left alone, but for temporary ones that nobody is writing any more.
    """
    entries: list[tuple[int, str, int]] = []
    now = time.time()
    with os.scandir(directory) as files:
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                status = file.stat(follow_symlinks=False)
                if ENTRY.fullmatch(file.name):
                    entries.append((status.st_mtime_ns, file.name, status.st_size))
                elif TEMPORARY.fullmatch(file.name) and now - status.st_mtime > ABANDONED:
                    os.unlink(file.name, dir_fd=directory)
    total = sum(size for _, _, size in entries)
    for _, name, size in sorted(entries):
        if total <= limit:
            break
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.unlink(name, dir_fd=directory)
        total -= size
