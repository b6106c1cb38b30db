"""State dicts in files: safetensors, or what ``torch.save`` wrote, read with ``weights_only``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from zellige.errors import FileFormatError, ZelligeError, in_one_line
from zellige.pack.archive import altered_member
from zellige.pack.atomic import write_atomically

SAFETENSORS = ".safetensors"
LENGTH = 8  # bytes that tell how long a file's header is, and what its end is aligned to
ORIGIN = "weights"
"""The note in a safetensors file that tells where its weights come from."""


def load_weights(model: torch.nn.Module, path: Path) -> str:
    """Load a state dict into the model; every name and shape must fit, or nothing is loaded.

    Returns where the weights come from: the file, and what the file itself says of their origin.
    """
    state = _read(path)
    check_savable(model)
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
    origin = _notes(path).get(ORIGIN)
    return f"from {path.name}" + (f", which were {origin}" if origin else "")


def check_savable(model: torch.nn.Module) -> None:
    """Refuse a model whose state dict holds more than tensors, which safetensors can't: before any work is done.

    Raises:
        ZelligeError: a module keeps some state of another kind (``get_extra_state``).
    """
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise ZelligeError(f"the model's state dict has a {type(value).__name__} under {name!r}, and files of weights hold "
                               "tensors alone: keep it as a buffer, or prune and fine-tune the model in Python, and save it there")


def save_weights(model: torch.nn.Module, path: Path, notes: dict[str, str] | None = None) -> int:
    """Write the state dict as safetensors, whole or not at all; returns the bytes written. Equal input gives equal bytes.

    Tensors that share memory are written under each of their names.
    """
    check_savable(model)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    parts = _with_notes_in_order(save(state, metadata=notes))
    write_atomically(path, parts)
    return sum(map(len, parts))


def _with_notes_in_order(content: bytes) -> list[bytes | memoryview]:
    """The library writes notes in an order that changes from process to process; the header is written anew with them sorted."""
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    header = json.loads(content[LENGTH:end])
    header |= {name: dict(sorted(notes.items())) for name, notes in header.items() if name == "__metadata__"}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH)
    return [len(text).to_bytes(LENGTH, "little"), text, memoryview(content)[end:]]


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ZelligeError(f"there is no weights file {path}")
    if path.suffix == SAFETENSORS:
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise FileFormatError(f"{path} can't be read as weights: {in_one_line(error)}") from error
    if altered := altered_member(path):
        raise FileFormatError(f"{path} can't be read as weights: {altered} in it doesn't have its checksum any more; the file was "
                              "damaged after it was written (or written without checksums): copy it, or save it, again")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever a file leads it to; what it then advises is not safe
        raise FileFormatError(f"{path} can't be read as weights: expected a {SAFETENSORS} file, or a state dict that torch.save "
                              f"wrote, with nothing but tensors in it") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FileFormatError(f"{path} holds no state dict: expected names with tensors, as model.state_dict() gives")
    return state


def _notes(path: Path) -> dict[str, str]:
    if path.suffix != SAFETENSORS:
        return {}
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _first(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""
