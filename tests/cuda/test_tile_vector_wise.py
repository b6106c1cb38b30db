"""The tile-vector-wise kernels: run on an emulated GPU against float64, and compiled for real ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from emulated_kernel import emulated, needs_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_weights import random_weight, reference, relative_error

from zellige.cuda.kernels.launch import architecture
from zellige.cuda.kernels.nvrtc import MachineCode, machine_code
from zellige.cuda.operators import tile_vector_wise
from zellige.cuda.operators.tile_vector_wise import DENSE, ELSEWHERE, KERNELS, Kernel, multiply
from zellige.cuda.tiling.vector_tiles import vector_tiles
from zellige.errors import CompileError, InputError

MMA, WIDE_MMA = Kernel("mma", tokens=128, stages=3), Kernel("mma", tokens=256, stages=4, tokens_first=True)
WGMMA, NARROW_WGMMA = Kernel("wgmma", tokens=256, stages=5), Kernel("wgmma", tokens=128, stages=3, tokens_first=True)
FREE_WGMMA = Kernel("wgmma", tokens=128, stages=3, self_arriving=True)
DENSE_WGMMA = Kernel("wgmma", tokens=128, stages=3, tokens_first=True, sparse=False)

CASES = [
    # kernel, type, n, k, tokens, bias, residual, activation
    pytest.param(MMA, torch.bfloat16, 300, 520, 136, True, True, "gelu", marks=pytest.mark.full),
    (MMA, torch.bfloat16, 300, 520, 137, True, True, "gelu"),
    pytest.param(MMA, torch.bfloat16, 130, 67, 1, False, False, "gelu", marks=pytest.mark.full),
    pytest.param(WIDE_MMA, torch.float16, 129, 333, 264, True, False, None, marks=pytest.mark.full),
    pytest.param(WGMMA, torch.bfloat16, 300, 520, 264, True, True, "gelu", marks=pytest.mark.full),
    pytest.param(WGMMA, torch.bfloat16, 300, 520, 137, True, True, "gelu", marks=pytest.mark.full),
    pytest.param(WGMMA, torch.bfloat16, 130, 67, 1, False, False, "gelu", marks=pytest.mark.full),
    pytest.param(NARROW_WGMMA, torch.float16, 129, 333, 264, True, False, None, marks=pytest.mark.full),
    (FREE_WGMMA, torch.bfloat16, 300, 520, 264, False, True, "silu"),
    (DENSE_WGMMA, torch.bfloat16, 300, 520, 264, True, True, "gelu"),
    pytest.param(DENSE_WGMMA, torch.float16, 130, 67, 17, False, False, None, marks=pytest.mark.full),
    pytest.param(DENSE, torch.bfloat16, 300, 520, 261, True, False, None, marks=pytest.mark.full),
]

TOLERANCE = {torch.bfloat16: 1.05 * 2**-8, torch.float16: 1.05 * 2**-11}
"""One rounding of the result: at most half a unit in the last of 8 or 11 bits; sums in float32 add next to nothing."""


@needs_compiler
@pytest.mark.parametrize("lazy", [False, True], ids=["at-once", "when-waited-for"])
@pytest.mark.parametrize("kernel, dtype, n, k, tokens, with_bias, with_residual, activation", CASES)
def test_the_kernel_on_an_emulated_gpu(
    kernel: Kernel, dtype: torch.dtype, n: int, k: int, tokens: int, with_bias: bool, with_residual: bool, activation: str | None,
    lazy: bool,
) -> None:  # fmt: skip
    torch.manual_seed(n + k)
    weight, columns = random_weight(n, k, dtype, seed=tokens, two_four=kernel.sparse)
    x = torch.randn(k, tokens).to(dtype)
    bias = torch.randn(n).to(dtype) if with_bias else None
    residual = torch.randn(n, tokens).to(dtype) if with_residual else None
    tiles = vector_tiles(weight, columns, kernel.sparse)
    y = emulated(kernel, tiles, x, bias, residual, activation, tokens % 8 == 0, lazy, seed=7)
    assert relative_error(y, reference(weight, x, bias, residual, activation)) < TOLERANCE[dtype]


@needs_compiler
@pytest.mark.full
@settings(max_examples=60)
@given(st.sampled_from([MMA, NARROW_WGMMA, FREE_WGMMA, DENSE_WGMMA]), st.integers(1, 400), st.integers(1, 400),
       st.integers(1, 300), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31 - 1))
def test_any_shape_on_an_emulated_gpu(
    kernel: Kernel, n: int, k: int, tokens: int, strided: bool, with_residual: bool, lazy: bool, seed: int
) -> None:
    """Rows of X that start at multiples of 16 bytes, so that the last chunk of a row may be partly there; or any."""
    torch.manual_seed(seed)
    weight, columns = random_weight(n, k, torch.bfloat16, seed=seed, dropped=0.4, two_four=kernel.sparse)

    def rows_of(count: int) -> torch.Tensor:
        stride = -(-tokens // 8) * 8 if strided else tokens
        return torch.full((count, stride), torch.nan, dtype=torch.bfloat16)[:, :tokens].copy_(torch.randn(count, tokens))

    x, bias, residual = rows_of(k), torch.randn(n).to(torch.bfloat16), rows_of(n) if with_residual else None
    y = emulated(kernel, vector_tiles(weight, columns, kernel.sparse), x, bias, residual, "silu", strided, lazy, seed)
    assert relative_error(y, reference(weight, x, bias, residual, "silu")) < TOLERANCE[torch.bfloat16]


BROKEN = [
    (MMA, "wait_for_copies<STAGES - 2>();", "wait_for_copies<STAGES - 1>();"),
    (MMA, "__syncthreads();                             // the stages become", "// the stages become"),
    (MMA, "copy_step(step + STAGES - 1);", "copy_step(step + STAGES);"),
    (MMA, "quarter * N_TILES + j) * 8", "quarter * N_TILES + j) * 8 + 1"),
    (WGMMA, "wait_for_copies<LAG>();", "wait_for_copies<LAG + 1>();"),
    (WGMMA, "show_tensor_cores();", ""),
    (WGMMA, "wait_for_products<0>(sums);", ""),
    (WGMMA, "barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);", ""),
    (WGMMA, "ring.parity ^ 1", "ring.parity"),
    (WGMMA, "b + (32 * 128 >> 4)", "b + (32 * 128 >> 3)"),
    (WGMMA, "while (late > 0) arrive();", ""),
    (FREE_WGMMA, "if (COPIES_ARRIVE) show_tensor_cores();", ""),
    (FREE_WGMMA, "barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);", ""),
    (FREE_WGMMA, "barrier_wait(shared.full(ring.stage), ring.parity);", "show_tensor_cores();"),
    (DENSE_WGMMA, "a + (k * 2 >> 4)", "a + (k * 128 >> 4)"),
    (DENSE_WGMMA, "b + (k * 128 >> 4)", "b"),
    (DENSE_WGMMA, "warp / 4 * (64 * 128)", "0"),
    (DENSE_WGMMA, "wait_for_products<0>(sums);", ""),
    (WGMMA, "wait_for_products<0>(sums);", "wait_for_products<1>(sums);"),
    (WGMMA, "begin_products();", ""),
    (WGMMA, "show_barriers();", ""),
]


@needs_compiler
@pytest.mark.full
@pytest.mark.parametrize("kernel, right, wrong", BROKEN)
def test_the_emulated_gpu_sees_a_broken_kernel(kernel: Kernel, right: str, wrong: str) -> None:
    torch.manual_seed(1)
    weight, columns = random_weight(200, 1400, torch.bfloat16, seed=1, kept=0.7, two_four=kernel.sparse)
    x = torch.randn(1400, 264).to(torch.bfloat16)
    expected, tiles = reference(weight, x, None, None, None), vector_tiles(weight, columns, kernel.sparse)

    def fails(lazy: bool, seed: int) -> bool:
        try:
            y = emulated(kernel, tiles, x, None, None, None, True, lazy, seed, (right, wrong))
        except AssertionError:
            return True
        return relative_error(y, expected) > TOLERANCE[torch.bfloat16]

    assert any(fails(lazy, seed) for seed in range(3) for lazy in (False, True))


def compiled(
    kernel: Kernel, target: str, dtype: torch.dtype = torch.bfloat16, aligned: bool = True, activation: str | None = None
) -> MachineCode:
    pytest.importorskip("cuda.bindings.nvrtc", reason="CUDA C++ is NOT COMPILED: cuda-bindings is not installed")
    return machine_code(kernel.source, target, kernel.defines(dtype, aligned, activation))


@pytest.mark.parametrize("kernel, target, dtype, aligned, activation, most_registers", [
    (KERNELS["sm_80"], "sm_80", torch.bfloat16, True, None, 168),
    pytest.param(KERNELS["sm_80"], "sm_80", torch.float16, False, "gelu", 168, marks=pytest.mark.full),
    pytest.param(ELSEWHERE, "sm_89", torch.bfloat16, True, "silu", 168, marks=pytest.mark.full),
    (ELSEWHERE, "sm_100", torch.bfloat16, True, None, 184),
    pytest.param(ELSEWHERE, "sm_100", torch.float16, False, "gelu", 184, marks=pytest.mark.full),
    pytest.param(Kernel("mma", tokens=256, stages=3), "sm_80", torch.bfloat16, True, "gelu", 255, marks=pytest.mark.full),
    pytest.param(Kernel("mma", tokens=256, stages=4), "sm_90a", torch.bfloat16, True, None, 255, marks=pytest.mark.full),
    (KERNELS["sm_90a"], "sm_90a", torch.bfloat16, True, None, 168),
    pytest.param(KERNELS["sm_90a"], "sm_90a", torch.float16, False, "gelu", 168, marks=pytest.mark.full),
    pytest.param(Kernel("wgmma", tokens=128, stages=6), "sm_90a", torch.bfloat16, True, "relu", 168, marks=pytest.mark.full),
    (DENSE, "sm_90a", torch.bfloat16, True, None, 168),
    pytest.param(DENSE, "sm_90a", torch.float16, False, "gelu", 168, marks=pytest.mark.full),
])  # fmt: skip
def test_the_compiler_keeps_sums_in_registers(
    kernel: Kernel, target: str, dtype: torch.dtype, aligned: bool, activation: str | None, most_registers: int
) -> None:
    """Few or no spills, registers and shared memory of a multiprocessor enough for a block, wgmma not serialised."""
    log = compiled(kernel, target, dtype, aligned, activation).log
    registers, stored = int(re.search(r"Used (\d+) registers", log)[1]), int(re.search(r"(\d+) bytes spill stores", log)[1])
    assert registers <= most_registers and registers * kernel.threads <= 65536
    assert stored <= (16 if activation == "gelu" else 0)  # outside of the loop over steps
    assert "serialized" not in log and "warning" not in log.lower()
    shared = {"sm_80": 166_912, "sm_89": 101_376, "sm_90a": 232_448, "sm_100": 232_448}[target]
    assert kernel.shared_bytes <= shared


@pytest.mark.parametrize("kernel, target, instruction, count", [
    (Kernel("mma", tokens=128, stages=3), "sm_80", "HMMA.SP.16832.F32.BF16", 2 * 4 * 4),
    (Kernel("wgmma", tokens=256, stages=5), "sm_90a", "HGMMA.SP.64x256x32.F32.BF16", 2),
    (DENSE, "sm_90a", "HGMMA.64x256x16.F32.BF16", 4),
])  # fmt: skip
def test_tensor_cores_are_used(kernel: Kernel, target: str, instruction: str, count: int, tmp_path: Path) -> None:
    triton = pytest.importorskip("triton", reason="machine code is NOT READ: triton, which carries cuobjdump, is not installed")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    program = shutil.which("cuobjdump") or (str(tool) if tool.exists() else None)
    if program is None:
        pytest.skip("machine code is NOT READ: no cuobjdump")
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled(kernel, target).cubin)
    text = subprocess.run([program, "--dump-sass", cubin], capture_output=True, text=True, check=True).stdout
    found = text.count(instruction)
    assert found and found % count == 0
    assert not re.search(r"\b(LDL|STL)\b", text)


def test_every_source_goes_with_the_package() -> None:
    listed = Path(__file__).parents[2].joinpath("pyproject.toml").read_text()
    assert '"cuda/kernels/*.cu"' in listed and '"cuda/kernels/*.cuh"' in listed


def test_what_the_product_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, columns = random_weight(64, 32, torch.float16, seed=1)
    tiles, x = vector_tiles(weight, columns), torch.ones(32, 16, dtype=torch.float16)
    monkeypatch.setattr(tile_vector_wise, "architecture", lambda device: "sm_80")
    for arguments, message in [
        ((x.float(),), "expected x like the weight"),
        ((x[:5],), r"expected x of shape \[32, None\]"),
        ((x[0],), "expected x of shape"),
        ((x.t().contiguous().t(),), "contiguous"),
        ((x, x[0]), r"expected bias of shape \[64\]"),
        ((x, None, x), r"expected residual of shape \[64, 16\]"),
        ((x, None, None, "tanh"), "activations"),
        ((x, None, None, None, WGMMA), "compute capability 9.0 alone"),
        ((x, None, None, None, DENSE), "expected a kernel with sparse=True"),
    ]:
        with pytest.raises(InputError, match=message):
            multiply(tiles, *arguments)


def test_the_operator_is_exported() -> None:
    """Its result is known without a GPU; that it runs is for a GPU to show."""
    weight, columns = random_weight(64, 32, torch.float16, seed=1)
    tiles = vector_tiles(weight, columns)

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return multiply(tiles, x, activation="gelu", kernel=WIDE_MMA)

    program = torch.export.export(Layer(), (torch.ones(32, 16, dtype=torch.float16),))
    (found,) = [node for node in program.graph.nodes if "tile_vector_product" in str(node.target)]
    assert found.meta["val"].shape == (64, 16) and found.meta["val"].dtype == torch.float16
    assert found.args[-2:] == ("gelu", WIDE_MMA.numbers())


@pytest.mark.parametrize("kernel", [MMA, WIDE_MMA, FREE_WGMMA, DENSE, ELSEWHERE])
def test_kernels_as_numbers(kernel: Kernel) -> None:
    assert Kernel.of(kernel.numbers()) == kernel and Kernel.of([]) is None


def test_a_gpu_is_needed() -> None:
    weight, columns = random_weight(64, 32, torch.float16, seed=1)
    with pytest.raises(CompileError, match="expected an NVIDIA GPU"):
        multiply(vector_tiles(weight, columns), torch.ones(32, 16, dtype=torch.float16))


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for capability, expected in {(7, 5): None, (8, 6): "sm_86", (9, 0): "sm_90a", (12, 0): "sm_120"}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        if expected is None:
            with pytest.raises(CompileError, match=r"Tesla T4 has 7\.5"):
                architecture(torch.device("cuda", 0))
        else:
            assert architecture(torch.device("cuda", 0)) == expected


def test_what_the_compiler_refuses_is_told() -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    with pytest.raises(CompileError, match=r"tile_vector_wise_mma\.cu for sm_80 with \{'BFLOAT16': 1\}"):
        machine_code(MMA.source, "sm_80", (("BFLOAT16", 1),))


def test_missing_bindings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(CompileError, match="install cuda-bindings"):
        machine_code.__wrapped__(MMA.source, "sm_80", ())
