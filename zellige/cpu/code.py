"""Kernels → machine code at an address, from the cache or made now."""

from __future__ import annotations

from zellige.cpu.cache import MachineCodeCache
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel, emit_module
from zellige.cpu.toolchain import Library


def build_kernels(kernels: list[Kernel], isa: Isa) -> tuple[dict[Kernel, int], tuple[Library, ...]]:
    """The address of every kernel, and the libraries that hold them and must be kept."""
    cache = MachineCodeCache()
    libraries = tuple(cache.build(emit_module([kernel], isa), isa, native=True) for kernel in kernels)
    return {kernel: library.address(kernel.symbol) for kernel, library in zip(kernels, libraries, strict=True)}, libraries
