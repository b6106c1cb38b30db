"""The product of a weight in tiles with activations, as an operator of PyTorch's: ``zellige::tile_product``.

The operator takes tensors and plain numbers alone, knows its result's shape without running, and allocates what it needs, so
that ``torch.compile``, ``torch.export`` and CUDA graphs pass through it. It has no backward pass: it is for inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from zellige.cuda.config import REGISTERS, Config, default_config, shared_limit
from zellige.cuda.kernel import tile_product
from zellige.cuda.pieces import FIELDS, plan_pieces
from zellige.cuda.tiles import Tiles
from zellige.errors import CompileError, InputError

ACTIVATIONS = ("none", "relu", "gelu", "silu")
DTYPES = (torch.bfloat16, torch.float16)
OLDEST = 80
"""The compute capability of the first GPUs with bfloat16 tensor cores and asynchronous copies."""


@dataclass(frozen=True)
class DeviceTiles:
    """``Tiles`` as tensors on a device: values (steps · tile × step), units, rows; and numbers that the host must know."""

    shape: tuple[int, int]
    tile: int
    step: int
    unit: int
    starts: tuple[int, ...]
    values: torch.Tensor
    units: torch.Tensor
    rows: torch.Tensor

    @classmethod
    def upload(cls, tiles: Tiles, device: torch.device | str, dtype: torch.dtype) -> DeviceTiles:
        """``CompileError`` if tensor cores can't multiply the tiles: they want bf16 or fp16, powers of two, 16 or more."""
        if dtype not in DTYPES:
            raise CompileError(f"tiles are multiplied in bfloat16 or float16, not in {dtype}; convert the model first")
        for name, size, least in (("tile", tiles.tile, 16), ("step", tiles.step, 16), ("unit", tiles.unit, 1)):
            if size < least or size & (size - 1):
                raise CompileError(f"tensor cores want a {name} that is a power of two, {least} or more, not {size}")
        slack = tiles.step // tiles.unit  # the kernel loads the columns of one step more than there are
        values = torch.from_numpy(tiles.values).to(dtype).reshape(-1, tiles.step)
        return cls(tiles.shape, tiles.tile, tiles.step, tiles.unit, tuple(tiles.starts.tolist()), values.to(device),
                   torch.nn.functional.pad(torch.from_numpy(tiles.units), (0, slack)).to(device),
                   torch.from_numpy(tiles.rows).to(device))


def multiply(weight: DeviceTiles, x: torch.Tensor, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None,
             activation: str = "none", x_features: bool = False, y_features: bool = False,
             config: Config | None = None) -> torch.Tensor:
    """activation(W · Xᵀ + bias + residual), transposed as asked.

    ``x``: tokens × columns, or columns × tokens with ``x_features``; the result (and ``residual``): tokens × rows, or
    rows × tokens with ``y_features``; ``bias``: rows. ``InputError`` where a shape, dtype, device or stride is another.
    """
    numbers = [] if config is None else [config.tokens, config.warps, config.stages, config.width, int(config.boxes)]
    return torch.ops.zellige.tile_product(x, weight.values, weight.units, weight.rows, bias, residual, list(weight.starts),
                                          list(weight.shape), weight.unit, activation, x_features, y_features, numbers)


@torch.library.custom_op("zellige::tile_product", mutates_args=())
def _product(x: torch.Tensor, values: torch.Tensor, units: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None,
             residual: torch.Tensor | None, starts: Sequence[int], shape: Sequence[int], unit: int, activation: str,
             x_features: bool, y_features: bool, config: Sequence[int]) -> torch.Tensor:
    weight = DeviceTiles((shape[0], shape[1]), rows.numel() // (len(starts) - 1), values.shape[1], unit, tuple(starts),
                         values, units, rows)
    check(weight, x, bias, residual, activation, x_features, y_features)
    y = x.new_empty(_result_shape(x, shape, x_features, y_features))
    launch(weight, x, y, bias, residual, activation, x_features, y_features,
           Config(config[0], config[1], config[2], config[3], bool(config[4])) if config else None)
    return y


@_product.register_fake
def _(x: torch.Tensor, values: torch.Tensor, units: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None,
      residual: torch.Tensor | None, starts: Sequence[int], shape: Sequence[int], unit: int, activation: str,
      x_features: bool, y_features: bool, config: Sequence[int]) -> torch.Tensor:
    return x.new_empty(_result_shape(x, shape, x_features, y_features))


def _result_shape(x: torch.Tensor, shape: Sequence[int], x_features: bool, y_features: bool) -> tuple[int, int]:
    tokens = x.shape[1] if x_features else x.shape[0]
    return (shape[0], tokens) if y_features else (tokens, shape[0])


