"""Norm, transposition and attention on feature-major activations, in Triton's interpreter against float64, inside guards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interpreter import Guarded, widen_bfloat16

from zellige.cuda.kernels.config import Config
from zellige.cuda.operators.features import attention, layer_norm, transposed

TOLERANCE = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""The result is rounded once; the interpreter cuts bits of bfloat16 off."""

DTYPES = st.sampled_from(list(TOLERANCE))


@pytest.fixture(scope="module", autouse=True)
def bfloat16_products() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        widen_bfloat16(patch)
        yield


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(st.integers(1, 150), st.integers(1, 150), DTYPES)
def test_transposed(rows: int, columns: int, dtype: torch.dtype) -> None:
    x = Guarded((rows, columns), dtype)
    values = drawn(rows, columns, dtype=dtype)
    assert torch.equal(transposed(x.filled(values)), values.T) and x.untouched()


@given(st.integers(1, 40), st.integers(1, 200), st.booleans(), st.booleans(), st.booleans(), st.booleans(), DTYPES)
def test_layer_norm(tokens: int, features: int, x_features: bool, y_features: bool, weighted: bool, shifted: bool,
                    dtype: torch.dtype) -> None:
    x = Guarded((features, tokens) if x_features else (tokens, features), dtype)
    values = 3 * drawn(tokens, features, dtype=dtype) + 5
    weight, bias = (drawn(features, dtype=dtype, seed=seed) if there else None for seed, there in ((1, weighted), (2, shifted)))
    y = layer_norm(x.filled(values.T if x_features else values), weight, bias, 1e-5, x_features, y_features)
    expected = torch.nn.functional.layer_norm(values.double(), (features,), *(
        None if vector is None else vector.double() for vector in (weight, bias)), 1e-5)
    torch.testing.assert_close((y.T if y_features else y).double(), expected, rtol=TOLERANCE[dtype], atol=1e-4)
    assert x.untouched()


@given(st.integers(1, 3), st.integers(1, 150), st.integers(1, 3), st.sampled_from([16, 32]), DTYPES,
       st.sampled_from([None, Config(16, 4, 1), Config(64, 4, 2)]))
def test_attention(batch: int, sequence: int, heads: int, width: int, dtype: torch.dtype, config: Config | None) -> None:
    features, tokens = heads * width, batch * sequence
    x = Guarded((3 * features, tokens), dtype)
    values = drawn(3 * features, tokens, dtype=dtype)
    y = attention(x.filled(values), heads, sequence, width**-0.5, config)
    q, k, v = values.double().reshape(3, heads, width, batch, sequence).permute(0, 3, 1, 4, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    expected = expected.permute(1, 3, 0, 2).reshape(features, tokens)
    limit = 4 * TOLERANCE[dtype]  # the shares are rounded too, and there are many
    torch.testing.assert_close(y.double(), expected, rtol=limit, atol=limit)
    assert x.untouched()


def test_operators() -> None:
    """PyTorch's own checks of an operator: schema and fake tensors."""
    x, vector = drawn(48, 10, dtype=torch.float16), drawn(48, dtype=torch.float16)
    calls = {torch.ops.zellige.transposed: (x,), torch.ops.zellige.layer_norm: (x, vector, None, 1e-5, True, False),
             torch.ops.zellige.attention: (x, 1, 5, 0.25, [16, 4, 1])}
    for operator, arguments in calls.items():
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
