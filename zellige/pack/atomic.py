"""Write a file whole or not at all.

The bytes go to a temporary file in the same directory, reach the disk, and only then take the name. A reader sees the
old file or the new one; a full disk leaves the old one and no temporary; a killed process leaves the old one, and
perhaps a temporary ``.zellige-….tmp``, which may be deleted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable

from zellige.errors import ZelligeError
from zellige.pack.path import checked_path

Chunk = bytes | memoryview


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse, before any work is done, a place where ``write_atomically`` could write no file afterwards.

    Raises ``ZelligeError`` if the directory is missing or not writable, or ``path`` is no path or something other than a file.
    """
    name = checked_path(path)
    try:
        target = _target(name)
    except (OSError, ValueError) as error:
        raise ZelligeError(f"can't save to {path}: {getattr(error, 'strerror', None) or error}") from error
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise ZelligeError(f"can't save to {path}: there is no directory {os.path.dirname(name) or directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ZelligeError(f"can't save to {path}: {directory} can't be written to; give another place, or the right to do so")


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[Chunk]) -> None:
    """Write ``chunks`` to ``path``, replacing a file that is there.

    A symbolic link is followed; the permissions are those that the umask gives. Raises ``ZelligeError`` if the
    directory is missing or not writable, ``path`` is no path or something other than a file, or the disk is full.
    """
    name = checked_path(path)
    try:
        _replace(_target(name), chunks)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ZelligeError(f"can't save to {path}: {reason}; what was there before is unchanged") from error


def _target(name: str) -> str:
    """The file that is meant, behind links."""
    target = os.path.realpath(name)
    if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
        raise ZelligeError(f"can't save to {name}: it is there and is not a file; give the name of a file")
    return target


def _replace(target: str, chunks: Iterable[Chunk]) -> None:
    """Write ``chunks`` next to ``target``, then give them its name; whatever goes wrong, nothing is left behind."""
    directory = os.path.dirname(target)
    temporary = os.path.join(directory, f".zellige-{secrets.token_hex(8)}.tmp")
    try:
        _write(temporary, chunks)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def _write(path: str, chunks: Iterable[Chunk]) -> None:
    """A new file with ``chunks`` in it, on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: str) -> None:
    """Make the new name outlive a power cut. Where a file system can't, the old file may come back, whole."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
