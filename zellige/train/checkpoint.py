"""Where a run stands, in one file that is replaced as a whole.

A process may be killed, or a disk fill up, at any moment: the file then holds what it held before. It is read without running
anything that is in it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zellige.errors import TrainingError
from zellige.pack.archive import altered_member
from zellige.pack.atomic import write_atomically

VERSION = 2
FREE = frozenset({"workers", "checkpoint_every"})
"""What may change in a recipe when a run is taken up again: the weights don't depend on it."""


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write plain data and tensors, whole or not at all.

    Raises:
        ZelligeError: there is no place for it; an earlier file is unchanged.
    """
    file = io.BytesIO()
    torch.save({"version": VERSION, **state}, file)
    write_atomically(path, [file.getbuffer()])


def load_checkpoint(path: str | os.PathLike[str], recipe: Mapping[str, Any], parts: frozenset[str]) -> dict[str, Any]:
    """What ``save_checkpoint`` wrote in a run of the same recipe; all of the ``parts`` are in it.

    Raises:
        TrainingError: there is no such file, it is none, it was damaged, or it belongs to another recipe.
    """
    if not Path(path).is_file():
        raise TrainingError(f"there is no checkpoint {os.fspath(path)} to go on from")
    if altered := altered_member(path):
        raise TrainingError(f"{os.fspath(path)} was damaged after it was written: {altered} in it doesn't have its checksum any "
                            "more; go on from a copy, or begin anew")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever a file leads it to
        raise TrainingError(f"{os.fspath(path)} can't be read as a checkpoint of a run") from error
    if not isinstance(state, dict) or not isinstance(version := state.get("version"), int) or version != VERSION:
        raise TrainingError(f"{os.fspath(path)} is no checkpoint of this version")
    if not state.keys() >= parts | {"recipe"} or not isinstance(state["recipe"], dict):
        raise TrainingError(f"{os.fspath(path)} is no checkpoint of a run: parts are missing")
    changed = [name for name in recipe if name not in FREE and recipe[name] != state["recipe"].get(name)]
    if changed:
        raise TrainingError(f"{os.fspath(path)} belongs to a run of another recipe: {', '.join(changed)} changed; take the same "
                            "recipe, or begin anew in another place")
    return state


def fingerprint(model: nn.Module) -> str:
    """A digest of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
