"""Machine code on a GPU: modules loaded once per device, kernels launched on PyTorch's current stream (graph capture included)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zellige.cuda.nvrtc import INSTALL, machine_code
from zellige.errors import CompileError

Argument = Tensor | ctypes.c_int | ctypes.c_longlong | None


def architecture(device: torch.device) -> str:
    """What to compile for: ``sm_80``, on Hopper ``sm_90a``. Raises ``CompileError`` for a GPU before compute capability 8.0."""
    if device.type != "cuda" or torch.version.cuda is None:
        raise CompileError(f"expected an NVIDIA GPU and PyTorch built for CUDA, got {device} with torch {torch.__version__}")
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        name = torch.cuda.get_device_name(device)
        raise CompileError(f"expected compute capability 8.0 or later, which has sparse tensor cores; {name} has {major}.{minor}; "
                           "run the layer dense, or with another pattern")  # fmt: skip
    return f"sm_{major}{minor}{'a' if major == 9 else ''}"


@cache
def loaded(source: str, defines: tuple[tuple[str, int], ...], shared_bytes: int, device: torch.device) -> Any:
    """The kernel of ``source``, loaded on ``device``, where its blocks may have that many bytes of shared memory."""
    driver = _driver()
    code = machine_code(source, architecture(device), defines)
    with torch.cuda.device(device):
        _enter_context(driver, device)
        module = _checked(driver.cuModuleLoadData(code.cubin), f"load {source}")
        kernel = _checked(driver.cuModuleGetFunction(module, b"tile_vector_wise"), f"find the kernel of {source}")
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(kernel, attribute, shared_bytes), f"give {source} {shared_bytes} bytes of shared memory")
    return kernel


def launch(kernel: Any, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Argument], device: torch.device) -> None:
    """Queue ``kernel`` with one-dimensional blocks; a tensor argument is its address, ``None`` a null pointer."""
    driver = _driver()
    values = [_value(argument) for argument in arguments]
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    with torch.cuda.device(device):
        _enter_context(driver, device)
        stream = torch.cuda.current_stream(device).cuda_stream
        shape = (blocks, 1, 1, threads, 1, 1, shared_bytes)
        _checked(driver.cuLaunchKernel(kernel, *shape, stream, ctypes.addressof(addresses), 0), f"launch {blocks} blocks")


def _value(argument: Argument) -> ctypes.c_int | ctypes.c_longlong | ctypes.c_void_p:
    if isinstance(argument, (ctypes.c_int, ctypes.c_longlong)):
        return argument
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise CompileError(f"CUDA C++ kernels need the driver's Python bindings: {error}; {INSTALL}") from error
    return driver


@cache
def _primary_context(device: torch.device) -> Any:
    driver = _driver()
    return _checked(driver.cuDevicePrimaryCtxRetain(device.index), f"open {device}")


def _enter_context(driver: Any, device: torch.device) -> None:
    """PyTorch's context, where this thread has none yet."""
    if not int(_checked(driver.cuCtxGetCurrent(), "find the current context")):
        _checked(driver.cuCtxSetCurrent(_primary_context(device)), f"enter {device}")


def _checked(answer: tuple, what: str) -> Any:
    status, *results = answer
    if int(status):
        raise CompileError(f"the CUDA driver could not {what}: {status.name}")
    return results[0] if results else None
