"""The bound that benchmarks hold every number of a product to: rounding passes, one wrong number doesn't."""

from __future__ import annotations

import math

import pytest
import torch
from gpu_error import FUNCTIONS, checked_error, relative_error


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("columns", [17, 4099])
def test_rounding_passes_and_one_wrong_number_does_not(columns: int, activation: str) -> None:
    x, weight = torch.randn(40, columns).bfloat16().double(), (torch.randn(24, columns) / math.sqrt(columns)).bfloat16().double()
    before, terms = x @ weight.T, x.abs() @ weight.abs().T
    y = FUNCTIONS[activation](x.float() @ weight.float().T).bfloat16()
    assert checked_error(y, before, terms, columns, activation) < 3e-3
    wrong = y.clone()
    wrong.view(-1)[wrong.argmax()] *= 1 + 2.0**-5
    assert relative_error(wrong, FUNCTIONS[activation](before)) < 2e-2 and checked_error(
        wrong, before, terms, columns, activation) == math.inf
    wrong.view(-1)[wrong.argmax()] = torch.nan
    assert checked_error(wrong, before, terms, columns, activation) == math.inf


def test_one_weight_left_out_is_seen() -> None:
    """One of 777 × 32, of middling size, which the relative error over all does not show."""
    x, weight = torch.randn(64, 777).bfloat16().double(), (torch.randn(32, 777) / math.sqrt(777)).bfloat16().double()
    weight[3, 5], lacking = 0.05, weight.clone()
    lacking[3, 5] = 0
    y, before = (x @ lacking.T).bfloat16(), x @ weight.T
    assert relative_error(y, before) < 2e-2 and checked_error(y, before, x.abs() @ weight.abs().T, 777) == math.inf
