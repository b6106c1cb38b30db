"""What compilers make of Triton's kernels for three generations of GPUs: all in registers, loads that run ahead of the product.

A quick run compiles two to four kernels for each; ``full`` ones everything here, with every configuration that may be timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from zellige.cuda.kernels.config import REGISTERS, SHARED_BYTES, candidates
from zellige.cuda.operators.features import ATTENTION_CONFIGS, HEAD_WIDTHS, attention_configs, norm_form

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

ATTENTION = {
    f"attention, heads of {width}, {config}": {
        "kernel": "attention", "WIDTH": width, "QUERIES": config.tokens, "KEYS": config.width, "warps": config.warps,
        "stages": config.stages}
    for width in HEAD_WIDTHS for config in (*ATTENTION_CONFIGS, *attention_configs(16))
}
"""Every one that may be timed, and what short sequences get."""

NORMS = {
    f"norm of {features}, {x_features:d} to {y_features:d}": {
        "kernel": "layer_norm", "X_FEATURES": x_features, "Y_FEATURES": y_features,
        **dict(zip(("FEATURES", "TOKENS", "warps"), norm_form(features), strict=True))}
    for features, x_features, y_features in ((256, True, True), (1024, False, True), (4096, True, False), (4096, False, False))
}
TRANSPOSITION = {"transposition": {"kernel": "transposition", "warps": 4}}

ROUNDING = {
    "largest magnitude": {"kernel": "largest_magnitude", "dtype": "i16"},
    **{f"{kernel}, {dtype}": {"kernel": kernel, "dtype": dtype} for kernel in ("rounded_by_largest", "rounded_by_scale")
       for dtype in ("bf16", "fp16")},
}
"""To e4m3, 32 numbers of each thread at a time."""

SPILLED = 36
"""Bytes that may be spilled: Triton 3.6 spills 20 of a residual's addresses on sm_80, behind the loop, newer ones none; and 36 of
256 tokens × 64 rows on four warps that meet SiLU, on sm_90."""

BEHIND = 256
"""Bytes that the epilogue of a product by tokens, in eights, may spill: there the sums, as many as 128 of a thread, meet the
addresses of the residual and of the result at once. What is spilled behind the loop is written and read once for each block."""

PRODUCT = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def compiled(capability: int, cases: list[dict[str, object]]) -> list[dict[str, int]]:
    """What ``offline.py`` says of the cases."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, Path(__file__).parent / "offline.py", str(capability), *map(json.dumps, cases)],
                          capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


QUICK = {80: ("columns", "gradient", "attention, heads of 128, 64x4w2s/32", "norm of 1024, 0 to 1"),
         90: ("columns, values by descriptor", "convolution", "attention, heads of 64, 64x8w2s/64", "norm of 1024, 0 to 1"),
         100: ("blocks", "attention, heads of 64, 64x8w2s/64", "norm of 1024, 0 to 1")}


@pytest.mark.parametrize("capability", QUICK)
def test_some_compiled(capability: int) -> None:
    check(capability, {name: (CASES | BOX_CASES | OTHERS | ATTENTION | NORMS)[name] for name in QUICK[capability]})


@pytest.mark.parametrize("capability", [90, 100])
def test_rounding_compiled(capability: int) -> None:
    """Nothing spilled, four programs to a multiprocessor, 16 bytes to a load and to a store, one instruction for two numbers."""
    for (name, case), found in zip(ROUNDING.items(), compiled(capability, list(ROUNDING.values())), strict=True):
        rounds = case["kernel"] != "largest_magnitude"
        assert found["spilled"] == 0 and found["registers"] <= REGISTERS // (4 * 256), (name, found)
        assert found[".v4.b32"] == (6 if rounds else 4) and found["st.global.v4"] == (2 if rounds else 0), (name, found)
        assert found["ld.global.b16"] == 0, (name, found)
        assert found["cvt.rn.satfinite.e4m3x2.f32"] == (16 if rounds else 0), (name, found)


@pytest.mark.full
@pytest.mark.parametrize("capability", QUICK)
def test_what_stands_between_products_compiled(capability: int) -> None:
    check(capability, ATTENTION | NORMS | TRANSPOSITION)


@pytest.mark.full
@pytest.mark.parametrize("epilogue", ["bare", "gelu", "silu"])
@pytest.mark.parametrize("tile", [64, 128])
@pytest.mark.parametrize("capability", QUICK)
def test_every_configuration_compiled(capability: int, tile: int, epilogue: str) -> None:
    """Bare, that is without bias, residual and activation, none spills; so what more an epilogue spills is behind the loop."""
    cases = configured(capability, tile, epilogue)
    check(capability, cases, {name: BEHIND for name, case in cases.items() if case.get("EIGHTS") and epilogue != "bare"})


def configured(capability: int, tile: int, epilogue: str) -> dict[str, dict[str, object]]:
    """Each configuration that may be timed of a product, by features of single columns, by tokens in eights, by steps."""
    last = {"BIAS": False, "RESIDUAL": False} if epilogue == "bare" else {"ACTIVATION": epilogue}
    return {
        f"{config}, tiles of {tile}, {name}": {
            "TILE": tile, "TOKENS": config.tokens, "warps": config.warps, "stages": config.stages, "WIDTH": config.width,
            "W_BOXES": config.boxes, **forms, **last}
        for config in candidates(tile, 64, 4096, capability)
        for name, forms in (("columns", {}), ("eights by tokens", {"UNIT": 8, "EIGHTS": True, **BY_TOKENS}),
                            ("steps", {"UNIT": 64, "X_BOXES": config.boxes}))
    }


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


def check(capability: int, cases: dict[str, dict[str, object]], behind: Mapping[str, int] = MappingProxyType({})) -> None:
    """``behind``: bytes that some cases may spill behind the loop."""
    for (name, case), found in zip(cases.items(), compiled(capability, list(cases.values())), strict=True):
        kernel, stages = str(case.get("kernel", "tile_product")), case.get("stages", 3)
        assert found["spilled"] <= behind.get(name, SPILLED) and found["registers"] <= 255, (name, found)
        assert found["shared"] <= SHARED_BYTES[capability], (name, found)
        if kernel not in ("layer_norm", "transposition", "attention"):
            assert found[PRODUCT[capability]] > 0, (name, found)
        if kernel == "attention":  # a product of less than 64 rows is of the older instruction everywhere
            assert found["mma.sync"] + found[PRODUCT[capability]] > 0, (name, found)
        if kernel.startswith("tile_") and not case.get("X_BOXES"):  # 16 bytes to a load of X, a prologue of all stages but one
            assert found["cp.async.cg.shared.global"] >= stages, (name, found)
        if case.get("EIGHTS"):
            assert found["st.global.v4"] > 0, (name, found)
        if case.get("W_BOXES"):
            assert found["cp.async.bulk.tensor"] >= stages, (name, found)
