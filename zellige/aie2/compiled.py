"""The kernel's C++ as a step function: compiled by g++ against ``emulation/``, our own header with the few classes of AMD's AIE API
that it uses. What runs here is what would be compiled for the cores.

A compiled kernel is kept in ``$ZELLIGE_CACHE/aie2`` (``pack/sealed.py``), under a digest of all that it depends on: sources, flags,
compiler and machine.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from zellige.aie2.packet import ALIGNMENT, aligned_bytes, decode
from zellige.aie2.step import StepFunction, check
from zellige.errors import CompileError
from zellige.pack.sealed import SealedDirectory

KERNELS = Path(__file__).parent / "kernels"
"""The C++ of the cores, as it is emitted."""

EMULATION = Path(__file__).parent / "emulation"
SOURCE = "step.cc"
FLAGS = ("-std=c++20", "-O2", "-march=native", "-shared", "-fPIC")
MAGIC = b"zellige emulated kernel 1\n"
BEFORE, BEHIND = 32, 96
"""Bytes around its inputs that the kernel may read, and uses none of."""


def kernel_files(directory: Path = KERNELS) -> list[Path]:
    """The C++ files in a directory, in order."""
    return sorted(path for path in directory.rglob("*") if path.suffix in (".cc", ".h", ".hpp"))


def compiled_step(kernels: Path = KERNELS) -> StepFunction:
    """The step function that ``kernels/step.cc`` defines. Raises ``CompileError`` if there is no g++, or if it refuses it."""
    function, misaligned = _load(_image(kernels))

    def step(packet: np.ndarray, activations: np.ndarray, result: np.ndarray | None, accumulators: np.ndarray) -> None:
        check(decode(packet), activations, result, accumulators)
        copy, misaligned.value = _roomy(activations), None  # all kernels of a process note in one place
        function(packet.ctypes.data, copy.ctypes.data, None if result is None else result.ctypes.data, accumulators.ctypes.data)
        if misaligned.value is not None:
            behind = misaligned.value % ALIGNMENT
            raise CompileError(f"the kernel loads or stores a vector {behind} bytes behind a multiple of {ALIGNMENT}: packets, "
                               "results and accumulators must begin at multiples of that")
    return step


def _roomy(slot: np.ndarray) -> np.ndarray:
    """A copy that lies as the slot does between multiples of a load's width, with room around it, as in a tile's memory."""
    start = BEFORE + slot.ctypes.data % ALIGNMENT
    found = aligned_bytes(start + slot.size + BEHIND)[start : start + slot.size]
    found[...] = slot.view(np.uint8)
    return found


def _load(image: bytes) -> tuple[Callable, ctypes.c_void_p]:
    """The function, and where the emulation notes an address that no vector can lie at."""
    with tempfile.TemporaryDirectory(prefix="zellige-") as directory:
        path = Path(directory) / "step.so"
        path.write_bytes(image)
        library = ctypes.CDLL(str(path))
    function, misaligned = library.step, ctypes.c_void_p.in_dll(library, "aie_emulation_misaligned")
    function.argtypes, function.restype = (ctypes.c_void_p,) * 4, None
    return function, misaligned


def _image(kernels: Path) -> bytes:
    files = [*kernel_files(kernels), *kernel_files(EMULATION)]
    parts = [*FLAGS, _machine(), *(part for path in files for part in (path.name, path.read_text(encoding="utf-8")))]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return SealedDirectory("aie2", "cache of emulated kernels", MAGIC).made(key, lambda: _compile(kernels))


def _compile(kernels: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="zellige-") as directory:
        made = Path(directory) / "step.so"
        _gcc(*FLAGS, f"-I{EMULATION}", str(kernels / SOURCE), "-o", str(made))
        return made.read_bytes()


@cache
def _machine() -> str:
    """What g++ knows of itself and of this machine."""
    return _gcc("-march=native", "-dM", "-E", "-x", "c++", "/dev/null")


def _gcc(*arguments: str) -> str:
    compiler = shutil.which("g++")
    if compiler is None:
        raise CompileError("the kernel's C++ runs compiled by g++, and there is none: install it (Debian: apt-get install g++), "
                           "or run steps with numpy")
    done = subprocess.run([compiler, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or "no message"
        raise CompileError(f"g++ refused the kernel's C++: {said.splitlines()[0]}")
    return done.stdout
