"""Kernels → machine code at an address, from the cache or made now."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from zellige.cpu.cache import MachineCodeCache, Recipe
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel, emit_module
from zellige.cpu.toolchain import Library


def build_kernels(kernels: list[Kernel], isa: Isa) -> tuple[dict[Kernel, int], tuple[Library, ...]]:
    """The address of every kernel, and the libraries that hold them and must be kept."""
    stored = MachineCodeCache()
    libraries = tuple(stored.build(recipe(kernel, isa), isa, native=True) for kernel in kernels)
    return {kernel: library.address(kernel.symbol) for kernel, library in zip(kernels, libraries, strict=True)}, libraries


def recipe(kernel: Kernel, isa: Isa) -> Recipe:
    """A kernel's IR, named by all that it depends on: to write it takes longer than to fetch its machine code."""
    return Recipe(f"{emitters_digest()} {kernel!r} {isa!r}", lambda: emit_module([kernel], isa))


@cache
def emitters_digest() -> str:
    """A digest of the sources that write IR, and of what they take constants from."""
    digest = hashlib.sha256()
    room = files("zellige.cpu")
    for source in sorted([*room.iterdir(), *(room / "kernels").iterdir()], key=lambda file: file.name):
        if source.name.endswith(".py"):
            digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()
