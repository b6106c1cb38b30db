"""The manifest of an emitted program: what lies in which file, and checksums by which a change is found, and where.

``manifest.json`` has ``format``, ``version``, ``program``, ``device``, ``inputs`` and ``outputs`` (values of the network → where in
host buffers they lie), ``host`` (name, size and, where a buffer has data, its file), ``files`` (size, SHA-256, and a CRC-32 of
every part of 16 KiB, which tells where a file was changed), and ``digests``, the SHA-256 of each of the other keys' values.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from zellige.errors import FileFormatError

NAME = "manifest.json"
KEYS = ("format", "version", "program", "device", "inputs", "outputs", "host", "files", "digests")
FORMAT, VERSION = "zellige aie2", 2
PART = 1 << 14
"""Bytes that one CRC is of."""


@dataclass(frozen=True)
class FileEntry:
    """What a file must be."""

    size: int
    sha256: str
    parts: tuple[int, ...]

    @staticmethod
    def of(content: bytes) -> FileEntry:
        parts = tuple(zlib.crc32(content[at : at + PART]) for at in range(0, len(content), PART))
        return FileEntry(len(content), hashlib.sha256(content).hexdigest(), parts)


@dataclass(frozen=True)
class HostEntry:
    """A host buffer, and the file with its data."""

    name: str
    size: int
    data: str | None


@dataclass(frozen=True)
class Manifest:
    program: str
    device: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    host: tuple[HostEntry, ...]
    files: Mapping[str, FileEntry]

    def text(self) -> str:
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        digests = {key: _digest(value) for key, value in content.items()}
        return json.dumps({**content, "digests": digests}, indent=1, ensure_ascii=False) + "\n"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a directory. Raises ``FileFormatError`` with the line or the key that is wrong."""
    path = directory / NAME
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise FileFormatError(f"{path}: expected the manifest of an emitted program: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: expected UTF-8, got something else at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise FileFormatError(f"{path}:{error.lineno}: expected JSON: {error.msg}") from None
    reader = _Reader(path)
    reader.object(content, KEYS, "the manifest")
    if content["format"] != FORMAT or content["version"] != VERSION:
        reader.refuse("format", f"{FORMAT!r}, version {VERSION}", (content["format"], content["version"]))
    found = Manifest(
        reader.of_type(content["program"], str, "program"), reader.of_type(content["device"], str, "device"),
        reader.strings(content["inputs"], "inputs"), reader.strings(content["outputs"], "outputs"),
        tuple(reader.host(one, f"host[{at}]") for at, one in enumerate(reader.of_type(content["host"], list, "host"))),
        {name: reader.file(one, f"files.{name}") for name, one in reader.of_type(content["files"], dict, "files").items()})
    digests = content.pop("digests")
    reader.object(digests, KEYS[:-1], "digests")
    for key, value in content.items():
        if digests[key] != _digest(value):
            reader.refuse(key, f"what was written, with SHA-256 {digests[key]}", _digest(value))
    if text != found.text():
        lines = zip(text.split("\n"), found.text().split("\n"), strict=False)
        line = next((at for at, (came, made) in enumerate(lines, 1) if came != made), 1)
        raise FileFormatError(f"{path}:{line}: the manifest isn't laid out as it was written")
    return found


class _Reader:
    """Reads parts of a manifest, each of its own type."""

    def __init__(self, path: Path):
        self.path = path

    def refuse(self, key: str, expected: object, came: object) -> NoReturn:
        raise FileFormatError(f"{self.path}: {key}: expected {expected}, got {came!r}")

    def of_type(self, value: Any, kind: type, key: str) -> Any:
        if type(value) is not kind:
            self.refuse(key, f"a value of type {kind.__name__}", value)
        return value

    def object(self, value: Any, keys: tuple[str, ...], key: str) -> None:
        if tuple(self.of_type(value, dict, key)) != keys:
            self.refuse(key, f"the keys {', '.join(keys)}", ", ".join(value))

    def strings(self, value: Any, key: str) -> dict[str, str]:
        return {name: self.of_type(one, str, f"{key}.{name}") for name, one in self.of_type(value, dict, key).items()}

    def host(self, value: Any, key: str) -> HostEntry:
        self.object(value, ("name", "size", "data"), key)
        data = value["data"]
        return HostEntry(self.of_type(value["name"], str, f"{key}.name"), self.of_type(value["size"], int, f"{key}.size"),
                         data if data is None else self.of_type(data, str, f"{key}.data"))

    def file(self, value: Any, key: str) -> FileEntry:
        self.object(value, ("size", "sha256", "parts"), key)
        parts = tuple(self.of_type(one, int, f"{key}.parts") for one in self.of_type(value["parts"], list, f"{key}.parts"))
        size, digest = self.of_type(value["size"], int, f"{key}.size"), self.of_type(value["sha256"], str, f"{key}.sha256")
        return FileEntry(size, digest, parts)


def read_file(directory: Path, name: str, entry: FileEntry) -> bytes:
    """A file of an emitted program. Raises ``FileFormatError`` with the bytes that aren't those that were written."""
    path = directory / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path}: expected a file of {entry.size} bytes: {error.strerror}") from None
    came = FileEntry.of(content)
    if came == entry:
        return content
    pairs = zip(came.parts, entry.parts, strict=False)
    part = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(came.parts), len(entry.parts)))
    begin, end = part * PART, min((part + 1) * PART, max(entry.size, len(content)))
    lines = "" if b"\0" in content else f" (from line {content[:begin].count(10) + 1} on)"
    raise FileFormatError(f"{path}: bytes {begin} to {end - 1}{lines} aren't those that were written; expected {entry.size} bytes "
                          f"with SHA-256 {entry.sha256[:16]}…, got {len(content)}")
