"""Whether the products in tiles are right on a GPU: awkward shapes in many configurations, and all accesses checked."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import gpu_caches
import torch
from gpu_contestants import DEVICE, DTYPE, Layer, Problem, capability, cut_on_device, tiles
from gpu_error import FUNCTIONS, checked_error, relative_error
from gpu_record import say
from gpu_run import Run
from gpu_workers import TOO_LONG

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.operators.product import multiply
from zellige.cuda.tiling.device_tiles import DeviceTiles

TOLERANCE = 2e-2

CUTS = ((128, 1, 64), (128, 8, 64), (128, 64, 64), (64, 1, 64), (64, 64, 64), (32, 32, 32), (64, 32, 64))
"""Rows of a tile, columns of a group and of a step."""

SHAPES = ((1000, 777, 4095), (512, 2048, 64), (300, 257, 17), (128, 128, 1), (37, 4099, 130))
"""Rows, columns and tokens."""

KINDS = {"half": slice(0, 2), "full": slice(-1, None), "empty": slice(0, 1)}
"""What is left of a weight, and which configurations meet it."""

ORDERS = ((True, True), (False, False), (True, False))
"""Whether x and y are feature-major."""

SUSPECT = ("tw2-128", 0.5, 4096, 4096, 512)
"""Mask, sparsity, rows, columns and tokens whose accesses are checked: neither its last tile nor its last steps are full."""

PATIENCE = 90.0
"""Seconds that a job may take, while others have the cores too."""

Case = tuple[str, float]
"""What was done, and how far off it was; NaN where it could not be done."""


# ------------------------------------------------------------------------------------------------------------ results


def correctness(run: Run) -> object:
    """Configurations over awkward shapes, each number against float64 on the GPU, outputs poisoned beforehand."""
    jobs = [(shape, number, kind) for shape in SHAPES for number in range(len(CUTS)) for kind in KINDS]
    return verdict(run, "products", shape_cases, jobs)


def verdict(run: Run, what: str, check: Callable[[Any], list[Case]], jobs: Sequence[Any], tolerance: float = TOLERANCE,
            ) -> dict[str, object]:
    """What jobs found: how many cases, the largest error (infinite: a single number is further off than rounding explains), which
    are wrong, and how many jobs tell nothing: they took too long, or nobody came to them."""
    cases: list[Case] = []
    slow, told = [], 0
    for job, found, reason in run.each(check, jobs, PATIENCE):
        if reason == TOO_LONG:
            slow.append(str(job))
            say(f"   TOO LONG {job}")
            continue
        told += 1
        cases += [(f"{job}: {reason}", float("nan"))] if reason else found
    wrong = [(case, error) for case, error in cases if not error <= tolerance]
    for case, error in wrong[:40]:
        say(f"   WRONG {error:.3g} {case}")
    worst = max((error for _, error in cases if error == error), default=float("nan"))
    say(f"   {len(cases)} {what}, {len(wrong)} wrong, largest relative error {worst:.2e}")
    return {"cases": len(cases), "worst": str(worst), "wrong": [f"{error:.3g} {case}" for case, error in wrong],
            "took too long": slow, "jobs left undone": len(jobs) - told - len(slow)}


def shape_cases(job: tuple[tuple[int, int, int], int, str]) -> list[Case]:
    """One shape in one cut, a configuration or two. The orders of x and y go round, so that each cut meets all of them."""
    (rows, columns, tokens), number, kind = job
    tile, group, step = CUTS[number]
    activation = list(FUNCTIONS)[number % len(FUNCTIONS)]
    weight = awkward_weight(rows, columns, group, kind)
    cut = cut_on_device(weight, tile, group, step)
    found = []
    for place, config in enumerate(candidates(tile, step, tokens, capability())[KINDS[kind]]):
        x_features, y_features = ORDERS[(rows + columns + tokens + list(KINDS).index(kind) + 2 * place) % len(ORDERS)]
        case = f"{rows}x{columns}x{tokens} tile {tile} group {group} step {step} {kind} {config} {x_features} {y_features}"
        try:
            error = case_error(weight, cut, tokens, activation, x_features, y_features, config)
        except torch.AcceleratorError:
            raise
        except Exception as problem:
            error, case = float("nan"), f"{case} {activation}: {type(problem).__name__}: {str(problem)[-300:]}"
        found.append((case, error))
    return found


def awkward_weight(rows: int, columns: int, group: int, kind: str) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(rows + columns)
    weight = torch.randn(rows, columns, device=DEVICE, generator=generator) / math.sqrt(columns)
    if kind == "half":
        kept = torch.rand(-(-rows // 32), -(-columns // group), device=DEVICE, generator=generator) < 0.4
        weight *= kept.repeat_interleave(32, 0).repeat_interleave(group, 1)[:rows, :columns]
        weight *= torch.rand(rows, 1, device=DEVICE, generator=generator) < 0.7
    return (weight * (kind != "empty")).to(DTYPE)


def case_error(weight: torch.Tensor, cut: DeviceTiles, tokens: int, activation: str, x_features: bool, y_features: bool,
               config: Config) -> float:
    rows, columns = weight.shape
    x, bias, residual = (torch.randn(*shape, device=DEVICE, dtype=DTYPE) for shape in ((tokens, columns), (rows,), (tokens, rows)))
    before = x.double() @ weight.double().T + bias.double() + residual.double()
    terms = x.double().abs() @ weight.double().abs().T + bias.double().abs() + residual.double().abs()
    poison = torch.full((tokens * rows,), float("nan"), device=DEVICE, dtype=DTYPE)
    del poison  # the allocator hands this memory to the result
    y = multiply(cut, x.T.contiguous() if x_features else x, bias, residual.T.contiguous() if y_features else residual,
                 activation, x_features, y_features, config)
    return checked_error(y.T if y_features else y, before, terms, columns, activation)


# ----------------------------------------------------------------------------------------------------------- accesses


def accesses(run: Run) -> object:
    """One layer in each configuration, by itself and under compute-sanitizer, every tensor in an allocation of its own."""
    script = [sys.executable, str(Path(__file__).parent / "gpu.py"), "--one", *map(str, SUSPECT)]
    found = {"plain": _output(script, run.left / 2)}
    tools = [shutil.which("compute-sanitizer"), *glob("/usr/local/cuda*/bin/compute-sanitizer")]
    sanitizer = next(filter(None, tools), None)
    if sanitizer is None:
        found["sanitized"] = "there is no compute-sanitizer"
    else:
        found["sanitized"] = _output([sanitizer, "--tool", "memcheck", "--print-limit", "5", *script], run.left)
    for name, text in found.items():
        say(f"   {name}: {text}")
    return found


def _output(command: list[str], seconds: float) -> str:
    environment = {**os.environ, **gpu_caches.environment(), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=False)
        code, text = str(done.returncode), done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        parts = (part.decode() if isinstance(part, bytes) else part or "" for part in (error.stdout, error.stderr))
        code, text = "none: it took too long", "".join(parts)
    return f"exit status {code} after {time.monotonic() - begin:.0f} s\n{text[-1800:]}"


def one(mask: str, sparsity: float, rows: int, columns: int, tokens: int) -> None:
    """Multiply once in each configuration, and print how far off the answers are."""
    problem = Problem(Layer("", rows, columns, mask, sparsity, tokens))
    x = torch.randn(tokens, columns, device=DEVICE, dtype=DTYPE)
    reference = x.float() @ problem.weight.float().T
    for features in (True, False):
        for name, way in tiles(problem, features).items():
            y = way.product(x.T.contiguous() if features else x)
            torch.cuda.synchronize()
            say(f"{name} {relative_error(y.T if features else y, reference):.2e}")
