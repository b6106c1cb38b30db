"""The tile-vector-wise product on the GPU: Y = act(W·X + bias + residual), X and Y feature-major, W in ``VectorTiles``.

An operator of PyTorch's, ``zellige::tile_vector_product``, through which ``torch.compile``, ``torch.export`` and CUDA graphs pass.
One launch makes all tiles × blocks of tokens, longest tiles first. The kernels are ``tile_vector_wise_*.cu``: through ``mma.sp``
on every GPU from compute capability 8.0, through ``wgmma.mma_async.sp`` on Hopper; there also tile-wise weights without 2:4.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int, c_longlong
from dataclasses import dataclass

import torch
from torch import Tensor

from zellige.cuda.kernels.launch import architecture, launch, loaded
from zellige.cuda.tiling import swizzled, two_four
from zellige.cuda.tiling.two_four import STEP
from zellige.cuda.tiling.vector_tiles import VectorTiles
from zellige.errors import InputError

ENTRY = "tile_vector_wise"
ACTIVATIONS = (None, "relu", "gelu", "silu")
NAMES = ("mma", "wgmma")


@dataclass(frozen=True)
class Kernel:
    """One way to compile a kernel: tokens of a block, and steps that are in shared memory at once."""

    name: str
    tokens: int
    stages: int
    tokens_first: bool = False
    """Blocks of one tile run side by side (best for tiles of unequal length), not those of one block of tokens."""
    self_arriving: bool = False
    """Copies (wgmma) tell by themselves that they are done; otherwise the threads that made them wait and tell."""
    sparse: bool = True
    """For tiles that are 2:4; False (wgmma): for those that aren't."""

    def numbers(self) -> list[int]:
        """As the operator takes it."""
        return [NAMES.index(self.name), self.tokens, self.stages, self.tokens_first, self.self_arriving, self.sparse]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Kernel | None:
        """From ``numbers``; None if there are none."""
        if not numbers:
            return None
        name, tokens, stages, tokens_first, self_arriving, sparse = numbers
        return cls(NAMES[name], tokens, stages, bool(tokens_first), bool(self_arriving), bool(sparse))

    @property
    def source(self) -> str:
        return f"tile_vector_wise_{self.name}.cu"

    @property
    def threads(self) -> int:
        return {"mma": 256, "wgmma": 384}[self.name]

    @property
    def stays(self) -> bool:
        """Blocks fill the GPU once and take one place of the result after another."""
        return self.name == "wgmma"

    @property
    def image_bytes(self) -> int:
        return two_four.IMAGE_BYTES if self.sparse else swizzled.IMAGE_BYTES

    @property
    def shared_bytes(self) -> int:
        """The stages; for wgmma room to align them, barriers, and 16 rows × 64 tokens of the result for each of 8 warps too."""
        beside = 1024 + self.stages * 16 + 8 * 16 * (128 + 16) if self.name == "wgmma" else 0
        return self.stages * (self.image_bytes + STEP * self.tokens * 2) + beside

    def defines(self, dtype: torch.dtype, aligned: bool, activation: str | None) -> tuple[tuple[str, int], ...]:
        return (("BFLOAT16", int(dtype == torch.bfloat16)), ("TWO_FOUR", int(self.sparse)),
                ("TOKENS", self.tokens), ("STAGES", self.stages),
                ("SELF_ARRIVING", int(self.self_arriving)),
                ("ALIGNED", int(aligned)), ("ACTIVATION", ACTIVATIONS.index(activation)))  # fmt: skip


KERNELS = {
    "sm_80": Kernel("mma", tokens=128, stages=4),
    "sm_90a": Kernel("wgmma", tokens=256, stages=5, tokens_first=True, self_arriving=True),
}
"""By architecture; elsewhere less shared memory is sure."""

ELSEWHERE = Kernel("mma", tokens=128, stages=3)

DENSE = Kernel("wgmma", tokens=256, stages=4, tokens_first=True, self_arriving=True, sparse=False)
"""For tiles that aren't 2:4."""


def multiply(
    tiles: VectorTiles, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, activation: str | None = None,
    kernel: Kernel | None = None,
) -> Tensor:  # fmt: skip
    """``act(W @ x + bias[:, None] + residual)`` for x of K features × M tokens; N × M.

    Numbers are accumulated in float32 and rounded once. Rows of ``x`` and ``residual`` may be strided; where they start at
    multiples of 16 bytes (M a multiple of 8, as a rule) copies are 16 bytes wide, elsewhere a slower path is taken. Raises
    ``InputError`` for another dtype, device or shape, ``CompileError`` where the GPU is too old.
    """
    return torch.ops.zellige.tile_vector_product(
        x, tiles.images, tiles.columns, tiles.starts, tiles.rows, bias, residual, list(tiles.shape), tiles.longest, tiles.dtype,
        activation, [] if kernel is None else list(map(int, kernel.numbers())))


