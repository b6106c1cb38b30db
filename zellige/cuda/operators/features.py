"""Operators of PyTorch's for activations that are feature-major: ``zellige::transposed``, ``layer_norm`` and ``attention``.

A network that is compiled keeps activations in whichever order costs least (``network/layouts.py``); these go where PyTorch's own
operators would want tokens × features. Like ``zellige::tile_product`` they know their results' shapes, so that ``torch.compile``
and CUDA graphs pass through them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton

from zellige.cuda.kernels import features as kernels
from zellige.cuda.kernels.config import Config

MOST_FEATURES = 4096
"""Of a token that a program of the norm keeps in its registers."""

NORM_TOKENS = 16  # 32 bytes of each feature, what memory gives at a time
NORM_VALUES = 32768  # more would not fit the registers of 16 warps
HEAD_WIDTHS = (16, 32, 64, 128)
ATTENTION_CONFIGS = (Config(64, 4, 2), Config(64, 4, 1), Config(128, 8, 1), Config(128, 8, 2))
"""Tokens of a block, of queries as of keys; warps and stages."""


def transposed(x: torch.Tensor) -> torch.Tensor:
    """Rows × columns, contiguous, as columns × rows.

    Sources may have strided rows; elements of a row lie side by side.
    """
    return torch.ops.zellige.transposed(x)


def layer_norm(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float, x_features: bool,
               y_features: bool) -> torch.Tensor:
    """The layer norm of each token over at most ``MOST_FEATURES`` features; x and the result as features × tokens where told."""
    return torch.ops.zellige.layer_norm(x, weight, bias, epsilon, x_features, y_features)


def attention(x: torch.Tensor, heads: int, sequence: int, scale: float, config: Config | None = None) -> torch.Tensor:
    """Attention of every token to all of its own sequence: features × tokens, from 3 · features × tokens (queries, keys, values).

    Sequences of so many tokens lie one behind the other; a head's features are one of ``HEAD_WIDTHS``.
    """
    config = config or attention_configs(sequence)[0]
    return torch.ops.zellige.attention(x, heads, sequence, scale, [config.tokens, config.warps, config.stages])


def attention_configs(sequence: int) -> list[Config]:
    """The configurations worth timing: no block twice as long as the sequence."""
    found = [config for config in ATTENTION_CONFIGS if config.tokens < 2 * sequence]
    return found or [Config(max(16, triton.next_power_of_2(sequence)), 4, 1)]


@torch.library.custom_op("zellige::transposed", mutates_args=())
def _transposed(x: torch.Tensor) -> torch.Tensor:
    y = x.new_empty(x.shape[1], x.shape[0])
    if y.numel():
        blocks = (triton.cdiv(x.shape[0], 64), triton.cdiv(x.shape[1], 64))
        kernels.transposition[blocks](x, y, *x.shape, x.stride(0), y.stride(0), ROWS=64, COLUMNS=64, num_warps=4)
    return y


@_transposed.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[1], x.shape[0])


@torch.library.custom_op("zellige::layer_norm", mutates_args=())
def _layer_norm(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float, x_features: bool,
                y_features: bool) -> torch.Tensor:
    features, tokens = x.shape if x_features else x.shape[::-1]
    y = x.new_empty((features, tokens) if y_features else (tokens, features))
    block = triton.next_power_of_2(features)
    together = min(NORM_TOKENS, NORM_VALUES // block)
    kernels.layer_norm[(triton.cdiv(tokens, together),)](
        x, y, weight, bias, tokens, features, x.stride(0), y.stride(0), epsilon, TOKENS=together, FEATURES=block,
        X_FEATURES=x_features, Y_FEATURES=y_features, WEIGHT=weight is not None, BIAS=bias is not None,
        num_warps=max(4, min(16, block // 128)))
    return y


@_layer_norm.register_fake
def _(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float, x_features: bool,
      y_features: bool) -> torch.Tensor:
    return x.new_empty(x.shape if x_features == y_features else x.shape[::-1])


@torch.library.custom_op("zellige::attention", mutates_args=())
def _attention(x: torch.Tensor, heads: int, sequence: int, scale: float, config: Sequence[int]) -> torch.Tensor:
    features, tokens = x.shape[0] // 3, x.shape[1]
    y = x.new_empty(features, tokens)
    block, warps, stages = config
    kernels.attention[(triton.cdiv(sequence, block), heads, tokens // sequence)](
        x, y, sequence, features, x.stride(0), y.stride(0), scale, WIDTH=features // heads, QUERIES=block, KEYS=block,
        num_warps=warps, num_stages=stages)
    return y


@_attention.register_fake
def _(x: torch.Tensor, heads: int, sequence: int, scale: float, config: Sequence[int]) -> torch.Tensor:
    return x.new_empty(x.shape[0] // 3, x.shape[1])
