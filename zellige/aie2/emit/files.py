"""A program as a directory, and back from it alone.

::

    manifest.json     what lies in which file (manifest.py)
    design.mlir       tiles, buffers, locks, flows, cores and the sequence (design.py)
    kernels/          the C++ of the cores, which includes AMD's aie_api
    data/N.bin        what host buffer N holds before the network runs: packets with weights, constants
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from zellige.aie2.compiled import KERNELS, kernel_files
from zellige.aie2.emit.design import design, read_design
from zellige.aie2.emit.manifest import NAME, FileEntry, HostEntry, Manifest, read_file, read_manifest
from zellige.aie2.program import HostBuffer, Program
from zellige.errors import CompileError, FileFormatError

DESIGN = "design.mlir"


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Python's collector of cycles rests: of the millions of small objects that a design is, none are in one, and looking for some
    takes longer than all the rest."""
    resting = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not resting:
            gc.enable()


def check_directory(directory: Path) -> None:
    """Raises ``CompileError`` unless a directory is new or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CompileError(f"expected a new or an empty directory for the program's files, but there is something in {directory}")


def emit(program: Program, directory: Path, beside: Mapping[str, bytes] | None = None) -> Manifest:
    """Write a program into a new or empty directory: the same bytes for the same program. ``beside``: other files to be kept there.

    Raises ``CompileError`` if something else is there, or if the program can't be written.
    """
    check_directory(directory)
    with _no_collecting():
        files = {DESIGN: design(program).encode()}
    files |= {f"{KERNELS.name}/{path.relative_to(KERNELS).as_posix()}": path.read_bytes() for path in kernel_files()}
    files |= beside or {}
    host = []
    for at, one in enumerate(program.host):
        name = None if one.data is None else f"data/{at}.bin"
        if one.data is not None and name is not None:
            files[name] = np.ascontiguousarray(one.data).tobytes()
        host.append(HostEntry(one.name, one.size, name))
    manifest = Manifest(program.name, program.device, dict(program.inputs), dict(program.outputs), tuple(host),
                        {name: FileEntry.of(content) for name, content in files.items()})
    for name, content in {**files, NAME: manifest.text().encode()}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return manifest


def read(directory: Path) -> Program:
    """The program that was emitted into a directory, from its files alone.

    Raises ``FileFormatError`` with the file and the place that can't be right.
    """
    manifest = read_manifest(directory)
    content = {name: read_file(directory, name, entry) for name, entry in manifest.files.items()}
    path, where = directory / DESIGN, directory / NAME
    if DESIGN not in content:
        raise FileFormatError(f"{where}: files: expected {DESIGN}, got {', '.join(content)}")
    try:
        text = content[DESIGN].decode()
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: expected UTF-8, got something else at byte {error.start}") from None
    with _no_collecting():
        program = read_design(text, str(path))
    described = [(one.name, one.size) for one in manifest.host]
    for key, said, found in (("program", manifest.program, program.name), ("device", manifest.device, program.device),
                             ("host", described, [(one.name, one.size) for one in program.host])):
        if said != found:
            raise FileFormatError(f"{where}: {key}: expected what {DESIGN} has, {found!r}, got {said!r}")
    host = tuple(_host(where, entry, content) for entry in manifest.host)
    return replace(program, host=host, inputs=dict(manifest.inputs), outputs=dict(manifest.outputs))


def _host(where: Path, entry: HostEntry, content: dict[str, bytes]) -> HostBuffer:
    if entry.data is None:
        return HostBuffer(entry.name, entry.size)
    if len(content.get(entry.data, b"")) != entry.size:
        raise FileFormatError(f"{where}: host: expected {entry.size} bytes for {entry.name} in {entry.data}")
    return HostBuffer(entry.name, entry.size, np.frombuffer(content[entry.data], np.uint8))
