"""Machine code on a GPU: modules loaded once per device, kernels launched on PyTorch's current stream (graph capture included)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zellige.cuda.kernels.cubins import Request, cubin
from zellige.cuda.kernels.nvrtc import INSTALL
from zellige.errors import CompileError


@dataclass(frozen=True)
class Boxes:
    """A tensor map (cuTensorMapEncodeTiled) of a matrix of 16-bit or 8-bit numbers, rows a multiple of 16 bytes apart: boxes of
    ``rows`` × 64 or 128 columns, 128 bytes a row and swizzled over 8 rows in shared memory; what lies outside is zero."""

    matrix: Tensor
    rows: int


@dataclass(frozen=True)
class PixelBoxes:
    """A tensor map in im2col mode (cuTensorMapEncodeIm2col) of ``images`` × height × width × channels, 16-bit numbers, pixels
    ``pitch`` numbers apart, a multiple of 8: boxes of ``count`` pixels × 64 channels, swizzled as those of ``Boxes``; what lies
    outside is zero.

    A box begins at a pixel between the corners and goes on in steps of ``strides``: from the end of a row at the beginning of the
    next, from the last row of an image in the next image. Corners are how far the first of these pixels is from an image's first,
    and the last from its last, at most. All pairs are (down, right).
    """

    images: Tensor
    pitch: int
    count: int
    lower: tuple[int, int]
    upper: tuple[int, int]
    strides: tuple[int, int]


Argument = Tensor | Boxes | PixelBoxes | ctypes.c_int | ctypes.c_longlong | None


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
def loaded(source: str, name: str, defines: tuple[tuple[str, int], ...], shared_bytes: int, device: torch.device) -> Any:
    """The kernel ``name`` of ``source``, loaded on ``device``, where its blocks may have that many bytes of shared memory."""
    driver = _driver()
    code = cubin(Request(source, architecture(device), defines))
    with torch.cuda.device(device):
        _enter_context(driver, device)
        module = _checked(driver.cuModuleLoadData(code), f"load {source}")
        kernel = _checked(driver.cuModuleGetFunction(module, name.encode()), f"find the kernel of {source}")
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(kernel, attribute, shared_bytes), f"give {source} {shared_bytes} bytes of shared memory")
    return kernel


def launch(kernel: Any, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Argument], device: torch.device) -> None:
    """Queue ``kernel`` with one-dimensional blocks; a tensor argument is its address, ``None`` a null pointer."""
    driver = _driver()
    with torch.cuda.device(device):
        _enter_context(driver, device)
        values = [_value(driver, argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = torch.cuda.current_stream(device).cuda_stream
        shape = (blocks, 1, 1, threads, 1, 1, shared_bytes)
        _checked(driver.cuLaunchKernel(kernel, *shape, stream, ctypes.addressof(addresses), 0), f"launch {blocks} blocks")


def _value(driver: Any, argument: Argument) -> Any:
    """What the kernel's parameter holds, as something that has an address."""
    if isinstance(argument, (ctypes.c_int, ctypes.c_longlong)):
        return argument
    if isinstance(argument, Boxes):
        return _tensor_map(driver, argument)
    if isinstance(argument, PixelBoxes):
        return _pixel_map(driver, argument)
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())


def _tensor_map(driver: Any, boxes: Boxes) -> ctypes.Array[ctypes.c_uint64]:
    matrix = boxes.matrix
    long, short = driver.cuuint64_t, driver.cuuint32_t
    return _words(driver.cuTensorMapEncodeTiled(
        _kind(driver, matrix), 2, matrix.data_ptr(), [long(matrix.shape[1]), long(matrix.shape[0])],
        [long(matrix.itemsize * matrix.stride(0))], [short(128 // matrix.itemsize), short(boxes.rows)], [short(1), short(1)],
        *_layout(driver)), f"map a matrix of {list(matrix.shape)}")


def _pixel_map(driver: Any, boxes: PixelBoxes) -> ctypes.Array[ctypes.c_uint64]:
    images, height, width, channels = boxes.images.shape
    pitch, (down, right) = boxes.pitch * boxes.images.itemsize, boxes.strides
    long, short = driver.cuuint64_t, driver.cuuint32_t
    return _words(driver.cuTensorMapEncodeIm2col(
        _kind(driver, boxes.images), 4, boxes.images.data_ptr(), [long(channels), long(width), long(height), long(images)],
        [long(pitch), long(pitch * width), long(pitch * width * height)], list(boxes.lower[::-1]), list(boxes.upper[::-1]), 64,
        boxes.count, [short(1), short(right), short(down), short(1)], *_layout(driver)), f"map {list(boxes.images.shape)}")


def _kind(driver: Any, tensor: Tensor) -> Any:
    name = "UINT8" if tensor.itemsize == 1 else str(tensor.dtype).removeprefix("torch.").upper()
    return getattr(driver.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{name}")


def _layout(driver: Any) -> tuple[Any, ...]:
    """How boxes of all kinds lie in shared memory."""
    return (driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE, driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)


def _words(answer: tuple, what: str) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * 16)(*(int(word) for word in _checked(answer, what).opaque))


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
