"""CUDA C++ of this room → machine code, through NVRTC. No GPU is needed, nor any header: the sources include none but their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from zellige.errors import CompileError

INSTALL = "install cuda-bindings and nvidia-cuda-nvrtc of PyTorch's CUDA version (they come with its CUDA builds)"

INCLUDED = re.compile(r'#include "(.+?)"')


@dataclass(frozen=True)
class MachineCode:
    """A cubin, and what the compiler said: registers, spills, shared memory."""

    cubin: bytes
    log: str


@cache
def sources(source: str) -> tuple[tuple[str, str], ...]:
    """Name and text of a ``.cu`` file of this room, and of every header that it includes, through others too.

    >>> [name for name, _ in sources("block_product.cu")]
    ['block_product.cu', 'activation.cuh', 'blocks.cuh', 'ptx.cuh', 'ring.cuh']
    """
    room, found, wanted = files("zellige.cuda.kernels"), dict[str, str](), [source]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = room.joinpath(name).read_text(encoding="utf-8")
            wanted += INCLUDED.findall(found[name])
    return tuple((name, found[name]) for name in (source, *sorted(found.keys() - {source})))


@cache
def compiler_version() -> str:
    """Of the bindings; they bring NVRTC of their own version, or find PyTorch's. Empty where there are none."""
    found = []
    for package in ("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "torch"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


@cache
def machine_code(source: str, architecture: str, defines: tuple[tuple[str, int], ...] = ()) -> MachineCode:
    """Compile ``source``, a ``.cu`` file of this room, for an ``sm_…``.

    Raises ``CompileError`` where NVRTC is missing, or refuses the source or the architecture.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise CompileError(f"CUDA C++ kernels need NVRTC's Python bindings: {error}; {INSTALL}") from error

    def call(function: Any, *arguments: Any) -> Any:
        try:
            status, *results = function(*arguments)
        except RuntimeError as error:  # the bindings are there, the library isn't
            raise CompileError(f"CUDA C++ kernels need NVRTC: {error}; {INSTALL}") from error
        return status, results[0] if results else None

    def text(size_of: Any, read: Any) -> bytes:
        _, size = call(size_of, program)
        buffer = b" " * size
        call(read, program, buffer)
        return buffer

    (_, text_of_source), *headers = sources(source)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v", "-lineinfo",
               *(f"-D{name}={value}" for name, value in defines)]  # fmt: skip
    status, program = call(nvrtc.nvrtcCreateProgram, text_of_source.encode(), source.encode(), len(headers),
                           [contents.encode() for _, contents in headers], [name.encode() for name, _ in headers])  # fmt: skip
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVRTC could not take {source}: {status.name}")
    try:
        status, _ = call(nvrtc.nvrtcCompileProgram, program, len(options), [option.encode() for option in options])
        log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).rstrip(b"\0 \n").decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(f"NVRTC could not compile {source} for {architecture} with {dict(defines)}: {status.name}\n{log}")
        return MachineCode(text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), log)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
