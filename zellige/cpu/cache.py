"""Machine code kept between runs: compiled once for a text, a CPU and a compiler, then loaded from disk.

Whoever can write an entry decides what this process executes, so the directory is its owner's alone (``pack/owned.py``). A
checksum over key and code (``pack/sealed.py``) finds damage (a cut write, a bad disk). What is not right in every respect is
compiled anew and replaced, never run.

The directory is ``$ZELLIGE_CACHE``, by default ``~/.cache/zellige``. Its code takes at most ``$ZELLIGE_CACHE_SIZE``, by default 1G:
what was used least recently goes (``eviction.py``).
"""

from __future__ import annotations

import hashlib
import os
import warnings
import weakref
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from zellige.cpu import host, toolchain
from zellige.cpu.debug import ASSEMBLY, IR, debug
from zellige.cpu.eviction import evict, mark_used, size_limit
from zellige.cpu.fork import ForkLock
from zellige.cpu.isa import Isa
from zellige.cpu.toolchain import Library
from zellige.pack.owned import VARIABLE, OwnedDirectory, default_directory
from zellige.pack.sealed import seal, unseal
from zellige.version import __version__

MAGIC = b"zellige machine code 1\n"

_loaded: weakref.WeakValueDictionary[str, Library] = weakref.WeakValueDictionary()
_loading = ForkLock()
_warned: set[Path] = set()


@dataclass(frozen=True)
class Recipe:
    """IR that is written only if it must be compiled. ``name`` stands for it: the same name, the same text, to the letter."""

    name: str
    write: Callable[[], str]


class MachineCodeCache(OwnedDirectory):
    """Compiled code in one directory, which is made (for its owner alone) when it is first needed.

    Where the directory can't be used (read-only, full, no home), code is compiled every time and one warning says so. A
    directory that others could have written is an error instead: ``CacheError``.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None):
        super().__init__(default_directory() if directory is None else directory, "machine code cache")
        self.limit = size_limit()

    def build(self, text: str | Recipe, isa: Isa, native: bool = True) -> Library:
        """LLVM IR → loaded code for this machine; the same text gives the same library as long as anyone holds it.

        ``CompileError`` if this machine can't run the instruction set, or if LLVM does not accept the IR.
        """
        host.require(isa)
        key = entry_key(text if isinstance(text, str) else text.name, isa, native)
        with _loading:
            library = _loaded.get(key)
            if library is None:
                debug(IR, f"LLVM IR {key[:12]}", lambda: written(text))
                debug(ASSEMBLY, f"assembly {key[:12]}", lambda: toolchain.assembly(written(text), isa, native))
                library = _loaded[key] = toolchain.load_object(self._image(key, text, isa, native), key[:12])
            return library

    def _image(self, key: str, text: str | Recipe, isa: Isa, native: bool) -> bytes:
        try:
            image = self._fetch(key)
        except OSError as error:
            self._warn(error)
            return toolchain.compile_ir(written(text), isa, native)
        if image is None:
            image = toolchain.compile_ir(written(text), isa, native)
            try:
                self._store(key, image)
            except OSError as error:
                self._warn(error)
        return image

    def _fetch(self, key: str) -> bytes | None:
        """The code under a key; None if there is none that can be trusted."""
        content = self.read(key, mark_used)
        return None if content is None else unseal(MAGIC, key, content)

    def _store(self, key: str, image: bytes) -> None:
        self.write(key, seal(MAGIC, key, image))
        with self.opened() as directory:
            evict(directory, self.limit)

    def _warn(self, error: OSError) -> None:
        if self.directory not in _warned:
            _warned.add(self.directory)
            warnings.warn(f"machine code is compiled anew every time, since the cache {self.directory} can't be used: "
                          f"{error}. Set {VARIABLE} to a directory that can be written", RuntimeWarning, stacklevel=4)


def written(text: str | Recipe) -> str:
    """The IR itself."""
    return text if isinstance(text, str) else text.write()


def entry_key(text: str, isa: Isa, native: bool = True) -> str:
    """The name of an entry: a digest of all that the machine code depends on."""
    compiler = (toolchain.PIPELINE, llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info)), __version__)
    parts = (text, *astuple(toolchain.target(isa, native)), *compiler)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
