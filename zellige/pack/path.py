"""The path of a file that a caller named."""

from __future__ import annotations

import os

from zellige.errors import ZelligeError


def checked_path(path: str | os.PathLike[str]) -> str:
    """The path as text.

    >>> checked_path(5)
    Traceback (most recent call last):
    zellige.errors.ZelligeError: expected the path of a file, as a text or a pathlib.Path, got 5
    """
    if not isinstance(path, str | os.PathLike):
        raise ZelligeError(f"expected the path of a file, as a text or a pathlib.Path, got {path!r}")
    return os.fspath(path)
