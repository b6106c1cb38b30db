"""Products with sparse weights on one NVIDIA GPU: are they right, and how fast, against cuBLAS in the same run.

    PYTHONPATH=. python benchmarks/gpu.py --results DIRECTORY --budget 280

needs torch, triton and numpy alone. Sections run in order of importance, each guarded and within what is left of the budget
(in seconds): correctness, ceilings, configurations, layers. What was measured is written after every section.

Times are device time: graphs of calls over inputs that together exceed the L2 cache, replayed in turn with the dense
product's, medians. Weights are random with random masks; a layer counts as lost if its answers are off.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import triton

from zellige.cuda.config import Config, candidates
from zellige.cuda.product import DeviceTiles, multiply
from zellige.cuda.tiles import cut_tiles
from zellige.cuda.timing import Repeated, fastest, race

TOKENS = 4096
ROTATED = 160e6  # bytes of inputs that a graph goes through: several times the L2 cache
TOLERANCE = 2e-2
DTYPE = torch.bfloat16
DEVICE = torch.device("cuda")

LAYERS = {  # name: rows, columns; in order of importance
    "llama-8b q": (4096, 4096), "llama-8b up": (14336, 4096), "llama-8b down": (4096, 14336), "bert-base up": (3072, 768),
    "bert-base q": (768, 768), "bert-base down": (768, 3072), "bert-large up": (4096, 1024), "bert-large down": (1024, 4096),
    "llama-8b kv": (1024, 4096), "vit-l qkv": (3072, 1024), "bert-large q": (1024, 1024),
}
SPARSITIES = (0.75, 0.5, 0.9)


# ------------------------------------------------------------------------------------------------------------- masks


def columns_lost(rows: int, columns: int, tile: int, share: float, uneven: bool, generator: torch.Generator) -> torch.Tensor:
    """A mask in which each tile of rows loses a share of its columns: each the same, or between half and 1.5 times of it kept."""
    tiles = -(-rows // tile)
    kept = torch.full((tiles,), 1 - share)
    if uneven:
        kept *= torch.rand(tiles, generator=generator) + 0.5
        kept *= (1 - share) / kept.mean()
    counts = (kept.clamp(0, 1) * columns).round().int()
    ranks = torch.rand(tiles, columns, generator=generator).argsort(1).argsort(1)
    return (ranks < counts[:, None]).repeat_interleave(tile, 0)[:rows]


def tile_rows(rows: int, columns: int, sparsity: float, generator: torch.Generator, uneven: bool = False) -> torch.Tensor:
    """TW1: tiles of 128 rows lose columns."""
    return columns_lost(rows, columns, 128, sparsity, uneven, generator)


def tile_wise(rows: int, columns: int, sparsity: float, generator: torch.Generator, uneven: bool = False) -> torch.Tensor:
    """TW2: rows go, and in tiles of 128 of the rest columns go; each loses 1 − √(1 − s)."""
    share = 1 - math.sqrt(1 - sparsity)
    kept = torch.randperm(rows, generator=generator)[:round(rows * (1 - share))].sort().values
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[kept] = columns_lost(len(kept), columns, 128, share, uneven, generator)
    return mask


def blocks(rows: int, columns: int, sparsity: float, generator: torch.Generator, size: int = 128) -> torch.Tensor:
    """Square blocks, drawn evenly over the weight."""
    grid = (-(-rows // size), -(-columns // size))
    ranks = torch.rand(grid[0] * grid[1], generator=generator).argsort().argsort().view(grid)
    kept = ranks >= round(ranks.numel() * sparsity)
    return kept.repeat_interleave(size, 0).repeat_interleave(size, 1)[:rows, :columns]


@dataclass(frozen=True)
class Mask:
    """How a weight is made sparse, and how Zellige cuts it: rows of a tile, columns of a group and of a step."""

    draw: Callable[..., torch.Tensor]
    tile: int
    group: int
    step: int = 64


MASKS = {
    "tw2-128": Mask(tile_wise, 128, 1),
    "block-128": Mask(partial(blocks, size=128), 128, 128),
    "block-64": Mask(partial(blocks, size=64), 64, 64),
    "tw1-128": Mask(tile_rows, 128, 1),
    "tw2-128 uneven": Mask(partial(tile_wise, uneven=True), 128, 1),
    "tw1-128 uneven": Mask(partial(tile_rows, uneven=True), 128, 1),
}


# ------------------------------------------------------------------------------------------------------- contestants


@dataclass
class Problem:
    """One sparse layer and its inputs, in both orders."""

    name: str
    rows: int
    columns: int
    mask: str
    sparsity: float
    seed: int = 0
    tokens: int = TOKENS
    density: float = field(init=False)

    @cached_property
    def weight(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        mask = MASKS[self.mask].draw(self.rows, self.columns, self.sparsity, generator).to(DEVICE)
        self.density = mask.float().mean().item()
        values = torch.randn(self.rows, self.columns, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(self.seed))
        return (values * mask / math.sqrt(self.columns)).to(DTYPE)

    @cached_property
    def token_major(self) -> list[torch.Tensor]:
        """Inputs of tokens × columns, as many as exceed the cache."""
        count = max(2, math.ceil(ROTATED / (2 * self.tokens * self.columns)))
        generator = torch.Generator(DEVICE).manual_seed(self.seed + 1)
        return [torch.randn(self.tokens, self.columns, device=DEVICE, dtype=DTYPE, generator=generator) for _ in range(count)]

    @cached_property
    def feature_major(self) -> list[torch.Tensor]:
        return [x.T.contiguous() for x in self.token_major]

    @cached_property
    def cut(self) -> DeviceTiles:
        mask = MASKS[self.mask]
        return cut_on_device(self.weight, mask.tile, mask.group, mask.step)

    def repeated(self, way: Way) -> Repeated:
        return Repeated([partial(way.product, x) for x in (self.feature_major if way.features else self.token_major)])

    def error(self, y: torch.Tensor, way: Way) -> float:
        """Of the answers for the first input: ‖y − reference‖ ÷ ‖reference‖."""
        return relative_error(y.T if way.features else y, self.token_major[0].float() @ self.weight.float().T)


@dataclass(frozen=True)
class Way:
    """A product of one input; ``features``: whether that input and the result are feature-major."""

    product: Callable[[torch.Tensor], torch.Tensor]
    features: bool


def dense(problem: Problem) -> dict[str, Way]:
    """cuBLAS in the layouts that it may choose from."""
    weight = problem.weight
    transposed = weight.T.contiguous()
    return {"tokens NT": Way(lambda x: x @ weight.T, False), "tokens NN": Way(lambda x: x @ transposed, False),
            "features": Way(lambda x: weight @ x, True)}


def tiles(problem: Problem, features: bool = True) -> dict[str, Way]:
    """Zellige's tiles in every configuration worth timing; token-major only where groups of 8 columns and more are kept."""
    mask = MASKS[problem.mask]
    if not features and mask.group < 8:
        return {}
    return {str(config): Way(partial(tile_product, problem.cut, config, features), features)
            for config in candidates(mask.tile, mask.step, problem.tokens, capability())}


