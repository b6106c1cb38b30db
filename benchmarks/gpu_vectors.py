"""Whether the CUDA C++ kernels, tile-vector-wise and tile-wise, are right: odd shapes, strides, both types, all epilogues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from gpu_error import FUNCTIONS
from gpu_masks import tile_vector_wise, tile_wise
from gpu_record import say
from gpu_run import Run

from zellige.cuda.kernels.cubins import Request
from zellige.cuda.kernels.launch import architecture
from zellige.cuda.operators.tile_vector_wise import Kernel, multiply
from zellige.cuda.tiling.two_four import ROWS
from zellige.cuda.tiling.vector_tiles import VectorTiles, vector_tiles

EVERYWHERE = [Kernel("mma", 128, 4), Kernel("mma", 256, 3)]
HOPPER = [Kernel("wgmma", 256, 5, self_arriving=True), Kernel("wgmma", 128, 6, self_arriving=True)]
TILE_WISE = [replace(kernel, stages=4, sparse=False) for kernel in HOPPER if kernel.tokens == 256]

LIMITS = {torch.bfloat16: 5e-3, torch.float16: 1e-3}
"""Relative error: one rounding of the result, and sums in float32."""

CHECK_SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    rows: int
    columns: int
    tokens: int
    sparsity: float
    bias: bool = True
    residual: bool = True
    activation: str | None = None
    dtype: torch.dtype = torch.bfloat16
    strided: bool = False


CASES = (
    Case(128, 64, 256, 0.5, False, False), Case(256, 512, 512, 0.5, False, False, dtype=torch.float16),
    Case(384, 1024, 1024, 0.75, activation="gelu"), Case(1000, 777, 4095, 0.8, activation="relu"),
    Case(1000, 777, 4095, 0.8, activation="relu", strided=True), Case(333, 1001, 17, 0.9, True, False, "silu", torch.float16),
    Case(1024, 1024, 1, 0.75, True, False), Case(515, 2047, 264, 0.9, False, True, "silu"),
    Case(4096, 4096, 4096, 0.75, True, False, "gelu"),
)


def hopper() -> bool:
    return architecture(torch.device("cuda", 0)) == "sm_90a"


def label(kernel: Kernel) -> str:
    words = {"dense": not kernel.sparse, "free": kernel.self_arriving,
             "tokens first": kernel.tokens_first}
    return " ".join([kernel.name, f"{kernel.tokens}x{kernel.stages}", *(word for word, holds in words.items() if holds)])


def correctness(run: Run) -> object:
    """Every kernel in every case: what came of it, by kernels, and what is wrong or was not done."""
    jobs = [(kernel, case) for kernel in own_kernels() for case in CASES]
    found: dict[str, list[str]] = {}
    for (kernel, case), line, reason in run.each(check, jobs, CHECK_SECONDS):
        line = f"{case}: {line or f'WRONG: {reason}'}"
        found.setdefault(label(kernel), []).append(line)
        if "WRONG" in line:
            say(f"   {label(kernel):20} {line}")
    say("   " + ", ".join(f"{name}: {len(lines)} of {len(CASES)}" for name, lines in found.items()))
    return found


def own_kernels() -> list[Kernel]:
    """Those that run on this GPU."""
    return EVERYWHERE + (TILE_WISE + HOPPER) * hopper()


def requests() -> Iterator[Request]:
    """The machine code of those that are timed."""
    name = architecture(torch.device("cuda", 0))
    return (Request(kernel.source, name, kernel.defines(torch.bfloat16, True, None)) for kernel in own_kernels())


def check(job: tuple[Kernel, Case]) -> str:
    return check_case(*job)


def check_case(kernel: Kernel, case: Case) -> str:
    torch.manual_seed(case.rows + case.tokens)
    begin, device = time.monotonic(), torch.device("cuda", 0)
    draw = tile_vector_wise if kernel.sparse else tile_wise
    mask = draw(case.rows, case.columns, case.sparsity, torch.Generator().manual_seed(case.rows)).to(device)
    weight = (torch.randn(case.rows, case.columns, device=device) * mask / case.columns**0.5).to(case.dtype)
    tiles = vector_tiles(weight, sparse=kernel.sparse).to(device)
    width = -(-case.tokens // 8) * 8 + 8 if case.strided else case.tokens
    x = torch.full((case.columns, width), torch.nan, dtype=case.dtype, device=device)[:, :case.tokens]
    x.copy_(torch.randn(case.columns, case.tokens))
    bias = torch.randn(case.rows, dtype=case.dtype, device=device) if case.bias else None
    residual = torch.randn(case.rows, case.tokens, dtype=case.dtype, device=device) if case.residual else None
    expected = weight.double() @ x.double()
    expected = expected if bias is None else expected + bias.double()[:, None]
    expected = FUNCTIONS[case.activation or "none"](expected if residual is None else expected + residual.double())
    poison = torch.full((case.rows, case.tokens), torch.nan, dtype=case.dtype, device=device)
    del poison  # its memory, most likely, becomes the result's
    y = multiply(tiles, x, bias, residual, case.activation, kernel)
    torch.cuda.synchronize()
    error = float((y.double() - expected).norm() / expected.norm().clamp_min(1e-30))
    verdict = "ok" if error <= LIMITS[case.dtype] else f"WRONG: {where_wrong(y, expected, tiles, kernel)}"
    return f"error {error:.1e} {verdict} {time.monotonic() - begin:.1f} s"


def where_wrong(y: torch.Tensor, expected: torch.Tensor, tiles: VectorTiles, kernel: Kernel) -> str:
    """Which elements are wrong, and what they have in common."""
    wrong = ~((y.double() - expected).abs() <= 0.02 * expected.abs() + 0.02 * expected.std())
    if not wrong.any():
        return "no element is far off"
    row, token = wrong.nonzero()[0].tolist()
    within = {output: place % ROWS for place, output in enumerate(tiles.rows.flatten().tolist())}
    rows = {within[output] for output in wrong.any(1).nonzero().flatten().tolist()}
    columns = set((wrong.any(0).nonzero().flatten() % kernel.tokens).tolist())
    return "; ".join([
        f"{int(wrong.sum())} of {wrong.numel()} wrong", f"first y[{row}, {token}] = {y[row, token].item()}, "
        f"not {expected[row, token].item():.5f}", f"rows within tiles: {sorted(rows)[:40]}",
        f"tokens within blocks: {sorted(columns)[:40]}",
    ])