@torch.library.custom_op("zellige::tile_vector_product", mutates_args=())
def _product(x: Tensor, images: Tensor, columns: Tensor, starts: Tensor, rows: Tensor, bias: Tensor | None, residual: Tensor | None,
             shape: Sequence[int], longest: int, dtype: torch.dtype, activation: str | None, kernel: Sequence[int]) -> Tensor:
    tiles = VectorTiles((shape[0], shape[1]), dtype, rows, starts, columns, images, longest)
    return _run(tiles, x, bias, residual, activation, Kernel.of(kernel))


@_product.register_fake
def _(x: Tensor, images: Tensor, columns: Tensor, starts: Tensor, rows: Tensor, bias: Tensor | None, residual: Tensor | None,
      shape: Sequence[int], longest: int, dtype: torch.dtype, activation: str | None, kernel: Sequence[int]) -> Tensor:
    return x.new_empty((shape[0], x.shape[1]))


def _run(tiles: VectorTiles, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str | None,
         kernel: Kernel | None) -> Tensor:
    n, k = tiles.shape
    _check(tiles, x, "x", (k, None))
    tokens = x.shape[1]
    if bias is not None:
        _check(tiles, bias, "bias", (n,))
    if residual is not None:
        _check(tiles, residual, "residual", (n, tokens))
    if activation not in ACTIVATIONS:
        raise InputError(f"expected one of the activations {ACTIVATIONS}, got {activation!r}")
    if 2 * x.stride(0) >= 1 << 32:
        raise InputError(f"the rows of x must lie less than 4 GB apart, not {2 * x.stride(0)} bytes; take fewer tokens at a time")
    y = torch.empty((n, tokens), dtype=x.dtype, device=x.device)
    if not tokens:
        return y
    name = architecture(x.device)
    kernel = kernel or (KERNELS.get(name, ELSEWHERE) if tiles.two_four else DENSE)
    if kernel.sparse != tiles.two_four:
        raise InputError(f"expected a kernel with sparse={tiles.two_four} for these tiles, got {kernel}")
    if kernel.name == "wgmma" and name != "sm_90a":
        raise InputError(f"the wgmma kernel runs on compute capability 9.0 alone, this GPU is {name}; "
                         "leave the kernel out, and multiply tiles without 2:4 by zellige.cuda.operators.product")  # fmt: skip
    aligned = all(_rows_aligned(array) for array in (x, residual, y) if array is not None)
    compiled = loaded(kernel.source, ENTRY, kernel.defines(x.dtype, aligned, activation), kernel.shared_bytes, x.device)
    token_blocks = -(-tokens // kernel.tokens)
    blocks = len(tiles.rows) * token_blocks
    if kernel.stays:
        blocks = min(blocks, torch.cuda.get_device_properties(x.device).multi_processor_count)
    launch(compiled, blocks, kernel.threads, kernel.shared_bytes,
           [x, tiles.images, tiles.columns, tiles.starts, tiles.rows, bias, residual, y,
            c_longlong(x.stride(0)), c_longlong(0 if residual is None else residual.stride(0)), c_longlong(y.stride(0)),
            c_int(tokens), c_int(len(tiles.rows)), c_int(token_blocks), c_int(kernel.tokens_first)], x.device)  # fmt: skip
    return y


def _check(tiles: VectorTiles, array: Tensor, name: str, shape: tuple[int | None, ...]) -> None:
    if array.dtype != tiles.dtype or array.device != tiles.images.device:
        raise InputError(f"expected {name} like the weight, {tiles.dtype} on {tiles.images.device}, "
                         f"got {array.dtype} on {array.device}")  # fmt: skip
    if array.ndim != len(shape) or any(want not in (None, size) for want, size in zip(shape, array.shape, strict=True)):
        raise InputError(f"expected {name} of shape {list(shape)} (None: any), got {list(array.shape)}")
    if array.numel() and array.shape[-1] > 1 and array.stride(-1) != 1:
        raise InputError(f"expected {name} with its last dimension contiguous, got strides {array.stride()}; call .contiguous()")


def _rows_aligned(array: Tensor) -> bool:
    return array.data_ptr() % 16 == 0 and array.stride(0) % 8 == 0
