"""What the kernels do to finished sums, CUDA C++ and Triton, run on the CPU, against PyTorch in float64."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from torch.nn import functional

import zellige.cuda.kernels
from zellige.cuda.kernels.tile_product import activate

ROOM = Path(zellige.cuda.kernels.__file__).parent
ACTIVATIONS = {1: functional.relu, 2: functional.gelu, 3: functional.silu}
SOURCE = """
#include <cmath>
#define __device__
#define __forceinline__ inline
inline float fast_tanh(float value) { return std::tanh(value) * (1 + 0x1p-11f); }   // as far off as it may be
inline float larger(float a, float b) { return std::isnan(a) || a > b ? a : b; }
inline float __expf(float value) { return std::exp(value); }
#include "activation.cuh"
extern "C" void run(float* values, int count) { for (int i = 0; i < count; i++) values[i] = activate(values[i]); }
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="running CUDA C++ on the CPU needs g++")
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("number", ACTIVATIONS)
def test_activations(number: int, bfloat16: bool, tmp_path: Path) -> None:
    """Within a seventh (float16) or an eighth (bfloat16) of what rounding does to x; NaN stays, what should vanish does."""
    most = 2.0**-12 if bfloat16 else 7e-5
    (tmp_path / "activation.cc").write_text(SOURCE)
    subprocess.run(["g++", "-O2", "-shared", "-fPIC", f"-DACTIVATION={number}", f"-DBFLOAT16={int(bfloat16)}", "-I", ROOM,
                    tmp_path / "activation.cc", "-o", tmp_path / "activation.so"], check=True)
    x = torch.cat([torch.linspace(-9, 9, 100001), torch.tensor([-1e4, -200.0, -0.0, 0.0, 200.0, 1e4, torch.nan])])
    y = x.clone()
    ctypes.CDLL(str(tmp_path / "activation.so")).run(ctypes.c_void_p(y.data_ptr()), len(y))
    exact = ACTIVATIONS[number](x.double())
    assert y[-1].isnan()
    assert float(((y - exact).abs() / x.abs().clamp_min(1))[:-1].max()) < most + 3e-5
    assert bfloat16 or float(y[x <= -20].abs().max()) < 2e-5


@triton.jit
def activated(x, y, count, BLOCK: tl.constexpr, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + place, activate(tl.load(x + place, mask=place < count), ACTIVATION), mask=place < count)


@pytest.mark.filterwarnings("ignore:overflow encountered")  # far below zero SiLU divides by infinity
@pytest.mark.parametrize("name", ["relu", "gelu", "silu"])
def test_activations_in_triton(name: str) -> None:
    """Within a twelfth of what rounding to float16 does to the result itself, far below zero too; NaN stays, what should vanish
    does."""
    x = torch.cat([torch.linspace(-7.5, 9, 100001), torch.tensor([-1e4, -200.0, -0.0, 0.0, 200.0, 1e4, torch.inf, torch.nan])])
    y = torch.full_like(x, 7)
    activated[(triton.cdiv(len(x), 4096),)](x, y, len(x), BLOCK=4096, ACTIVATION=name)
    exact = getattr(functional, name)(x.double())
    assert y[-1].isnan() and y[-2] == torch.inf
    assert (y - exact).abs()[:-2].le(2.0**-11 / 12 * exact.abs()[:-2] + 1e-14).all()
