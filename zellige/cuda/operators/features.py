"""Operators of PyTorch's for activations that are feature-major: ``zellige::transposed``, ``layer_norm`` and ``attention``.

A network that is compiled keeps activations in whichever order costs least (``network/layouts.py``); these go where PyTorch's own
operators would want tokens × features. Like ``zellige::tile_product`` they know their results' shapes, so that ``torch.compile``
and CUDA graphs pass through them, and raise ``InputError`` for a shape, dtype, device or stride that their kernels do not take.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton

from zellige.cuda.kernels import features as kernels
from zellige.cuda.kernels.config import Config
from zellige.cuda.operators.product import check_device
from zellige.cuda.tiling.device_tiles import DTYPES
from zellige.errors import InputError

MOST_FEATURES = 4096
"""Of a token that a program of the norm keeps in its registers."""

NORM_TOKENS = 16  # 32 bytes of each feature, what memory gives at a time
NORM_VALUES = 32768  # more would not fit the registers of 16 warps
TURNED = 64
"""Rows and columns of a block that is transposed."""

MOST_BLOCKS = 65_535
"""Of a launch along its second and third dimension (CUDA programming guide, technical specifications)."""

HEAD_WIDTHS = (16, 32, 64, 128)
ATTENTION_CONFIGS = (Config(64, 8, 2, width=64), Config(64, 4, 2, width=32))
"""Queries of a block, warps, stages, and as ``width`` the keys that are walked at once. With 128 queries, or with as many keys to
four warps, the loop spills what it adds up, for heads of 128 on some GPU or other (``tests/cuda/test_offline.py``)."""


def transposed(x: torch.Tensor) -> torch.Tensor:
    """Rows × columns as columns × rows, contiguous.

    Sources may have strided rows; elements of a row lie side by side.
    """
    return torch.ops.zellige.transposed(x)


def layer_norm(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float, x_features: bool,
               y_features: bool) -> torch.Tensor:
    """The layer norm of each token over at most ``MOST_FEATURES`` features; x and the result as features × tokens where told."""
    return torch.ops.zellige.layer_norm(x, weight, bias, epsilon, x_features, y_features)


def attention(x: torch.Tensor, heads: int, sequence: int, scale: float, config: Config | None = None) -> torch.Tensor:
    """Attention of every token to all of its own sequence: features × tokens, from 3 · features × tokens (queries, keys, values).

    Sequences of so many tokens lie one behind the other; a head's features are one of ``HEAD_WIDTHS``. ``config``: as
    ``ATTENTION_CONFIGS`` has them.
    """
    config = config or attention_configs(sequence)[0]
    return torch.ops.zellige.attention(x, heads, sequence, scale, config.numbers())


def attention_configs(sequence: int) -> list[Config]:
    """The configurations worth timing: no block twice as long as the sequence."""
    found = [config for config in ATTENTION_CONFIGS if config.tokens < 2 * sequence]
    short = max(16, triton.next_power_of_2(max(sequence, 1)))
    return found or [Config(short, 4, 1, width=short)]


# ----------------------------------------------------------------------------------------------------------- operators


@torch.library.custom_op("zellige::transposed", mutates_args=())
def _transposed(x: torch.Tensor) -> torch.Tensor:
    check_matrix(x)
    if triton.cdiv(x.shape[1], TURNED) > MOST_BLOCKS:
        raise InputError(f"at most {MOST_BLOCKS * TURNED} columns can be transposed at once, not {x.shape[1]}; "
                         "transpose parts of them")
    y = x.new_empty(x.shape[1], x.shape[0])
    launch_transposition(x, y)
    return y


@_transposed.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[1], x.shape[0])


@torch.library.custom_op("zellige::layer_norm", mutates_args=())
def _layer_norm(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float, x_features: bool,
                y_features: bool) -> torch.Tensor:
    check_norm(x, weight, bias, x_features)
    y = x.new_empty(x.shape if x_features == y_features else x.shape[::-1])
    launch_norm(x, y, weight, bias, epsilon, x_features, y_features)
    return y


@_layer_norm.register_fake
def _(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float, x_features: bool,
      y_features: bool) -> torch.Tensor:
    return x.new_empty(x.shape if x_features == y_features else x.shape[::-1])


@torch.library.custom_op("zellige::attention", mutates_args=())
def _attention(x: torch.Tensor, heads: int, sequence: int, scale: float, config: Sequence[int]) -> torch.Tensor:
    chosen = Config.of(config) or attention_configs(sequence)[0]
    check_attention(x, heads, sequence, chosen)
    y = x.new_empty(x.shape[0] // 3, x.shape[1])
    launch_attention(x, y, heads, sequence, scale, chosen)
    return y


@_attention.register_fake
def _(x: torch.Tensor, heads: int, sequence: int, scale: float, config: Sequence[int]) -> torch.Tensor:
    return x.new_empty(x.shape[0] // 3, x.shape[1])


# ------------------------------------------------------------------------------------------------------------ launches


def launch_transposition(x: torch.Tensor, y: torch.Tensor) -> None:
    """Write x, rows × columns, into ``y``. Nothing is checked, here and below."""
    if y.numel():
        blocks = (triton.cdiv(x.shape[0], TURNED), triton.cdiv(x.shape[1], TURNED))
        kernels.transposition[blocks](x, y, *x.shape, x.stride(0), y.stride(0), ROWS=TURNED, COLUMNS=TURNED, num_warps=4)


def launch_norm(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float,
                x_features: bool, y_features: bool) -> None:
    """Write the norm of x into ``y``."""
    features, tokens = x.shape if x_features else x.shape[::-1]
    if tokens:
        block, together, warps = norm_form(features)
        kernels.layer_norm[(triton.cdiv(tokens, together),)](
            x, y, weight, bias, tokens, features, x.stride(0), y.stride(0), epsilon, TOKENS=together, FEATURES=block,
            X_FEATURES=x_features, Y_FEATURES=y_features, WEIGHT=weight is not None, BIAS=bias is not None, num_warps=warps)


def norm_form(features: int) -> tuple[int, int, int]:
    """What a program of the norm has: places for features, tokens, warps.

    >>> norm_form(768), norm_form(4096)
    ((1024, 16, 8), (4096, 8, 16))
    """
    block = triton.next_power_of_2(features)
    return block, min(NORM_TOKENS, NORM_VALUES // block), max(4, min(16, block // 128))


def launch_attention(x: torch.Tensor, y: torch.Tensor, heads: int, sequence: int, scale: float, config: Config) -> None:
    """Write attention's result into ``y``."""
    features, tokens = y.shape
    if tokens:
        kernels.attention[(triton.cdiv(sequence, config.tokens), heads, tokens // sequence)](
            x, y, sequence, features, x.stride(0), y.stride(0), scale, WIDTH=features // heads, QUERIES=config.tokens,
            KEYS=config.width, num_warps=config.warps, num_stages=config.stages)


# -------------------------------------------------------------------------------------------------------------- checks


def check_matrix(x: torch.Tensor) -> None:
    """``InputError`` unless x has two dimensions, the last of which lies together in memory, on a GPU that the kernels run on."""
    if x.ndim != 2:
        raise InputError(f"expected x with two dimensions, features and tokens in either order, not {list(x.shape)}")
    if x.shape[1] > 1 and x.stride(1) != 1:
        raise InputError(f"the last dimension of x must lie together in memory (stride 1, not {x.stride(1)}); "
                         "call contiguous() on it first")
    check_device(x.device)


def check_norm(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, x_features: bool) -> None:
    """``InputError`` if the norm does not take these."""
    check_matrix(x)
    _check_dtype(x)
    features = x.shape[0 if x_features else 1]
    if not 1 <= features <= MOST_FEATURES:
        raise InputError(f"the norm's kernel takes 1 to {MOST_FEATURES} features, not {features}; "
                         "torch.nn.functional.layer_norm takes any")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is None:
            continue
        if tuple(vector.shape) != (features,) or vector.dtype != x.dtype or vector.device != x.device or \
                (features > 1 and vector.stride(0) != 1):
            raise InputError(f"{name} must be [{features}] of {x.dtype} on {x.device}, side by side, "
                             f"not {list(vector.shape)} of {vector.dtype} on {vector.device}, {list(vector.stride())} apart")


def check_attention(x: torch.Tensor, heads: int, sequence: int, config: Config) -> None:
    """``InputError`` if attention does not take these."""
    check_matrix(x)
    _check_dtype(x)
    if heads < 1 or x.shape[0] % (3 * heads) or x.shape[0] // (3 * heads) not in HEAD_WIDTHS:
        raise InputError(f"attention takes 3 · heads · width features × tokens with heads of {HEAD_WIDTHS} features, "
                         f"not {list(x.shape)} for {heads} heads; use torch.nn.functional.scaled_dot_product_attention")
    if sequence < 1 or x.shape[1] % sequence:
        raise InputError("attention takes whole sequences one behind the other, "
                         f"not {x.shape[1]} tokens in sequences of {sequence}")
    if max(heads, x.shape[1] // sequence) > MOST_BLOCKS:
        raise InputError(f"attention takes at most {MOST_BLOCKS} heads and as many sequences at once, not {heads} and "
                         f"{x.shape[1] // sequence}; take fewer sequences at a time")
    for name, size in (("queries", config.tokens), ("keys", config.width)):
        if size < 16 or size & (size - 1):
            raise InputError(f"a block of {name} must be a power of two, 16 or more, not {size}")


def _check_dtype(x: torch.Tensor) -> None:
    if x.dtype not in DTYPES:
        raise InputError(f"expected x in bfloat16 or float16, not {x.dtype}")
