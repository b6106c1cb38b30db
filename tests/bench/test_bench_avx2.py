"""The benchmark on AVX2 measures nothing while a rival uses more than that."""

import importlib.util
from pathlib import Path

import pytest
import torch

from zellige.errors import BenchmarkError

specification = importlib.util.spec_from_file_location("benchmark_avx2", Path(__file__).parents[2] / "benchmarks" / "avx2.py")
assert specification and specification.loader
avx2 = importlib.util.module_from_spec(specification)
specification.loader.exec_module(avx2)


@pytest.mark.parametrize("capability, primitive, held", [
    ("AVX2", "brgconv_avx2_f32", True), ("AVX2", "jit_avx512_f32", True), ("AVX2", "brgconv_avx512_1x1_f32", False),
    ("AVX2", "brgemm_amx_f32", False), ("AVX512", "brgconv_avx2_f32", False)])
def test_only_rivals_that_are_held_are_measured(capability, primitive, held, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    if held:
        avx2.check_held({primitive: 3})
    else:
        with pytest.raises(BenchmarkError, match="not held to AVX2"):
            avx2.check_held({primitive: 3})