def cut_on_device(weight: torch.Tensor, tile: int, group: int, step: int) -> DeviceTiles:
    return DeviceTiles.upload(cut_tiles(weight.float().cpu().numpy(), tile, group, step), DEVICE, DTYPE)


def tile_product(cut: DeviceTiles, config: Config, features: bool, x: torch.Tensor) -> torch.Tensor:
    return multiply(cut, x, x_features=features, y_features=features, config=config)


CONTESTANTS: dict[str, Callable[[Problem], dict[str, Way]]] = {
    "cublas": dense, "tiles": tiles, "tiles-tokens": partial(tiles, features=False)}
"""Who takes part, each with the ways that it may choose from before all race; the first is what the others are compared with."""


# ---------------------------------------------------------------------------------------------------------- sections


class Run:
    """What is left of the budget, and what was found."""

    def __init__(self, results: Path, budget: float):
        self.results, self.end = results, time.monotonic() + budget
        self.facts: dict[str, object] = {}
        self.pool: ProcessPoolExecutor | None = None

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def section(self, name: str, work: Callable[[Run], object], needs: float) -> None:
        if self.left < needs:
            say(f"== {name}: left out, {self.left:.0f} s are left of the budget and it takes {needs:.0f}")
            return
        say(f"== {name} ({self.left:.0f} s left)")
        begin = time.monotonic()
        try:
            self.facts[name] = work(self)
        except Exception:
            self.facts[name] = {"error": traceback.format_exc()}
            say(traceback.format_exc())
        say(f"-- {name}: {time.monotonic() - begin:.1f} s")
        self.write()

    def parallel(self, work: Callable[[Any], Any], jobs: list[Any], limit: float) -> Iterator[Any]:
        """What many processes make of the jobs, in their order, until ``limit`` seconds are over. Compiling takes longest."""
        self.pool = self.pool or ProcessPoolExecutor(max(1, min(12, (os.cpu_count() or 2) - 2)), mp_context=get_context("spawn"))
        end = time.monotonic() + limit
        waiting = [self.pool.submit(work, job) for job in jobs]
        for number, future in enumerate(waiting):
            try:
                yield future.result(timeout=max(0.0, end - time.monotonic()))
            except OutOfTime:
                say(f"   {len(jobs) - number} of {len(jobs)} jobs left undone: out of time")
                for rest in waiting:
                    rest.cancel()
                return

    def retire(self) -> None:
        """Let the processes go: they would disturb what is timed."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None

    def write(self) -> None:
        name = torch.cuda.get_device_name().lower().replace("nvidia ", "").split()[0]
        self.results.mkdir(parents=True, exist_ok=True)
        (self.results / f"gpu-{name}.json").write_text(json.dumps({"conditions": conditions(), **self.facts}, indent=1) + "\n")


def conditions() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    return {"gpu": properties.name, "multiprocessors": properties.multi_processor_count,
            "l2_bytes": getattr(properties, "L2_cache_size", None), "memory_bytes": properties.total_memory,
            "torch": torch.__version__, "cuda": torch.version.cuda,
            "triton": triton.__version__, "python": sys.version.split()[0], "tokens": TOKENS, "dtype": "bfloat16"}


CUTS = ((128, 1, 64), (128, 1, 32), (64, 1, 64), (128, 8, 64), (128, 64, 64), (64, 64, 64), (128, 128, 128))
"""Rows of a tile, columns of a group and of a step."""


SHAPES = ((1000, 777, 4095), (300, 257, 17), (128, 128, 1), (768, 768, 4096), (37, 4099, 130), (512, 2048, 64))
"""Rows, columns and tokens."""


def correctness(run: Run) -> object:
    """Configurations over awkward shapes, against float32 on the GPU, outputs poisoned beforehand."""
    cases: list[tuple[str, float]] = []
    for found in run.parallel(_cases, [(shape, number) for shape in SHAPES for number in range(len(CUTS))], 0.4 * run.left):
        cases += found
    wrong = [(case, error) for case, error in cases if not error <= TOLERANCE]
    for case, error in wrong[:40]:
        say(f"   WRONG {error:.3g} {case}")
    worst = max((error for _, error in cases if error == error), default=float("nan"))
    say(f"   {len(cases)} cases, {len(wrong)} wrong, largest relative error {worst:.2e}")
    return {"cases": len(cases), "worst": str(worst), "wrong": [f"{error:.3g} {case}" for case, error in wrong]}


def _cases(job: tuple[tuple[int, int, int], int]) -> list[tuple[str, float]]:
    """Relative errors of one shape in one cut: what was done, and the error; NaN where it could not be done."""
    (rows, columns, tokens), number = job
    tile, group, step = CUTS[number]
    activation = list(FUNCTIONS)[number % len(FUNCTIONS)]
    configs = candidates(tile, step, tokens, capability())
    found = []
    for kind, picked in (("half", configs[::max(1, len(configs) // 2)][:2]), ("full", configs[:1]), ("empty", configs[:1])):
        weight = _awkward_weight(rows, columns, group, kind)
        cut = cut_on_device(weight, tile, group, step)
        for config in picked:
            for x_features, y_features in ((True, True), (False, False), (True, False)):
                case = f"{rows}x{columns}x{tokens} tile {tile} group {group} step {step} {kind} {config} {x_features} {y_features}"
                try:
                    error = _case_error(weight, cut, tokens, activation, x_features, y_features, config)
                except Exception as problem:
                    error, case = float("nan"), f"{case} {activation}: {type(problem).__name__}: {str(problem)[-300:]}"
                found.append((case, error))
    return found


def _awkward_weight(rows: int, columns: int, group: int, kind: str) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(rows + columns)
    weight = torch.randn(rows, columns, device=DEVICE, generator=generator) / math.sqrt(columns)
    if kind == "half":
        kept = torch.rand(-(-rows // 32), -(-columns // group), device=DEVICE, generator=generator) < 0.4
        weight *= kept.repeat_interleave(32, 0).repeat_interleave(group, 1)[:rows, :columns]
        weight *= torch.rand(rows, 1, device=DEVICE, generator=generator) < 0.7
    return (weight * (kind != "empty")).to(DTYPE)


FUNCTIONS = {"none": lambda y: y, "relu": torch.relu, "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}


def _case_error(weight: torch.Tensor, cut: DeviceTiles, tokens: int, activation: str, x_features: bool, y_features: bool,
                config: Config) -> float:
    rows, columns = weight.shape
    x, bias, residual = (torch.randn(*shape, device=DEVICE, dtype=DTYPE) for shape in ((tokens, columns), (rows,), (tokens, rows)))
    reference = FUNCTIONS[activation](x.float() @ weight.float().T + bias.float() + residual.float())
    poison = torch.full((tokens * rows,), float("nan"), device=DEVICE, dtype=DTYPE)
    del poison  # the allocator hands this memory to the result
    y = multiply(cut, x.T.contiguous() if x_features else x, bias, residual.T.contiguous() if y_features else residual,
                 activation, x_features, y_features, config)
    return relative_error(y.T if y_features else y, reference)


def relative_error(y: torch.Tensor, reference: torch.Tensor) -> float:
    return ((y.float() - reference).norm() / reference.norm().clamp_min(1e-30)).item()


def ceilings(run: Run) -> object:
    """What the chip does at best: copied bytes per second, and FLOP per second of cuBLAS on random bf16 data."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE).random_()
    target = torch.empty_like(source)
    copy = median(race({"copy": Repeated([lambda: target.copy_(source)] * 4)}, 7)["copy"])
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=DTYPE) for _ in range(2))
    product = median(race({"product": Repeated([lambda: a @ b.T] * 2)}, 7)["product"])
    found = {"bytes_per_s": 2 * source.numel() / copy, "flop_per_s": 2 * 8192**3 / product}
    say(f"copy {found['bytes_per_s'] / 1e12:.2f} TB/s, 8192³ bf16 {found['flop_per_s'] / 1e12:.0f} TFLOP/s")
    return found


