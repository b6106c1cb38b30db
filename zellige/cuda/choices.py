"""What was chosen for a layer on a GPU, kept on disk: timing it again would choose the same.

One small file of JSON for each choice, in ``$ZELLIGE_CACHE/choices`` (by default ``~/.cache/zellige/choices``). Whoever can write
there decides which kernels run. So the directory must belong to this user and be writable by nobody else; a file is read only if
the same holds for it, and believed only if it says what it should.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zellige.cuda.config import Config
from zellige.errors import CacheError, ZelligeError
from zellige.pack.atomic import write_atomically

VARIABLE = "ZELLIGE_CACHE"
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Choice:
    """The way that was fastest: ``dense``, or the name of a way to cut the weight with its ``config``; and the times of both."""

    way: str
    config: Config | None
    seconds: float
    dense_seconds: float

    def to_json(self) -> dict[str, object]:
        return {"way": self.way, "config": self.config and self.config.to_json(), "seconds": self.seconds,
                "dense_seconds": self.dense_seconds}

    @classmethod
    def from_json(cls, found: object) -> Choice | None:
        """None if this is no choice."""
        if not isinstance(found, dict) or not isinstance(found.get("way"), str):
            return None
        seconds: Any = found.get("seconds")
        dense: Any = found.get("dense_seconds")
        config = found.get("config")
        if not (_is_time(seconds) and _is_time(dense)):
            return None
        if config is None:
            return cls(found["way"], None, seconds, dense)
        kinds = {field.name: type(field.default) for field in fields(Config)}
        if not isinstance(config, dict) or {name: type(value) for name, value in config.items()} != kinds:
            return None
        return cls(found["way"], Config(**config), seconds, dense)


class ChoiceCache:
    """Choices in one directory, made for its owner alone when it is first needed. ``CacheError`` if it can't be trusted."""

    def __init__(self, directory: str | os.PathLike[str] | None = None):
        home = Path(os.environ.get(VARIABLE) or "~/.cache/zellige") / "choices"
        self.directory = Path(os.path.expanduser(home if directory is None else directory))

    def get(self, key: str) -> Choice | None:
        """What was chosen; None if nothing was, or if what is there can't be believed."""
        path = self._checked() / self._name(key)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or _others_can_write(status):
                return None
            try:
                found = json.loads(file.read())
            except ValueError:
                return None
        return Choice.from_json(found) if isinstance(found, dict) and found.get("key") == key else None

    def put(self, key: str, choice: Choice) -> None:
        """Keep a choice. ``ZelligeError`` if the directory can't be written."""
        path = self._checked() / self._name(key)
        write_atomically(path, [json.dumps({"key": key, **choice.to_json()}, allow_nan=False).encode()])
        path.chmod(0o600)

    def _checked(self) -> Path:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(self.directory)
        except OSError as error:
            raise ZelligeError(f"the cache of choices {self.directory} can't be used: {error}; set {VARIABLE} to a directory "
                               "that can be written") from error
        if not stat.S_ISDIR(status.st_mode) or _others_can_write(status):
            raise CacheError(f"the cache of choices must be a directory that user {os.geteuid()} owns and nobody else can write, "
                             f"but {self.directory} belongs to user {status.st_uid} and has mode "
                             f"{stat.S_IMODE(status.st_mode):04o}. Remove it or `chmod 700` it, or set {VARIABLE} to another one")
        return self.directory

    @staticmethod
    def _name(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest() + ".json"


def _is_time(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _others_can_write(status: os.stat_result) -> bool:
    return status.st_uid != os.geteuid() or bool(status.st_mode & WRITABLE_BY_OTHERS)
