"""Machine code with a checksum over it and its key: what was cut short, damaged, or stored under another key is not believed."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

from zellige.pack.owned import VARIABLE, OwnedDirectory, default_directory


def seal(magic: bytes, key: str, image: bytes) -> bytes:
    """A file's content: ``magic``, which names the format, a checksum, and the code.

    >>> unseal(b"code 1", "key", seal(b"code 1", "key", b"image"))
    b'image'
    """
    return magic + hashlib.sha256(key.encode() + image).digest() + image


def unseal(magic: bytes, key: str, content: bytes) -> bytes | None:
    """The code in a file; ``None`` if it is damaged, of another format, or of another key."""
    image = content[len(magic) + hashlib.sha256().digest_size:]
    return image if content == seal(magic, key, image) else None


class SealedDirectory(OwnedDirectory):
    """A directory under Zellige's cache of files that cost time to make: sealed, under keys that name all that they depend on."""

    def __init__(self, name: str, what: str, magic: bytes):
        super().__init__(default_directory() / name, what)
        self.magic = magic

    def made(self, key: str, make: Callable[[], bytes]) -> bytes:
        """What is kept under a key, or else what ``make`` gives, which is kept then.

        Where the directory can't be used (read-only, full, no home) it is made every time, and a warning says so. One that others
        could have written is an error: ``CacheError``.
        """
        made: bytes | None = None
        try:
            content = self.read(key)
            kept = None if content is None else unseal(self.magic, key, content)
            if kept is not None:
                return kept
            made = make()
            self.write(key, seal(self.magic, key, made))
        except OSError as error:
            warnings.warn(f"the {self.what} {self.directory} can't be used, so everything is compiled anew every time: {error}. "
                          f"Set {VARIABLE} to a directory that can be written", RuntimeWarning, stacklevel=3)
        return make() if made is None else made
