"""The network's inputs and outputs as the caller has them: arrays of numpy or tensors of PyTorch, and their addresses.

PyTorch is used where it is loaded already, and never imported: whoever hands in a tensor has it.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from zellige.errors import InputError

F32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Port:
    """One input or output: its name and shape, and the slots of the program that take its address, or one so many bytes in."""

    name: str
    shape: tuple[int, ...]
    slots: tuple[tuple[int, int], ...]

    def take(self, value: Any) -> tuple[Any, int]:
        """A value of the caller in row-major order (copied only if it lies otherwise) and its address."""
        if isinstance(value, np.ndarray):
            if value.shape != self.shape or value.dtype != F32:
                raise self._mismatch(value.shape, value.dtype)
            array = value if value.flags.carray else np.require(value, requirements=("C", "ALIGNED"))
            return array, address_of(array)
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            raise InputError(f"input {self.name}: expected a numpy array or a torch tensor, got {type(value).__name__}")
        return self._take_tensor(value, torch)

    def make(self, torch: ModuleType | None) -> tuple[Any, int]:
        """A new tensor, or array if there is no ``torch``, for a result, and its address."""
        if torch is not None:
            tensor = torch.empty(self.shape, dtype=torch.float32, device="cpu")
            return tensor, tensor.data_ptr()
        array = np.empty(self.shape, F32)
        return array, address_of(array)

    def _take_tensor(self, value: Any, torch: ModuleType) -> tuple[Any, int]:
        if not value.is_cpu or value.layout is not torch.strided or value.is_nested:
            kind = "a nested one" if value.is_nested else f"one of layout {value.layout}"
            raise InputError(f"input {self.name}: expected a dense tensor on the CPU, got {kind} on {value.device}")
        if value.shape != self.shape or value.dtype is not torch.float32:
            raise self._mismatch(tuple(value.shape), value.dtype)
        if value.is_neg() or not value.is_contiguous():
            value = value.detach().resolve_neg().contiguous()
        try:
            address = value.data_ptr()
        except RuntimeError as error:
            raise self._without_memory(value) from error
        if not address:
            raise self._without_memory(value)
        return value, address

    def _mismatch(self, shape: tuple[int, ...], dtype: Any) -> InputError:
        came = f"{str(dtype).removeprefix('torch.')} of shape {list(shape)}"
        return InputError(f"input {self.name}: expected float32 of shape {list(self.shape)}, for which the engine was compiled; "
                          f"got {came}. Convert the input, or compile for this shape")

    def _without_memory(self, value: Any) -> InputError:
        return InputError(f"input {self.name}: expected a tensor whose numbers lie in memory, got a {type(value).__name__} that "
                          "has none: it is being traced or transformed, or its storage was given back")


def torch_of(values: Any) -> ModuleType | None:
    """PyTorch, if one of the values is its tensor."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and any(isinstance(value, torch.Tensor) for value in values) else None


def address_of(array: np.ndarray) -> int:
    """Where a contiguous array begins. Python's way to it is much faster than numpy's, but closed to read-only arrays."""
    if array.flags.writeable:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    return array.ctypes.data
