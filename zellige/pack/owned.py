"""A directory of files that nobody but its owner could have written.

Whoever can write there decides what this process believes or executes. So the directory must belong to this user and be writable
by nobody else, it is checked through the handle that is then used, and a file is read only if it is a plain one of which the
same holds. Files are written whole or not at all.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zellige.errors import CacheError

VARIABLE = "ZELLIGE_CACHE"
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
"""Permission bits that neither the directory nor a file in it may have."""


def default_directory() -> Path:
    """``$ZELLIGE_CACHE``, or ``~/.cache/zellige``."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/zellige")


class OwnedDirectory:
    """Files in one directory, which is made (for its owner alone) when it is first needed; ``what`` is its name in errors.

    Raises ``OSError`` where the directory can't be used (read-only, full, no home), ``CacheError`` where others could have
    written into it.
    """

    def __init__(self, directory: str | os.PathLike[str], what: str):
        self.directory = Path(os.path.expanduser(directory))
        self.what = what

    def read(self, name: str, used: Callable[[int], None] | None = None) -> bytes | None:
        """What a file of the directory holds; None if there is none that only this user could have written.

        ``used`` is called with the handle of a file that is read.
        """
        with self.opened() as directory:
            try:
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            except OSError:  # not there, a link, not readable: it is replaced if the directory lets us
                return None
            with open(handle, "rb") as file:
                entry = os.fstat(handle)
                if not stat.S_ISREG(entry.st_mode) or _others_can_write(entry):
                    return None
                if used is not None:
                    used(handle)
                return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all: whoever reads or writes the same one sees the old or the new."""
        temporary = f".{name}.{secrets.token_hex(8)}"
        with self.opened() as directory:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
            try:
                with open(handle, "wb") as file:
                    file.write(content)
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                os.unlink(temporary, dir_fd=directory)
                raise

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A handle of the directory, made if need be. ``CacheError`` if others could have written into it."""
        if self.directory.parts[:1] == ("~",):
            raise FileNotFoundError("this user has no home directory")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.directory.is_symlink():
            raise self._refusal("is a symbolic link, and whoever made it chooses which code runs")
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if _others_can_write(status):
                raise self._refusal(f"belongs to user {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}")
            yield handle
        finally:
            os.close(handle)

    def _refusal(self, fault: str) -> CacheError:
        return CacheError(f"the {self.what} must be a directory that user {os.geteuid()} owns and nobody else can write, "
                          f"but {self.directory} {fault}. Remove it or `chmod 700` it, or set {VARIABLE} to another one")


def _others_can_write(status: os.stat_result) -> bool:
    return status.st_uid != os.geteuid() or bool(status.st_mode & WRITABLE_BY_OTHERS)
