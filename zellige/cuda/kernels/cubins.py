"""Machine code of CUDA C++, kept between runs and compiled several at a time: NVRTC takes seconds for a kernel, a network has some.

Files lie in ``$ZELLIGE_CACHE/cubins`` (by default ``~/.cache/zellige/cubins``), which must be its owner's alone
(``pack/owned.py``); what is not right in every respect is compiled anew and replaced, never run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from zellige.cuda.kernels.nvrtc import compiler_version, machine_code, sources
from zellige.pack.sealed import SealedDirectory

MAGIC = b"zellige cubin 1\n"


@dataclass(frozen=True)
class Request:
    """A ``.cu`` file, what to compile it for (``sm_…``), and the command line's definitions."""

    source: str
    architecture: str
    defines: tuple[tuple[str, int], ...] = ()

    @property
    def key(self) -> str:
        """A digest of all that the machine code depends on."""
        files = (part for file in sources(self.source) for part in file)
        parts = (self.architecture, repr(self.defines), compiler_version(), *files)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def cubin(request: Request) -> bytes:
    """Machine code, compiled if it isn't kept. Raises ``CompileError`` where NVRTC is missing or refuses, ``CacheError`` where
    others could have written what is kept."""
    kept = SealedDirectory("cubins", "cache of cubins", MAGIC)
    return kept.made(request.key, lambda: machine_code(request.source, request.architecture, request.defines).cubin)


def compile_together(requests: Iterable[Request]) -> None:
    """Have machine code at hand for all of these, compiled on all cores where it must be."""
    wanted = list(dict.fromkeys(requests))
    with ThreadPoolExecutor(max(1, min(len(wanted), os.cpu_count() or 1))) as pool:
        list(pool.map(cubin, wanted))