STUDIED = (("tw2-128", 0.75, ((128, 1, 64), (128, 1, 32), (128, 1, 128))), ("block-128", 0.5, ((128, 128, 64), (128, 128, 128))))
"""Masks and sparsities whose configurations are all timed, with the ways to cut them."""


def configurations(run: Run) -> object:
    """How the kernel's time depends on its configuration: one layer, every choice."""
    found = {}
    for mask, sparsity, cuts in STUDIED:
        name, problem = f"{mask} {sparsity:.0%}", Problem("", 4096, 4096, mask, sparsity)
        reference = min(fastest({key: partial(problem.repeated, way) for key, way in dense(problem).items()})[0].values())
        times = {}
        for tile, group, step in cuts:
            cut = cut_on_device(problem.weight, tile, group, step)
            for config in _many_configs(tile, step):
                if run.left < 100:
                    break
                label = f"step {step} {config}"
                try:
                    times[label] = median(race({0: problem.repeated(Way(partial(tile_product, cut, config, True), True))}, 5)[0])
                except Exception as error:
                    say(f"   {label}: {type(error).__name__}: {str(error)[:200]}")
        say(f"   {name}: dense {reference * 1e6:.1f} µs")
        for label, seconds in sorted(times.items(), key=lambda pair: pair[1])[:16]:
            say(f"     {seconds * 1e6:8.1f} µs  {reference / seconds:5.2f}×  {label}")
        found[name] = {"dense": reference, "times": times}
    return found


