"""What compilers make of the kernels for three generations of GPUs: all in registers, loads that run ahead of the product."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zellige.cuda.kernels.config import SHARED_BYTES

BOXED = {"UNIT": 64, "X_BOXES": True, "W_BOXES": True}
BY_TOKENS = {"X_FEATURES": False, "Y_FEATURES": False}
CASES = {
    "columns": {},
    "columns, deep": {"stages": 4, "TOKENS": 256},
    "columns, split": {"SPLIT": True, "ACTIVATION": "gelu"},
    "groups of 8, token-major": {"UNIT": 8, **BY_TOKENS},
    "one token": {"tokens": 1, "SPLIT": True, "UNIT": 8, "TOKENS": 64, "warps": 4, **BY_TOKENS},
    "blocks": {"UNIT": 64, "dtype": "fp16", "ACTIVATION": "silu"},
}
BOX_CASES = {
    "columns, values by descriptor": {"W_BOXES": True},
    "blocks by descriptor, deep": {**BOXED, "TOKENS": 256, "stages": 4, "RESIDUAL": False},  # one's addresses would spill
    "blocks by descriptor, token-major": {**BOXED, **BY_TOKENS},
}
CONVOLUTION = {"kernel": "tile_convolution", "RESIDUAL": False}
GRADIENT = {"kernel": "tile_gradient"}
OTHERS = {
    "convolution": {**CONVOLUTION, "EIGHTS": True, "RESIDUAL": True}, "convolution, scattered": {"kernel": "tile_convolution"},
    "convolution, split": {**CONVOLUTION, "SPLIT": True, "ACTIVATION": "relu", "UNIT": 64},
    "convolution, tiles of 64": {**CONVOLUTION, "TILE": 64, "warps": 4, "RAGGED": True, "EIGHTS": True},
    "gradient": GRADIENT, "gradient, token-major": {**GRADIENT, "UNIT": 8, "X_FEATURES": False, "RAGGED": True},
    "gradient, narrow": {**GRADIENT, "WIDE": 64, "UNIT": 64, "X_FEATURES": False, "dtype": "fp16"},
}
"""Channels-last convolutions and gradients: all that they read is fetched ahead, 16 bytes at a time."""

PLANES = {"kernel": "tile_convolution", "UNIT": 1, "X_FEATURES": True, "Y_FEATURES": True}
"""Pixels of a plane, shifted by a tap, begin anywhere: they are loaded one by one."""

SPILLED = 32
"""Bytes that may be spilled: Triton 3.6 spills 20 of a residual's addresses on sm_80, behind the loop; newer ones none."""

PRODUCT = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def compiled(capability: int, cases: list[dict[str, object]]) -> list[dict[str, int]]:
    """What ``offline.py`` says of the cases."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, Path(__file__).parent / "offline.py", str(capability), *map(json.dumps, cases)],
                          capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


QUICK = {80: ("columns", "gradient"), 90: ("columns, values by descriptor", "convolution"),
         100: ("blocks",)}


@pytest.mark.parametrize("capability", QUICK)
def test_some_compiled(capability: int) -> None:
    check(capability, {name: (CASES | BOX_CASES | OTHERS)[name] for name in QUICK[capability]})


@pytest.mark.full
@pytest.mark.parametrize("capability", QUICK)
def test_all_compiled(capability: int) -> None:
    cases = CASES | OTHERS | ({**BOX_CASES, "convolution, values by descriptor": {**CONVOLUTION, "W_BOXES": True}}
                              if capability >= 90 else {})
    if capability == 80:  # its shared memory holds three stages of 256 tokens
        cases = cases | {"columns, deep": {**CASES["columns, deep"], "stages": 3}}
    check(capability, cases)


@pytest.mark.full
@pytest.mark.parametrize("capability", QUICK)
def test_planes_compiled(capability: int) -> None:
    (found,) = compiled(capability, [PLANES])
    assert found["spilled"] <= SPILLED and found["shared"] <= SHARED_BYTES[capability] and found[PRODUCT[capability]] > 0


def check(capability: int, cases: dict[str, dict[str, object]]) -> None:
    for (name, case), found in zip(cases.items(), compiled(capability, list(cases.values())), strict=True):
        assert found["spilled"] <= SPILLED and found["registers"] <= 255, (name, found)
        assert found["shared"] <= SHARED_BYTES[capability], (name, found)
        assert found[PRODUCT[capability]] > 0, (name, found)
        stages = case.get("stages", 3)
        if not case.get("X_BOXES"):  # 16 bytes to a load of X, a prologue of all stages but one
            assert found["cp.async.cg.shared.global"] >= stages, (name, found)
        if case.get("EIGHTS"):
            assert found["st.global.v4"] > 0, (name, found)
        if case.get("W_BOXES"):
            assert found["cp.async.bulk.tensor"] >= stages, (name, found)
