"""Norm, transposition and attention on feature-major activations, in Triton's interpreter against float64, inside guards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interpreter import Guarded, widen_bfloat16

from zellige.cuda.kernels.config import Config
from zellige.cuda.operators import features as operators
from zellige.cuda.operators.features import attention, attention_configs, layer_norm, transposed
from zellige.errors import InputError

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
    x, y = Guarded((rows, columns), dtype), Guarded((columns, rows), dtype)
    values = drawn(rows, columns, dtype=dtype)
    operators.launch_transposition(x.filled(values), y.inside)
    assert torch.equal(y.inside, values.T) and x.untouched() and y.untouched()
    assert torch.equal(transposed(x.inside), values.T)


@given(st.integers(1, 40), st.integers(1, 200), st.booleans(), st.booleans(), st.booleans(), st.booleans(), DTYPES)
def test_layer_norm(tokens: int, features: int, x_features: bool, y_features: bool, weighted: bool, shifted: bool,
                    dtype: torch.dtype) -> None:
    x = Guarded((features, tokens) if x_features else (tokens, features), dtype)
    y = Guarded((features, tokens) if y_features else (tokens, features), dtype)
    values = 3 * drawn(tokens, features, dtype=dtype) + 5
    weight, bias = (drawn(features, dtype=dtype, seed=seed) if there else None for seed, there in ((1, weighted), (2, shifted)))
    operators.launch_norm(x.filled(values.T if x_features else values), y.inside, weight, bias, 1e-5, x_features, y_features)
    expected = torch.nn.functional.layer_norm(values.double(), (features,), *(
        None if vector is None else vector.double() for vector in (weight, bias)), 1e-5)
    torch.testing.assert_close((y.inside.T if y_features else y.inside).double(), expected, rtol=TOLERANCE[dtype], atol=1e-4)
    assert x.untouched() and y.untouched()
    assert torch.equal(layer_norm(x.inside, weight, bias, 1e-5, x_features, y_features), y.inside)


@given(st.integers(1, 3), st.integers(1, 150), st.integers(1, 3), st.sampled_from([16, 32]), DTYPES,
       st.sampled_from([None, Config(16, 4, 1, width=32), Config(64, 4, 2, width=16)]))
def test_attention(batch: int, sequence: int, heads: int, width: int, dtype: torch.dtype, config: Config | None) -> None:
    features, tokens = heads * width, batch * sequence
    x, y = Guarded((3 * features, tokens), dtype), Guarded((features, tokens), dtype)
    values = drawn(3 * features, tokens, dtype=dtype)
    operators.launch_attention(x.filled(values), y.inside, heads, sequence, width**-0.5, config or attention_configs(sequence)[0])
    q, k, v = values.double().reshape(3, heads, width, batch, sequence).permute(0, 3, 1, 4, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    expected = expected.permute(1, 3, 0, 2).reshape(features, tokens)
    limit = 4 * TOLERANCE[dtype]  # the shares are rounded too, and there are many
    torch.testing.assert_close(y.inside.double(), expected, rtol=limit, atol=limit)
    assert x.untouched() and y.untouched()
    assert torch.equal(attention(x.inside, heads, sequence, width**-0.5, config), y.inside)


HALF = torch.float16


@pytest.mark.parametrize("call, said", [
    (lambda: transposed(torch.ones(4, 6).T), "stride 1, not 6"), (lambda: transposed(torch.ones(4)), "two dimensions"),
    (lambda: transposed(torch.ones(1, 64 * 65_535 + 1, dtype=torch.int8)), "transpose parts"),
    (lambda: layer_norm(torch.ones(2, 40_000, dtype=HALF), None, None, 1e-5, False, False), "1 to 4096 features, not 40000"),
    (lambda: layer_norm(torch.ones(2, 4), None, None, 1e-5, False, False), "float32"),
    (lambda: layer_norm(torch.ones(2, 4, dtype=HALF), torch.ones(2, dtype=HALF), None, 1e-5, False, False), "weight must be [4]"),
    (lambda: layer_norm(torch.ones(2, 4, dtype=HALF), None, torch.ones(2), 1e-5, True, False), "bias must be [2] of torch.float16"),
    (lambda: attention(torch.ones(48, 10, dtype=HALF), 1, 4, 1.0), "10 tokens in sequences of 4"),
    (lambda: attention(torch.ones(48, 10, dtype=HALF), 1, 0, 1.0), "10 tokens in sequences of 0"),
    (lambda: attention(torch.ones(144, 8, dtype=HALF), 1, 4, 1.0), "heads of (16, 32, 64, 128) features"),
    (lambda: attention(torch.ones(50, 8, dtype=HALF), 1, 4, 1.0), "[50, 8] for 1 heads"),
    (lambda: attention(torch.ones(48, 8, dtype=HALF), 1, 4, 1.0, Config(16, 4, 1, width=24)), "keys must be a power of two"),
    (lambda: attention(torch.ones(48, 8), 1, 4, 1.0), "float32"),
    (lambda: attention(torch.ones(48, 65_536, dtype=HALF), 1, 1, 1.0), "take fewer sequences"),
])
def test_refusals(call: Callable[[], torch.Tensor], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        call()


def test_without_tokens() -> None:
    assert transposed(torch.ones(0, 3)).shape == (3, 0)
    assert layer_norm(torch.ones(0, 3, dtype=HALF), None, None, 1e-5, False, True).shape == (3, 0)
    assert attention(torch.ones(48, 0, dtype=HALF), 1, 4, 1.0).shape == (16, 0)