def _many_configs(tile: int, step: int) -> list[Config]:
    found = []
    for tokens, warps in ((128, 8), (256, 8), (128, 4)):
        for stages in ((3, 4, 5) if step <= 64 else (2, 3)):
            for boxes in (True, False):
                config = Config(tokens, warps, stages, boxes=boxes)
                if config.shared_bytes(tile, step) <= 226_000:
                    found.append(config)
    return [*found, *(Config(256, 8, 4, width, True) for width in (4, 8, 32) if step == 64),
            *(Config(128, 8, 3, width, True) for width in (8, 32) if step == 64)]


def layers(run: Run) -> object:
    """Every layer at every sparsity under every mask, as far as the budget goes: the first masks and layers first."""
    found = []
    for problem in _problems():
        if run.left < 12:
            say(f"stopped before {problem.name} {problem.mask}: out of time")
            break
        try:
            found.append(_layer(problem, run))
        except Exception as error:
            found.append({"name": problem.name, "mask": problem.mask, "sparsity": problem.sparsity,
                          "error": traceback.format_exc()})
            say(f"   {problem.name} {problem.mask}: {type(error).__name__}: {str(error)[:300]}")
        torch.cuda.empty_cache()
    summary = _summary([layer for layer in found if "error" not in layer])
    return {"layers": found, "summary": summary}


