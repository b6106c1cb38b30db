"""AArch64 on any machine: kernels and exported networks run under qemu's emulation of a user's process."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from zellige.cpu.isa import NEON
from zellige.cpu.kernels.kernel import Kernel, emit_module
from zellige.cpu.toolchain import compile_ir

COMPILER, EMULATOR, SYSTEM = "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"
PACKAGES = "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
PAGE = 4096

missing = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
needs_emulator = pytest.mark.skipif(bool(missing), reason=(
    f"AArch64 code is NOT TESTED: {' and '.join(missing)} not found; install them with `apt-get install {PACKAGES}`"))


def build(output: Path, *arguments: str | Path) -> Path:
    """Call the cross compiler; returns its output."""
    subprocess.run([COMPILER, "-O1", "-o", output, *arguments], check=True)
    return output


def emulate(program: Path, content: bytes = b"") -> bytes:
    """Run a program to its end: what it writes for what it reads."""
    return subprocess.run([EMULATOR, "-L", SYSTEM, program], input=content, stdout=subprocess.PIPE, check=True, timeout=60).stdout


@dataclass(frozen=True)
class Memory:
    """Bytes for a kernel, ``distance`` bytes into which its slot points; they end or begin at a page that can't be touched."""

    content: np.ndarray
    distance: int
    at_end: bool


class KernelServer:
    """A process that runs kernels; a new one takes its place after a kernel has crashed it."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="zellige-emulator-"))
        self._program = build(self._directory / "emulated", Path(__file__).with_name("emulated.c"), "-ldl")
        self._libraries: dict[Kernel, Path] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, kernel: Kernel, slots: Sequence[Memory | int], ranges: Sequence[tuple[int, int]]) -> None:
        """Run ranges of items one after another; memory is changed in place as the kernel changes it."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(self._request(kernel, slots, ranges))
        process.stdin.flush()
        for slot in slots:
            if isinstance(slot, Memory):
                answer = process.stdout.read(slot.content.nbytes)
                if len(answer) < slot.content.nbytes:
                    self._process = None
                    pytest.fail(f"{kernel} crashed on {NEON.name}, status {process.wait()}")
                slot.content[...] = np.frombuffer(answer, np.uint8)

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
        shutil.rmtree(self._directory)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [EMULATOR, "-L", SYSTEM, str(self._program)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _request(self, kernel: Kernel, slots: Sequence[Memory | int], ranges: Sequence[tuple[int, int]]) -> bytes:
        path, symbol = str(self._library(kernel)).encode(), kernel.symbol.encode()
        parts = [_words(len(path), len(symbol)), path, symbol, _words(len(slots))]
        for slot in slots:
            if isinstance(slot, Memory):
                parts += [_words(1, slot.content.nbytes, slot.distance, slot.at_end), slot.content.tobytes()]
            else:
                parts.append(_words(0, slot, 0, 0))
        parts.append(_words(len(ranges), *(end for pair in ranges for end in pair)))
        return b"".join(parts)

    def _library(self, kernel: Kernel) -> Path:
        if kernel not in self._libraries:
            image = self._directory / f"{kernel.symbol}.o"
            image.write_bytes(compile_ir(emit_module([kernel], NEON), NEON, native=False))
            self._libraries[kernel] = build(image.with_suffix(".so"), "-shared", image)
        return self._libraries[kernel]


def _words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


@functools.cache
def kernel_server() -> KernelServer:
    """One server for all tests of a run."""
    return KernelServer()