def launch(weight: DeviceTiles, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
           activation: str, x_features: bool, y_features: bool, config: Config | None = None) -> None:
    """Write the product into ``y``. Nothing is checked; without ``config`` the default one is taken."""
    tokens = x.shape[1] if x_features else x.shape[0]
    if not tokens:
        return
    tile, step = weight.tile, weight.step
    config = config or default_config(tile, step, tokens)
    blocks = triton.cdiv(tokens, config.tokens)
    pieces, parts = pieces_for(weight, tokens, config)
    partials = x.new_empty(parts * blocks * tile * config.tokens, dtype=torch.float32)
    tickets = x.new_zeros(parts * blocks, dtype=torch.int32) if parts else weight.units  # never read without parts
    x_boxes = config.boxes and weight.unit == step and _boxable(x)
    w_boxes = config.boxes and len(weight.values) > 0
    box = [step, config.tokens] if x_features else [config.tokens, step]
    tile_product[(len(pieces) * blocks,)](
        TensorDescriptor.from_tensor(x, box) if x_boxes else x,
        TensorDescriptor.from_tensor(weight.values, [tile, step]) if w_boxes else weight.values,
        weight.units, weight.rows, pieces, y, bias, residual, partials, tickets,
        tokens, weight.shape[1], len(pieces), x.stride(0), y.stride(0), 0 if residual is None else residual.stride(0),
        TILE=tile, STEP=step, UNIT=weight.unit, TOKENS=config.tokens, X_FEATURES=x_features, Y_FEATURES=y_features,
        X_BOXES=x_boxes, W_BOXES=w_boxes, RAGGED=bool(weight.shape[1] % weight.unit), SPLIT=parts > 0, WIDTH=config.width,
        ACTIVATION=activation, BIAS=bias is not None, RESIDUAL=residual is not None,
        num_warps=config.warps, num_stages=config.stages)


def pieces_for(weight: DeviceTiles, tokens: int, config: Config | None = None) -> tuple[torch.Tensor, int]:
    """The plan of a launch on the weight's device, and how many parts leave their sums in memory. Whoever captures the launch in a
    graph keeps the plan alive: the graph knows its address alone."""
    config = config or default_config(weight.tile, weight.step, tokens)
    device = weight.values.device
    places = _places(device, config, weight.tile, weight.step)
    return _pieces_on(weight.starts, triton.cdiv(tokens, config.tokens), places, device)


def check(weight: DeviceTiles, x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, activation: str,
          x_features: bool, y_features: bool) -> None:
    """``InputError`` if a tensor has another shape, dtype, device or stride than the product takes, or the GPU is too old."""
    rows, columns = weight.shape
    form = f"{columns} columns × tokens" if x_features else f"tokens × {columns} columns"
    if x.ndim != 2 or x.shape[0 if x_features else 1] != columns:
        raise InputError(f"the product wants x as {form}, not {list(x.shape)}")
    result = _result_shape(x, weight.shape, x_features, y_features)
    dtype, device = weight.values.dtype, weight.values.device
    for name, tensor, wanted in (("x", x, tuple(x.shape)), ("bias", bias, (rows,)), ("residual", residual, result)):
        if tensor is None:
            continue
        if tuple(tensor.shape) != wanted or tensor.dtype != dtype or tensor.device != device:
            raise InputError(f"{name} must be {list(wanted)} of {dtype} on {device}, "
                             f"not {list(tensor.shape)} of {tensor.dtype} on {tensor.device}")
        if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise InputError(f"the last dimension of {name} must lie together in memory (stride 1, not {tensor.stride(-1)}); "
                             "call contiguous() on it first")
    if activation not in ACTIVATIONS:
        raise InputError(f"the activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    if device.type == "cuda" and _capability(device) < OLDEST:
        raise InputError(f"tile products want a GPU of compute capability {OLDEST / 10} or later; {device} has "
                         f"{_capability(device) / 10}. Keep the weight dense there")


@lru_cache
def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@lru_cache
def _places(device: torch.device, config: Config, tile: int, step: int) -> int:
    """Programs that run on the device at once: as many to a multiprocessor as fit its memory and its registers."""
    if device.type != "cuda":
        return 4  # the interpreter runs one after another: few, so that parts are made
    per_thread = tile * config.tokens // (32 * config.warps) + 64  # the sums, and what addresses take
    programs = min(shared_limit(_capability(device)) // config.shared_bytes(tile, step),
                   REGISTERS // (per_thread * 32 * config.warps))
    return torch.cuda.get_device_properties(device).multi_processor_count * max(1, programs)


@lru_cache(maxsize=4096)
def _pieces_on(starts: tuple[int, ...], blocks: int, places: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """The plan on the device, and how many parts leave their sums in memory."""
    pieces = plan_pieces(starts, blocks, places)
    return torch.from_numpy(pieces).to(device), int(np.count_nonzero(pieces[:, FIELDS.index("parts")] > 1))


def _boxable(x: torch.Tensor) -> bool:
    """Whether tensor descriptors can fetch from x: 16-byte aligned, rows too, and its last dimension side by side."""
    return x.data_ptr() % 16 == 0 and x.stride(0) * x.itemsize % 16 == 0 and x.stride(0) > 0 and x.stride(1) == 1