def _problems() -> Iterator[Problem]:
    first, names = list(MASKS)[:3], list(LAYERS)
    for masks, chosen in ((first, names[:3]), (first[:1], names[3:6]), (list(MASKS)[3:5], names[:1]), (first, names[6:]),
                          (first[1:], names[3:6]), (list(MASKS)[3:], names[1:])):
        for name in chosen:
            for mask in masks:
                for sparsity in SPARSITIES:
                    yield Problem(name, *LAYERS[name], mask, sparsity)


def _layer(problem: Problem, run: Run) -> dict[str, object]:
    ready: dict[str, Repeated] = {}
    ways: dict[str, str] = {}
    errors: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, contestant in CONTESTANTS.items():
        entries = contestant(problem)
        times, fallen = fastest({key: partial(problem.repeated, way) for key, way in entries.items()}, finalists=2, final=5)
        failed.update({f"{name} {key}": reason for key, reason in fallen.items()})
        if times:
            ways[name] = next(iter(times))
            ready[name] = problem.repeated(entries[ways[name]])
            ready[name].replay()
            errors[name] = problem.error(ready[name].results[0], entries[ways[name]])
    laps = race(ready, rounds=9)
    baseline = laps[next(iter(CONTESTANTS))]
    times = {name: median(seconds) for name, seconds in laps.items()}
    speedup = {name: median(base / own for base, own in zip(baseline, seconds, strict=True)) for name, seconds in laps.items()}
    floor = _floor(problem, run)
    say(f"   {problem.name:16} {problem.mask:15} {problem.sparsity:.0%}  " + "  ".join(
        f"{name} {times[name] * 1e6:.1f} µs {speedup[name]:.2f}× ({floor / times[name]:.0%} of roofline, {ways[name]})"
        + ("" if errors[name] <= TOLERANCE else f" WRONG {errors[name]:.2g}") for name in times))
    for name, reason in failed.items():
        say(f"      {name}: {reason}")
    return {"name": problem.name, "rows": problem.rows, "columns": problem.columns, "mask": problem.mask,
            "sparsity": problem.sparsity, "density": problem.density, "seconds": times, "speedup": speedup, "ways": ways,
            "errors": {name: str(error) for name, error in errors.items()}, "floor_s": floor, "failed": failed}


