"""What was chosen for a layer on a GPU, kept on disk: timing it again would choose the same.

One small file of JSON for each choice, in ``$ZELLIGE_CACHE/choices`` (by default ``~/.cache/zellige/choices``). Whoever can write
there decides which kernels run, so the directory is its owner's alone (``pack/owned.py``); a file is believed only if it says
what it should.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, fields
from typing import Any

from zellige.cuda.kernels.config import Config
from zellige.errors import ZelligeError
from zellige.pack.owned import VARIABLE, OwnedDirectory, default_directory


@dataclass(frozen=True)
class Choice:
    """The way that was fastest: ``dense``, or the name of a way to cut the weight with its ``config``; and the times of both.

    Not kept, since the key says it or since it is of today alone: the ``size`` that it was timed with (tokens, or images, height
    and width); what ``failed`` in the race and how; and if nothing but dense was timed, why the others stayed ``untimed``.
    """

    way: str
    config: Config | None
    seconds: float
    dense_seconds: float
    failed: tuple[str, ...] = ()
    untimed: str = ""
    size: tuple[int, ...] = ()

    @property
    def remarks(self) -> str:
        """What was not timed or failed, to be said behind a time.

        >>> Choice("dense", None, 1.0, 1.0, failed=("columns 128x4w3s/16: OutOfMemoryError: no memory",)).remarks
        '; did not run: columns 128x4w3s/16: OutOfMemoryError: no memory'
        """
        return (f"; {self.untimed}" if self.untimed else "") + ("; did not run: " + ", ".join(self.failed) if self.failed else "")

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
        self.kept = OwnedDirectory(default_directory() / "choices" if directory is None else directory, "cache of choices")

    def get(self, key: str) -> Choice | None:
        """What was chosen; None if nothing was, or if what is there can't be believed."""
        try:
            found = json.loads(self.kept.read(self._name(key)) or b"null")
        except ValueError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        return Choice.from_json(found) if isinstance(found, dict) and found.get("key") == key else None

    def put(self, key: str, choice: Choice) -> None:
        """Keep a choice. ``ZelligeError`` if the directory can't be written."""
        try:
            self.kept.write(self._name(key), json.dumps({"key": key, **choice.to_json()}, allow_nan=False).encode())
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> ZelligeError:
        return ZelligeError(f"the cache of choices {self.kept.directory} can't be used: {error}; set {VARIABLE} to a directory "
                            "that can be written")

    @staticmethod
    def _name(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest() + ".json"


def _is_time(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0
