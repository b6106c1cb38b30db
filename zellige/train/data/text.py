"""Files as bytes: what precedes a byte is the input, the byte itself is the label.

Files are kept for validation by a hash of what they hold, about one of ten: the same ones wherever they lie, and whatever lies
beside them. Files with the same contents count once. A single file gives its last tenth.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from zellige.errors import TrainingError
from zellige.train.data.samples import Data, Samples, seed_of

VALUES = 256


@dataclass(frozen=True)
class Windows(Samples):
    """Windows of ``context`` bytes over a long string of them; varied by moving each by less than its length."""

    text: torch.Tensor
    context: int

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.context

    def batch(self, numbers: Sequence[int], seed: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.tensor([self._start(number, seed) for number in numbers])
        windows = self.text[starts[:, None] + torch.arange(self.context + 1)].long()
        return windows[:, :-1], windows[:, 1:]

    def _start(self, number: int, seed: int | None) -> int:
        moved = 0 if seed is None else seed_of(seed, number) % self.context
        return min(number * self.context + moved, len(self.text) - self.context - 1)


@dataclass(frozen=True)
class Text:
    """Options of ``text:PATH…``: bytes that a model sees at once, and the share of files that is kept for validation."""

    context: int = 128
    validation: float = 0.1

    def load(self, path: str) -> Data:
        """Files, directories with all files in them, or patterns such as ``lib/**/*.py``, with ``:`` between them.

        Raises:
            TrainingError: nothing is there, or too little.
        """
        if isinstance(self.context, bool) or not isinstance(self.context, int) or self.context < 1:
            raise TrainingError(f"context must be a whole number of bytes, at least 1; not {self.context!r}")
        contents = _contents(path)
        if len(contents) == 1:
            cut = int(len(contents[0]) * (1 - self.validation))
            parts = [contents[0][:cut], contents[0][cut:]]
        else:
            kept = [_share(content) < self.validation for content in contents]
            if all(kept) or not any(kept):  # few files: the last one by hash
                kept = [at == len(contents) - 1 for at in range(len(contents))]
            parts = [b"\n".join(content for content, is_kept in zip(contents, kept, strict=True) if is_kept == wanted)
                     for wanted in (False, True)]
        for part, name in zip(parts, ("train on", "validate by"), strict=True):
            if len(part) <= self.context:
                raise TrainingError(f"text:{path} leaves {len(part)} bytes to {name}, and one window takes {self.context + 1}")
        training, validation = (Windows(torch.frombuffer(bytearray(part), dtype=torch.uint8), self.context) for part in parts)
        return Data(f"text:{path}", training, validation, bits=True)


def _contents(path: str) -> list[bytes]:
    """What the files hold, in the order of its hashes, each once."""
    found: dict[str, bytes] = {}
    for name in filter(None, path.split(os.pathsep)):
        files = [name]
        if os.path.isdir(name):
            files = [str(file) for file in Path(name).rglob("*")]
        elif not os.path.exists(name):
            files = glob.glob(name, recursive=True)
        files = [file for file in files if os.path.isfile(file)]
        if not files:
            raise TrainingError(f"text:{path}: there is no file {name}")
        for file in files:
            try:
                content = Path(file).read_bytes()
            except OSError as error:
                raise TrainingError(f"text:{path}: {file} can't be read: {error.strerror}") from error
            found[hashlib.sha256(content).hexdigest()] = content
    if not found:
        raise TrainingError("text: needs a path behind the colon, such as text:/usr/share/doc")
    return [found[digest] for digest in sorted(found)]


def _share(content: bytes) -> float:
    """A number from 0 to 1 that depends on nothing but the contents."""
    return int.from_bytes(hashlib.sha256(b"split" + content).digest()[:6], "big") / 2**48
