"""State dicts in files: safetensors, or what ``torch.save`` wrote, read with ``weights_only``."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zellige.errors import FileFormatError, ZelligeError


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a state dict into the model; every name and shape must fit, or nothing is loaded."""
    state = _read(path)
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise ZelligeError(
            f"{path} does not fit the model: {len(missing)} tensors are missing{_first(missing)}, "
            f"{len(unknown)} are unknown{_first(unknown)}"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ZelligeError(
                f"{path} does not fit the model: {name} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(own[name].shape)}"
            )
    model.load_state_dict(state)


def save_weights(model: torch.nn.Module, path: Path, notes: dict[str, str] | None = None) -> int:
    """Write the state dict as safetensors, whole or not at all; returns the bytes written.

    Tensors that share memory are written once under each of their names.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        try:
            save_file(state, temporary, metadata=notes)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except (OSError, SafetensorError) as error:
        raise ZelligeError(f"{path} can't be written: {error}") from error
    return path.stat().st_size


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ZelligeError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise FileFormatError(f"{path} can't be read as weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FileFormatError(f"{path} holds no state dict: expected names with tensors, as model.state_dict() gives")
    return state


def _first(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""