def _floor(problem: Problem, run: Run) -> float:
    """Seconds that the kept multiplications or the fewest bytes take at the chip's measured best."""
    best = run.facts.get("ceilings", {})
    if not isinstance(best, dict) or "flop_per_s" not in best:
        return float("nan")
    flop = 2 * problem.density * problem.rows * problem.columns * problem.tokens
    moved = 2 * (problem.density * problem.rows * problem.columns + problem.tokens * (problem.rows + problem.columns))
    return max(flop / best["flop_per_s"], moved / best["bytes_per_s"])


def _summary(found: list[dict]) -> dict[str, dict[str, float]]:
    """Geometric means of the speedups over layers of 2048 rows and columns or more."""
    summary: dict[str, dict[str, float]] = {}
    for mask in MASKS:
        for sparsity in sorted(SPARSITIES):
            chosen = [layer for layer in found if layer["mask"] == mask and layer["sparsity"] == sparsity
                      and min(layer["rows"], layer["columns"]) >= 2048]
            for name in CONTESTANTS:
                speedups = [layer["speedup"][name] for layer in chosen if name in layer["speedup"]]
                if speedups:
                    mean = math.exp(sum(map(math.log, speedups)) / len(speedups))
                    summary.setdefault(f"{mask} {sparsity:.0%}", {})[name] = mean
    say("   geometric means over layers of 2048² and more:")
    for key, means in summary.items():
        say(f"     {key:22} " + "  ".join(f"{name} {mean:.2f}×" for name, mean in means.items()))
    return summary


# ------------------------------------------------------------------------------------------------------------ running


def compile_ahead(run: Run) -> object:
    """Compile what the sections need, many at a time, into Triton's cache on disk."""
    wanted = sorted({(tile, group, step, config, features)
                     for mask in MASKS.values() for tile, group, step in [(mask.tile, mask.group, mask.step)]
                     for config in candidates(tile, step, TOKENS, capability())
                     for features in ((True, False) if group >= 8 else (True,))})
    wanted += [(*cut, config, True) for _, _, cuts in STUDIED for cut in cuts for config in _many_configs(cut[0], cut[2])]
    wanted = list(dict.fromkeys(wanted))
    failed = [reason for reason in run.parallel(_compile, wanted, 0.4 * run.left) if reason]
    run.retire()
    say(f"   {len(wanted)} configurations, {len(failed)} failed to compile or run")
    for reason in failed[:8]:
        say(f"   {reason}")
    return {"configurations": len(wanted), "failed": failed}


def _compile(wanted: tuple[int, int, int, Config, bool]) -> str | None:
    """Run a configuration once on a small layer with parts and once without: then its code is in the cache."""
    tile, group, step, config, features = wanted
    try:
        for columns in (16 * step, step):
            weight = torch.ones(tile, columns)
            cut = cut_on_device(weight, tile, group, step)
            x = torch.ones((columns, 512) if features else (512, columns), device=DEVICE, dtype=DTYPE)
            multiply(cut, x, x_features=features, y_features=features, config=config)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{wanted}: {type(error).__name__}: {str(error)[:200]}"
    return None


def capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def say(text: str) -> None:
    print(text, flush=True)


SECTIONS: dict[str, tuple[Callable[[Run], object], float]] = {
    "correctness": (correctness, 30), "compile": (compile_ahead, 60), "ceilings": (ceilings, 20),
    "configurations": (configurations, 110), "layers": (layers, 20),
}
"""Name → what it does, and the seconds that must be left for it to start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="directory for the JSON file")
    parser.add_argument("--budget", type=float, default=280.0, help="seconds")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS), help="sections to run")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    run = Run(arguments.results, arguments.budget)
    say(json.dumps(conditions()))
    say(subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"],
                       capture_output=True, text=True, check=False).stdout.strip() if os.path.exists("/usr/bin/nvidia-smi") else "")
    for name, (work, needs) in SECTIONS.items():
        if name in arguments.only:
            run.section(name, work, needs)
    run.retire()


if __name__ == "__main__":
    main()
