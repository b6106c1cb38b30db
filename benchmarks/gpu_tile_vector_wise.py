"""Check and time the tile-vector-wise kernels on an NVIDIA GPU, beside cuBLAS through PyTorch.

    PYTHONPATH=. python benchmarks/gpu_tile_vector_wise.py --results benchmarks/results

First every kernel against float64: odd shapes, strided rows, empty tiles, both types, all epilogues; a wrong result says where.
Then time: 4096 tokens, bf16, weights and activations rotating through more than 150 MB, each contestant's rotation in a CUDA
graph, replays alternating, device events, medians. Dense is the faster of W·X (feature-major, what the kernels compute) and
``linear`` (token-major, what a network calls). *Sparsity* is the share of zeros: 75 % is tile-wise 50 % (each dimension loses
1 − √0.5) with 2:4 inside, tiles differing by up to 10 % in their columns.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from zellige.cuda.launch import architecture
from zellige.cuda.tile_vector_wise import Kernel, multiply
from zellige.cuda.two_four import ROWS, STEP
from zellige.cuda.vector_tiles import VectorTiles, vector_tiles

TOKENS, ROTATION = 4096, 150e6
SHAPES = {
    "Llama-3-8B q, o": (4096, 4096), "Llama-3-8B k, v": (1024, 4096),
    "Llama-3-8B gate, up": (14336, 4096), "Llama-3-8B down": (4096, 14336),
    "BERT-large, ViT-L attention": (1024, 1024), "BERT-large, ViT-L up": (4096, 1024), "BERT-large, ViT-L down": (1024, 4096),
    "ViT-L qkv": (3072, 1024),
}  # fmt: skip
"""N × K."""

TILE_WISE = {0.5: 0.0, 0.75: 0.5, 0.9: 0.8}
"""Sparsity → the tile-wise part of it."""

TARGETS = {0.75: 1.85, 0.9: 3.5}
FUNCTIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda y: y, "relu": torch.relu, "gelu": functional.gelu, "silu": functional.silu}  # fmt: skip
CHECK_SECONDS = 75
EVERYWHERE = [Kernel("mma", 128, 4), Kernel("mma", 256, 3)]
HOPPER = [Kernel("wgmma", 256, 5, together=together, self_arriving=free) for together in (1, 2) for free in (False, True)]
HOPPER += [Kernel("wgmma", 128, 6, self_arriving=True)]


def say(*words: object) -> None:
    print(*words, flush=True)


def make_weight(
    n: int, k: int, rows_kept: float, columns_kept: float, dtype: torch.dtype, spread: float = 0.0,
) -> tuple[Tensor, list]:  # fmt: skip
    """A weight that is tile-vector-wise, on the GPU, and the columns of its tiles."""
    surviving = torch.randperm(n)[: round(n * rows_kept)].sort().values
    weight, columns = torch.zeros(n, k, dtype=dtype, device="cuda"), []
    for first in range(0, len(surviving), ROWS):
        rows = surviving[first : first + ROWS].cuda()
        share = columns_kept * (1 + spread * (2 * torch.rand(()).item() - 1)) if columns_kept < 1 else 1.0
        order = torch.randperm(k)[: max(1, min(k, round(k * share)))]
        order = order.sort().values if spread else order
        part = torch.randn(len(rows), -(-len(order) // 4), 4, device="cuda") / math.sqrt(len(order) / 2)
        part = part * (part.abs().argsort(-1).argsort(-1) > 1)
        weight[rows[:, None], order.cuda()[None]] = part.flatten(1)[:, : len(order)].to(dtype)
        empty = rows[~weight[rows].any(1)]  # a row whose numbers were all cut off would count as dropped
        weight[empty, int(order[0])] = 1.0
        columns.append(order.numpy())
    return weight, columns


def where_wrong(y: Tensor, expected: Tensor, tiles: VectorTiles, kernel: Kernel) -> str:
    """Which elements are wrong, and what they have in common."""
    wrong = ~((y.double() - expected).abs() <= 0.02 * expected.abs() + 0.02 * expected.std())
    if not wrong.any():
        return "no element is far off"
    row, token = wrong.nonzero()[0].tolist()
    flat = tiles.rows.flatten().tolist()
    within = torch.tensor([flat.index(output) % ROWS for output in range(y.shape[0])], device=y.device)
    rows, columns = wrong.any(1), wrong.any(0).nonzero().flatten() % kernel.tokens
    return "; ".join([
        f"{int(wrong.sum())} of {wrong.numel()} wrong",
        f"first y[{row}, {token}] = {y[row, token].item()} for {expected[row, token].item():.5f}",
        f"rows within tiles: {sorted(set(within[rows].tolist()))[:40]}",
        f"tokens within blocks: {sorted(set(columns.tolist()))[:40]}",
        f"first 16 outputs x 16 tokens, 1 = wrong: {[''.join(map(str, line)) for line in wrong[:16, :16].int().tolist()]}",
    ])  # fmt: skip


CASES = [
    # n, k, tokens, kept rows, kept columns, bias, residual, activation, type
    (128, 64, 256, 1.0, 1.0, False, False, None, torch.bfloat16),
    (128, 256, 256, 1.0, 1.0, False, False, None, torch.bfloat16),
    (256, 512, 512, 1.0, 1.0, False, False, None, torch.float16),
    (384, 1024, 1024, 0.7, 0.7, True, True, "gelu", torch.bfloat16),
    (1000, 777, 4095, 0.7, 0.5, True, True, "relu", torch.bfloat16),
    (333, 1001, 17, 0.5, 0.3, True, False, "silu", torch.float16),
    (1024, 1024, 1, 0.7, 0.7, True, False, None, torch.bfloat16),
    (515, 2047, 264, 0.9, 0.2, False, True, "silu", torch.bfloat16),
    (200, 100, 300, 0.0, 0.5, True, False, "gelu", torch.bfloat16),
    (4096, 4096, 4096, 0.7, 0.7, True, False, "gelu", torch.bfloat16),
]


def check(kernel: Kernel, case: tuple, strided: bool) -> str:
    n, k, tokens, rows_kept, columns_kept, with_bias, with_residual, activation, dtype = case
    weight, columns = make_weight(n, k, rows_kept, columns_kept, dtype)
    tiles = vector_tiles(weight, columns).to("cuda")
    width = -(-tokens // 8) * 8 + 8 if strided else tokens
    x = torch.full((k, width), torch.nan, dtype=dtype, device="cuda")[:, :tokens].copy_(torch.randn(k, tokens))
    bias = torch.randn(n, dtype=dtype, device="cuda") if with_bias else None
    residual = torch.randn(n, tokens, dtype=dtype, device="cuda") if with_residual else None
    expected = weight.double() @ x.double()
    expected = expected if bias is None else expected + bias.double()[:, None]
    expected = FUNCTIONS[activation](expected if residual is None else expected + residual.double())
    poison = torch.full((n, tokens), torch.nan, dtype=dtype, device="cuda")
    del poison  # its memory, most likely, becomes the result's
    y = multiply(tiles, x, bias, residual, activation, kernel)
    torch.cuda.synchronize()
    error = float((y.double() - expected).norm() / expected.norm().clamp_min(1e-30))
    limit = 5e-3 if dtype == torch.bfloat16 else 1e-3
    verdict = "ok" if error <= limit else f"WRONG: {where_wrong(y, expected, tiles, kernel)}"
    return f"error {error:.1e} {verdict}"


def guarded(what: str, action: Callable[[], object]) -> object:
    """Its result; an error is printed and lets the rest run."""
    try:
        return action()
    except Exception as error:
        say(what, "FAILED:", type(error).__name__, str(error)[:600])
        if not isinstance(error, (RuntimeError, ValueError)):
            traceback.print_exc(limit=3)
        return None


def check_all(kernel: Kernel) -> bool:
    """Whether a kernel is right in every case; prints each."""
    wrong = 0
    for case in CASES:
        for strided in (False, True) if case[2] % 8 == 1 or case[2] == 4095 else (False,):
            torch.manual_seed(case[0] + case[2])
            begin = time.monotonic()
            result = guarded(f"{kernel} {case}", lambda case=case, strided=strided: check(kernel, case, strided))
            say(label(kernel), *case, "strided" if strided else "", result, f"{time.monotonic() - begin:.1f} s")
            wrong += not str(result).endswith("ok")
    return not wrong


def correctness(kernels: list[Kernel]) -> list[Kernel]:
    """The kernels that are right everywhere. Each is checked in a process of its own: one that fails or hangs ends alone."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    children = [subprocess.Popen([sys.executable, __file__, "--check", str(index)], **options) for index, _ in enumerate(kernels)]
    deadline, right = time.monotonic() + CHECK_SECONDS, []
    for kernel, child in zip(kernels, children, strict=True):
        try:
            output, _ = child.communicate(timeout=max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            output = child.communicate()[0] + "\ndid not end in time"
        say(output.rstrip())
        right += [kernel] if child.returncode == 0 else []
        say("=>", label(kernel), "is right" if child.returncode == 0 else f"is WRONG (exit {child.returncode})")
    return right


def captured(launches: list[Callable[[], object]]) -> torch.cuda.CUDAGraph:
    for launch in launches[:2]:
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for launch in launches:
            launch()
    return graph


def microseconds(graphs: dict[str, torch.cuda.CUDAGraph], calls: int, rounds: int = 9) -> dict[str, float]:
    """Median over rounds of a replay's time for each call, contestants in turn."""
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for round_ in range(rounds + 2):
        for name, graph in graphs.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            if round_ > 1:
                times[name].append(begin.elapsed_time(end) * 1e3 / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def label(kernel: Kernel) -> str:
    words = {"paired": kernel.together == 2, "free": kernel.self_arriving, "tokens first": kernel.tokens_first}
    return " ".join([kernel.name, f"{kernel.tokens}x{kernel.stages}", *(word for word, holds in words.items() if holds)])


def speed(name: str, n: int, k: int, sparsity: float, kernels: list[Kernel]) -> dict:
    """One shape at one sparsity: microseconds of every contestant."""
    torch.manual_seed(n + k)
    kept = math.sqrt(1 - TILE_WISE[sparsity])
    weight, columns = make_weight(n, k, kept, kept, torch.bfloat16, spread=0.1)
    packed = vector_tiles(weight, columns)
    sets = max(4, math.ceil(ROTATION / (2 * TOKENS * k)))
    xs = [torch.randn(k, TOKENS, dtype=torch.bfloat16, device="cuda") for _ in range(sets)]
    dense = [weight.clone() for _ in range(sets)]
    tiles = [packed.to("cuda") for _ in range(sets)]
    expected = torch.matmul(weight, xs[0])
    graphs = {
        "W·X": captured([lambda i=i: torch.matmul(dense[i], xs[i]) for i in range(sets)]),
        "linear": captured([lambda i=i: functional.linear(xs[i].view(TOKENS, k), dense[i]) for i in range(sets)]),
    }
    for kernel in kernels:
        y = multiply(tiles[0], xs[0], kernel=kernel)
        error = float((y.float() - expected.float()).norm() / expected.float().norm())
        if not error < 1e-2:
            say(f"{name} {sparsity}: {kernel} is WRONG: {error:.1e}; {where_wrong(y, expected.double(), packed, kernel)}")
            continue
        graphs[label(kernel)] = captured([lambda i=i, kernel=kernel: multiply(tiles[i], xs[i], kernel=kernel) for i in range(sets)])
    times = microseconds(graphs, sets)
    baseline = min(times["W·X"], times["linear"])
    ours = {key: value for key, value in times.items() if key not in ("W·X", "linear")}
    best = min(ours, key=lambda key: ours[key]) if ours else None
    steps = len(packed.images)
    done = 2 * steps * STEP * ROWS * TOKENS
    result = {"shape": name, "n": n, "k": k, "tokens": TOKENS, "sparsity": sparsity,
              "stored_density": packed.density, "microseconds": times,
              "dense_tflops": 2 * n * k * TOKENS / baseline / 1e6, "best": best, "speedup": baseline / ours[best] if best else 0.0,
              "expanded_tflops": done / ours[best] / 1e6 if best else 0.0}  # fmt: skip
    say(f"{name:28} {n:5}x{k:<5} {sparsity:.0%}  dense {baseline:7.1f} us ({result['dense_tflops']:3.0f} TFLOP/s)  "
        f"{result['speedup']:.2f}x by {best} ({result['expanded_tflops']:.0f} TFLOP/s with the 2:4 zeros)  "
        + "  ".join(f"{key} {value:.1f}" for key, value in ours.items()))  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="a directory for gpu-tile-vector-wise.json")
    parser.add_argument("--seconds", type=float, default=160, help="stop starting new measurements after this long")
    parser.add_argument("--check", type=int, metavar="INDEX", help="check one kernel, and time nothing")
    arguments = parser.parse_args()
    begin = time.monotonic()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU: this script measures on one")
    device = torch.device("cuda", 0)
    kernels = EVERYWHERE + (HOPPER if architecture(device) == "sm_90a" else [])
    if arguments.check is not None:
        sys.exit(0 if check_all(kernels[arguments.check]) else 1)
    say(torch.cuda.get_device_name(device), architecture(device), "torch", torch.__version__)
    right = correctness(kernels)
    say(f"{time.monotonic() - begin:.0f} s; right: {[label(kernel) for kernel in right]}")
    all_right = len(right) == len(kernels)
    right += [replace(kernel, tokens_first=True) for kernel in right]
    results = []
    for name, (n, k) in SHAPES.items():
        for sparsity in TILE_WISE:
            if right and time.monotonic() - begin < arguments.seconds:
                what = (name, n, k, sparsity)
                result = guarded(str(what), lambda what=what: speed(*what, right))
                results += [result] if result else []
    for sparsity, target in TARGETS.items():
        large = [result["speedup"] for result in results
                 if result["sparsity"] == sparsity and min(result["n"], result["k"]) >= 2048 and result["best"]]  # fmt: skip
        if large:
            mean = statistics.geometric_mean(large)
            say(f"{sparsity:.0%}: geometric mean of {len(large)} shapes >= 2048: {mean:.2f}x (to reach: {target}x)")
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        content = {"device": torch.cuda.get_device_name(device), "torch": torch.__version__,
                   "right": [label(kernel) for kernel in right], "speed": results}  # fmt: skip
        (arguments.results / "gpu-tile-vector-wise.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    say(f"{time.monotonic() - begin:.0f} s")
    sys.exit(0 if all_right else 1)


if __name__ == "__main__":
    main()
