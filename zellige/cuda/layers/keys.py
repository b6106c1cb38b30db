"""What a choice depends on, as the parts of a key: the machine, the kernels as they are today, and the work of every way.

A choice that was kept is believed only under the same key, so whatever changes a time belongs in it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import numpy as np
import torch
import triton

from zellige.cuda.tiling.device_tiles import in_eights
from zellige.cuda.tiling.tiles import Tiles

SOURCES = ("kernels", "operators", "tiling")
"""The folders of the cuda room that say what a launch does."""

SUFFIXES = (".py", ".cu", ".cuh")


def machine(device: torch.device) -> tuple[object, ...]:
    """The GPU, and the versions of all that runs on it."""
    return (torch.cuda.get_device_name(device), torch.__version__, triton.__version__, torch.backends.cudnn.version(),
            digest_of_sources())


def work_of(tiles: Tiles) -> tuple[object, ...]:
    """What a cut weight asks of a kernel: whether 16 bytes of a result are written at a time, steps, and how these are spread over
    the tiles."""
    return in_eights(tiles), tiles.steps, hashlib.sha256(tiles.starts.tobytes()).hexdigest()[:16]


def about(tiles: Tiles, full: int, parts: int) -> tuple[object, ...]:
    """The same to the nearest of so many ``parts`` of the ``full`` steps of a dense tile: quartiles instead of all tiles.

    >>> from zellige.cuda.tiling.tiles import cut_tiles
    >>> weight = np.kron(np.eye(2), np.ones((8, 4)))
    >>> about(cut_tiles(weight, tile=8, group=1, step=4), full=2, parts=8)
    (True, (4, 4, 4, 4, 4))
    """
    lengths = np.diff(tiles.starts)
    quartiles = np.quantile(lengths, (0, 0.25, 0.5, 0.75, 1), method="nearest")
    return in_eights(tiles), tuple(round(parts * int(steps) / full) for steps in quartiles)


@cache
def digest_of_sources() -> str:
    """Of the text of everything in ``SOURCES``."""
    room = files("zellige.cuda")
    found = hashlib.sha256()
    for folder in SOURCES:
        for entry in sorted(room.joinpath(folder).iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(SUFFIXES):
                text = entry.read_bytes()
                found.update(f"{folder}/{entry.name} {len(text)}\n".encode() + text)
    return found.hexdigest()[:16]
