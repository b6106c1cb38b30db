"""The product of a weight in tiles with activations, as an operator of PyTorch's: ``zellige::tile_product``.

The operator takes tensors and plain numbers alone, knows its result's shape without running, and allocates what it needs, so
that ``torch.compile``, ``torch.export`` and CUDA graphs pass through it. So does its backward pass: the gradient of the values is
``zellige::tile_gradient`` (``gradient.py``), that of x the same product with the tiles in transposed order
(``tiling/transposed.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from zellige.cuda.kernels.config import REGISTERS, Config, default_config, shared_limit
from zellige.cuda.kernels.tile_product import tile_product
from zellige.cuda.operators import gradient
from zellige.cuda.operators.plans import uploaded
from zellige.cuda.tiling.device_tiles import DTYPES, DeviceTiles, fetched
from zellige.cuda.tiling.pieces import FIELDS, best_count, counts_of_parts, plan_pieces
from zellige.errors import CompileError, InputError

ACTIVATIONS = ("none", "relu", "gelu", "silu")
OLDEST = 80
"""The compute capability of the first GPUs with bfloat16 tensor cores and asynchronous copies."""


def multiply(weight: DeviceTiles, x: torch.Tensor, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None,
             activation: str = "none", x_features: bool = False, y_features: bool = False,
             config: Config | None = None) -> torch.Tensor:
    """activation(W · Xᵀ + bias + residual), transposed as asked.

    ``x``: tokens × columns, or columns × tokens with ``x_features``; the result (and ``residual``): tokens × rows, or
    rows × tokens with ``y_features``; ``bias``: rows. ``InputError`` where a shape, dtype, device or stride is another.
    Gradients reach ``weight.values``, ``bias``, ``residual`` and, if the weight was uploaded to be trained, ``x``.
    """
    check_whole(weight)
    back, numbers = weight.transposed, [] if config is None else config.numbers()
    order = (None, None, None, [], []) if back is None else (back.units, back.rows, back.sources, list(back.starts),
                                                             list(map(int, back.form)))
    return torch.ops.zellige.tile_product(x, weight.values, weight.units, weight.rows, bias, residual, list(weight.starts),
                                          [*weight.shape, weight.unit, int(weight.eights)], activation, x_features, y_features,
                                          numbers, *order)


@torch.library.custom_op("zellige::tile_product", mutates_args=())
def _product(x: torch.Tensor, values: torch.Tensor, units: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None,
             residual: torch.Tensor | None, starts: Sequence[int], form: Sequence[int], activation: str,
             x_features: bool, y_features: bool, config: Sequence[int], back_units: torch.Tensor | None,
             back_rows: torch.Tensor | None, back_sources: torch.Tensor | None, back_starts: Sequence[int],
             back_form: Sequence[int]) -> torch.Tensor:
    """``form``: rows, columns, columns of a unit, whether rows come in eights. What begins with ``back`` is ``Transposed``."""
    weight = DeviceTiles((form[0], form[1]), rows.numel() // (len(starts) - 1), values.shape[1], form[2], tuple(starts),
                         values, units, rows, bool(form[3]))
    check(weight, x, bias, residual, activation, x_features, y_features)
    y = x.new_empty(_result_shape(x, form, x_features, y_features))
    launch(weight, x, y, bias, residual, activation, x_features, y_features, Config.of(config))
    return y


@_product.register_fake
def _(x: torch.Tensor, values: torch.Tensor, units: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None,
      residual: torch.Tensor | None, starts: Sequence[int], form: Sequence[int], activation: str,
      x_features: bool, y_features: bool, config: Sequence[int], back_units: torch.Tensor | None,
      back_rows: torch.Tensor | None, back_sources: torch.Tensor | None, back_starts: Sequence[int],
      back_form: Sequence[int]) -> torch.Tensor:
    return x.new_empty(_result_shape(x, form, x_features, y_features))


def _result_shape(x: torch.Tensor, form: Sequence[int], x_features: bool, y_features: bool) -> tuple[int, int]:
    tokens = x.shape[1] if x_features else x.shape[0]
    return (form[0], tokens) if y_features else (tokens, form[0])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    (x, values, units, rows, bias, residual, starts, form, activation, x_features, y_features, config,
     back_units, back_rows, back_sources, back_starts, back_form) = inputs
    again = activation in ("gelu", "silu")  # their gradients want what went into them, which is made anew
    ctx.save_for_backward(x, values, units, rows, bias if again else None, residual if again else None,
                          output if activation == "relu" else None, back_units, back_rows, back_sources)
    ctx.plain = starts, form, activation, x_features, y_features, config, back_starts, back_form


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Gradients of x, the values, the bias and the residual, those that are asked for."""
    x, values, units, rows, bias, residual, y, back_units, back_rows, back_sources = ctx.saved_tensors
    starts, form, activation, x_features, y_features, config, back_starts, back_form = ctx.plain
    for_x, for_values, _, _, for_bias, for_residual, *_ = ctx.needs_input_grad
    no_order: tuple[object, ...] = (None, None, None, [], [])
    if activation == "relu":
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
    elif activation in ("gelu", "silu"):
        before = torch.ops.zellige.tile_product(x, values, units, rows, bias, residual, starts, form, "none",
                                                x_features, y_features, config, *no_order)
        grad = getattr(torch.ops.aten, f"{activation}_backward")(grad, before)
    by_rows = (grad if y_features else grad.T).contiguous()  # rows × tokens: rows are gathered whole
    found: list[torch.Tensor | None] = [None] * 17
    if for_x:
        if back_sources is None:
            raise InputError("gradients reach x if the weight was uploaded with trained=True")
        there = fetched(values, back_sources)
        found[0] = torch.ops.zellige.tile_product(by_rows, there, back_units, back_rows, None, None, back_starts, back_form, "none",
                                                  True, x_features, config, *no_order)
    if for_values:
        found[1] = torch.ops.zellige.tile_gradient(by_rows, x, units, rows, starts, form[2], values.shape[1], x_features)
    if for_bias:
        found[4] = by_rows.sum(1)
    if for_residual:
        found[5] = grad
    return tuple(found)


