"""A linear layer whose numbers have eight bits: blocks of 128 × 128, on Hopper, for whoever asks for it.

The weight is rounded to e4m3 once, with a scale for every row; activations at every call, with one scale, which is found anew each
time or was found beforehand on examples. Nothing chooses this layer by itself: rounding to three bits of mantissa changes results,
by how much is the network's affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from zellige.cuda.layers.layer import check_like
from zellige.cuda.operators.block_product import ROWS, BlockKernel, schedule_on
from zellige.cuda.operators.block_product_fp8 import KERNELS, STEP, multiply
from zellige.cuda.operators.e4m3 import to_e4m3, to_e4m3_with
from zellige.cuda.tiling.device_tiles import DTYPES, DeviceTiles
from zellige.cuda.tiling.scaled_tiles import LARGEST, ScaledTiles, quantize
from zellige.cuda.tiling.tiles import cut_tiles
from zellige.errors import CompileError, InputError

SCALES = 2.0**-126, 2.0**126
"""The least and the largest scale: it and its reciprocal are normal numbers of float32."""


def input_scale(examples: Iterable[torch.Tensor]) -> float:
    """The scale by which the largest magnitude in all of these inputs of a layer is 448 in e4m3, the ``x_scale`` of the layer.

    ``InputError`` if there are none, or none but zeros, or numbers that are not finite.

    >>> input_scale([torch.tensor([0.5, -3.5]), torch.tensor([[1.0]])])
    0.0078125
    """
    found = [float(x.abs().amax()) for x in examples if x.numel()]
    if not found or not all(map(math.isfinite, found)) or not max(found):
        raise InputError("expected examples with finite numbers, not all of them zero; their largest magnitudes are "
                         f"{found[:8] or 'of nothing'}. Take inputs that the network really gives this layer")
    return max(SCALES[0], max(found) / LARGEST)


class Fp8BlockLinear(torch.nn.Module):
    """y ≈ activation(x · Wᵀ + b (+ residual)) for x of … × columns, multiplied in e4m3, y in the dtype of x; for inference.

    Args:
        weight: rows × columns, bfloat16 or float16, pruned in blocks of 128 × 128 (``zl.Block(128, 128)``): blocks that hold
            anything are multiplied whole.
        bias: rows, of the same dtype, or None.
        activation: none, relu, gelu or silu.
        kernel: one of ``operators.block_product.KERNELS``.
        x_scale: what 1 in e4m3 stands for in x, as ``input_scale`` finds it on examples; x is then read once instead of twice,
            and what is beyond ±448 · x_scale becomes that. None: the scale that the largest magnitude of each x asks for.

    ``CompileError`` where the weight is of another dtype, or has numbers that are not finite, rows that are no multiple of 8, or
    columns that are no multiple of 16; ``InputError`` where the scale is not between 2⁻¹²⁶ and 2¹²⁶. It runs on compute capability
    9.0 alone; called elsewhere it raises.
    """

    values: torch.Tensor
    scales: torch.Tensor
    units: torch.Tensor
    rows: torch.Tensor
    bias: torch.Tensor | None
    x_scale: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none",
                 kernel: BlockKernel = KERNELS[0], x_scale: float | None = None):
        super().__init__()
        if weight.ndim != 2 or weight.dtype not in DTYPES or weight.shape[0] % 8 or weight.shape[1] % 16:
            raise CompileError("expected a weight in bfloat16 or float16 with a multiple of 8 rows and of 16 columns, got "
                               f"{list(weight.shape)} of {weight.dtype}; keep the layer as it was")
        if x_scale is not None and not SCALES[0] <= x_scale <= SCALES[1]:
            raise InputError(f"the scale of x must be between 2⁻¹²⁶ and 2¹²⁶, not {x_scale}; input_scale finds it on examples")
        cut = cut_tiles(weight.detach().float().cpu().numpy(), ROWS, STEP, STEP)
        self.density, self.activation, self.kernel = cut.work, activation, kernel
        scaled = quantize(DeviceTiles.upload(cut, weight.device, weight.dtype))
        tiles, nothing = scaled.tiles, torch.empty(0)
        self.form = replace(tiles, values=nothing, units=nothing, rows=nothing)  # the numbers alone
        for name, tensor in (("values", tiles.values), ("scales", scaled.scales), ("units", tiles.units), ("rows", tiles.rows),
                             ("bias", None if bias is None else bias.detach().clone()),
                             ("x_scale", None if x_scale is None else scaled.scales.new_full((1,), x_scale))):
            self.register_buffer(name, tensor)
        self.plan_ahead()

    def plan_ahead(self) -> None:
        """Have the plan of all launches on the device where the tiles are, before anybody captures one."""
        schedule_on(self.form.starts, self.values.device)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Fp8BlockLinear:
        """As any module is moved; the plan comes along."""
        super()._apply(fn, recurse)
        self.plan_ahead()
        return self

    @property
    def weight(self) -> ScaledTiles:
        """The tiles, of the tensors that the module has now: they may have been moved."""
        return ScaledTiles(replace(self.form, values=self.values, units=self.units, rows=self.rows), self.scales)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """``InputError`` unless x is … × columns in bfloat16 or float16 and the residual … × rows in the same."""
        rows, columns = self.form.shape
        if x.dtype not in DTYPES:
            raise InputError(f"x must be bfloat16 or float16, not {x.dtype}")
        check_like("x", x, (*x.shape[:-1], columns), x.dtype, self.values.device)
        check_like("residual", residual, (*x.shape[:-1], rows), x.dtype, self.values.device)
        x, shape = x.reshape(-1, columns).contiguous(), x.shape[:-1]
        small, scale = to_e4m3(x) if self.x_scale is None else (to_e4m3_with(x, self.x_scale), self.x_scale)
        addend = None if residual is None else residual.reshape(-1, rows).contiguous()
        y = multiply(self.weight, small, scale, self.bias, addend, self.activation, x.dtype, self.kernel)
        return y.reshape(*shape, rows)

    def extra_repr(self) -> str:
        rows, columns = self.form.shape
        scale = "scale of each input" if self.x_scale is None else "one scale for all inputs"
        return f"rows={rows}, columns={columns}, {self.activation}, e4m3, {scale}, {self.density:.0%} of dense multiplications"