_product.register_autograd(_backward, setup_context=_remember)


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
        EIGHTS=weight.eights, ACTIVATION=activation, BIAS=bias is not None, RESIDUAL=residual is not None,
        num_warps=config.warps, num_stages=config.stages)


def pieces_for(weight: DeviceTiles, tokens: int, config: Config | None = None) -> tuple[torch.Tensor, int]:
    """The plan of a launch on the weight's device, and how many parts leave their sums in memory."""
    config = config or default_config(weight.tile, weight.step, tokens)
    device = weight.values.device
    places = _places(device, config, weight.tile, weight.step)
    return pieces_on(weight.starts, best_count(weight.starts, triton.cdiv(tokens, config.tokens), places), device)


def plan_ahead(weight: DeviceTiles) -> None:
    """Have the plans of all launches on the weight's device, for any number of tokens; also those of its backward pass, if it was
    uploaded to be trained."""
    back, device = weight.transposed, weight.values.device
    for starts in [weight.starts] if back is None else [weight.starts, back.starts]:
        for parts in counts_of_parts(starts):
            pieces_on(starts, parts, device)
    if back is not None:
        gradient.plan_ahead(weight.starts, weight.step, device)


def check(weight: DeviceTiles, x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, activation: str,
          x_features: bool, y_features: bool, added: torch.dtype | None = None) -> None:
    """``InputError`` if a tensor has another shape, dtype, device or stride than the product takes; ``CompileError`` if the GPU is
    too old. ``added``: the dtype of bias and residual, if it is not the weight's."""
    rows, columns = weight.shape
    form = f"{columns} columns × tokens" if x_features else f"tokens × {columns} columns"
    if x.ndim != 2 or x.shape[0 if x_features else 1] != columns:
        raise InputError(f"the product wants x as {form}, not {list(x.shape)}")
    result = _result_shape(x, weight.shape, x_features, y_features)
    added, device = added or weight.values.dtype, weight.values.device
    if added not in DTYPES:
        raise InputError(f"products are made in bfloat16 or float16, not in {added}")
    for name, tensor, wanted, dtype in (("x", x, tuple(x.shape), weight.values.dtype), ("bias", bias, (rows,), added),
                                        ("residual", residual, result, added)):
        if tensor is None:
            continue
        if tuple(tensor.shape) != wanted or tensor.dtype != dtype or tensor.device != device:
            raise InputError(f"{name} must be {list(wanted)} of {dtype} on {device}, "
                             f"not {list(tensor.shape)} of {tensor.dtype} on {tensor.device}")
        if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise InputError(f"the last dimension of {name} must lie together in memory (stride 1, not {tensor.stride(-1)}); "
                             "call contiguous() on it first")
    check_activation(activation)
    check_device(device)


def check_whole(weight: DeviceTiles) -> None:
    """``InputError`` if a tile is two halves, which the kernels of blocks alone know."""
    if weight.halves is not None:
        raise InputError("paired blocks are multiplied by the kernels of blocks alone (zellige.cuda.operators.block_product, "
                         "block_convolution); give the tiles of 64 rows that they were made of")


def check_activation(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise InputError(f"the activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")


def check_device(device: torch.device) -> None:
    """``CompileError`` if the kernels do not run on it."""
    if device.type == "cuda" and capability_of(device) < OLDEST:
        raise CompileError(f"tile products want a GPU of compute capability {OLDEST / 10} or later; {device} has "
                         f"{capability_of(device) / 10}. Keep the weight dense there")


@lru_cache
def capability_of(device: torch.device) -> int:
    """Ten times the compute capability, a whole number."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@lru_cache
def _places(device: torch.device, config: Config, tile: int, step: int) -> int:
    """Programs that run on the device at once: as many to a multiprocessor as fit its memory and its registers."""
    if device.type != "cuda":
        return 4  # the interpreter runs one after another: few, so that parts are made
    per_thread = tile * config.tokens // (32 * config.warps) + 64  # the sums, and what addresses take
    programs = min(shared_limit(capability_of(device)) // config.shared_bytes(tile, step),
                   REGISTERS // (per_thread * 32 * config.warps))
    return torch.cuda.get_device_properties(device).multi_processor_count * max(1, programs)


@cache
def pieces_on(starts: tuple[int, ...], parts: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """The plan on the device, and how many parts leave their sums in memory."""
    pieces = plan_pieces(starts, parts)
    return uploaded(pieces, device), int(np.count_nonzero(pieces[:, FIELDS.index("parts")] > 1))


def _boxable(x: torch.Tensor) -> bool:
    """Whether tensor descriptors can fetch from x: 16-byte aligned, rows too, and its last dimension side by side."""
    return x.data_ptr() % 16 == 0 and x.stride(0) * x.itemsize % 16 == 0 and x.stride(0) > 0 and x.stride(1) == 1

