"""How fast layers are on a GPU: every contestant's best way, in turn, as many layers as the budget allows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, TypeVar

import torch
from gpu_contestants import BY_STEPS, CONTESTANTS, DEVICE, DTYPE, TOKENS, TWO_FOUR_BY_STEPS, Layer, Problem, Way, cublas
from gpu_correctness import TOLERANCE
from gpu_error import relative_error
from gpu_record import say
from gpu_run import Run

from zellige.cuda.layers.choices import ChoiceCache
from zellige.cuda.layers.linear import TileWiseLinear, choose
from zellige.cuda.layers.timing import Repeated, fastest, race

W = TypeVar("W")

LARGE = {"llama-8b q": (4096, 4096), "llama-8b up": (14336, 4096), "llama-8b down": (4096, 14336)}
"""Name → rows, columns: the layers of 2048² and more."""

SMALL = {"bert-base up": (3072, 768), "bert-base q": (768, 768), "bert-base down": (768, 3072), "bert-large up": (4096, 1024),
         "bert-large down": (1024, 4096), "llama-8b kv": (1024, 4096), "vit-l qkv": (3072, 1024), "bert-large q": (1024, 1024)}

SPARSITIES = (0.75, 0.5, 0.9)
PATIENCE = 40.0
"""Seconds that a layer may take."""


def ceilings(run: Run) -> object:
    """What the chip does at best."""
    found = run.one(time_ceilings, None, PATIENCE)
    say(f"   copy {found['bytes_per_s'] / 1e12:.2f} TB/s, 8192³ bf16 {found['flop_per_s'] / 1e12:.0f} TFLOP/s")
    return found


def time_ceilings(_: None) -> dict[str, float]:
    """Copied bytes per second, and FLOP per second of cuBLAS on random bf16 data."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE).random_()
    copy = median(race({"copy": Repeated([partial(torch.empty_like(source).copy_, source)] * 4)}, 7)["copy"])
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=DTYPE) for _ in range(2))
    product = median(race({"product": Repeated([partial(torch.matmul, a, b.T)] * 2)}, 7)["product"])
    return {"bytes_per_s": 2 * source.numel() / copy, "flop_per_s": 2 * 8192**3 / product}


def measured_ceilings(run: Run) -> dict[str, float]:
    """Those of this run, measured when they are first asked for."""
    if "flop_per_s" not in run.facts.get("ceilings", {}):
        run.record.put("ceilings", ceilings(run))
    found: dict[str, float] = run.facts["ceilings"]
    return found


def least_seconds(flop: float, moved: float, best: dict[str, float]) -> float:
    """What so many operations or bytes take at the chip's measured best."""
    return max(flop / best["flop_per_s"], moved / best["bytes_per_s"])


def of(layers: dict[str, tuple[int, int]], masks: Sequence[str], sparsities: Sequence[float] = SPARSITIES) -> Iterator[Layer]:
    for sparsity in sparsities:
        for name, (rows, columns) in layers.items():
            for mask in masks:
                yield Layer(name, rows, columns, mask, sparsity)


def large(run: Run) -> object:
    return timed(run, list(of(LARGE, ("block-128", "tw2-128"))))


def blocks(run: Run) -> object:
    """Tile-wise with columns in runs as long as a step, by the kernel from tensor maps."""
    return timed(run, [*of(LARGE, (BY_STEPS,), (0.5, 0.75, 0.9)), *of(SMALL, (BY_STEPS,), (0.5, 0.75))])


def small(run: Run) -> object:
    return timed(run, list(of(SMALL, ("tw1-128", "block-128"))))


def vectors(run: Run) -> object:
    return timed(run, list(of(LARGE | {"bert-large up": SMALL["bert-large up"]}, ("tvw-128",), (0.75, 0.9))))


def two_four(run: Run) -> object:
    """Tile-vector-wise with columns in runs as long as a step, compressed, by the kernel from tensor maps."""
    return timed(run, list(of(LARGE | {"bert-large up": SMALL["bert-large up"]}, (TWO_FOUR_BY_STEPS,))))


def paired(run: Run) -> object:
    """Blocks of 64 rows: as they are by the kernel of tiles, two to a tile by the kernel from tensor maps."""
    return timed(run, list(of(LARGE, ("block-64",))))


def others(run: Run) -> object:
    """For the comparison with smaller blocks and with no structure, at the same sparsity."""
    few = {name: (LARGE | SMALL)[name] for name in ("llama-8b q", "bert-base up")}
    return timed(run, list(of(few, ("block-32", "unstructured"))))


def uneven(run: Run) -> object:
    return timed(run, list(of({"llama-8b q": LARGE["llama-8b q"]}, ("tw2-128 uneven",))))


def timed(run: Run, layers: list[Layer]) -> dict[str, float]:
    """Add what is found of each layer to the run's facts; the geometric means."""
    found: list[dict[str, Any]] = run.facts["layers"]
    before, best = len(found), measured_ceilings(run)
    measured(run, found, time_layer, layers, lambda _, result: floor(result, best))
    means = summary(found[before:])
    for key, mean in means.items():
        say(f"     {key:36} {mean:.2f}×")
    return means


def measured(run: Run, found: list[dict[str, Any]], time: Callable[[Any], dict[str, Any]], layers: Sequence[Any],
             floor: Callable[[Any, dict[str, Any]], float]) -> None:
    """Time layers, and add what is found of each, or why nothing is; all facts are written after every one."""
    for layer, result, reason in run.each(time, layers, PATIENCE):
        if reason:
            say(f"   {layer.name:16} {layer.mask:15} {layer.sparsity:.0%}  FAILED: {reason}")
            found.append(asdict(layer) | {"error": reason})
        else:
            found.append(result | {"floor_s": floor(layer, result)})
            say(line(found[-1]))
        run.write()


def time_layer(layer: Layer) -> dict[str, Any]:
    """Each contestant's best way, found in heats of its own; then all of them in turn."""
    problem = Problem(layer)
    entries = {name: partial(contestant, problem) for name, contestant in CONTESTANTS.items()}
    return asdict(layer) | {"density": problem.density} | compared(entries, problem.repeated, problem.error)


def compared(contestants: Mapping[str, Callable[[], Mapping[str, W]]], repeat: Callable[[W], Any],
             error: Callable[[Any, W], float]) -> dict[str, Any]:
    """Seconds, speedups over the first contestant, ways and errors, of each contestant's best way against the others'.

    ``repeat``: a way ready to be timed; ``error``: how far off what a way made of the first input is.
    """
    ready: dict[str, Any] = {}
    ways: dict[str, str] = {}
    errors: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, contestant in contestants.items():
        entries = contestant()
        times, fallen = fastest({key: partial(repeat, way) for key, way in entries.items()}, finalists=2, final=5)
        failed.update({f"{name} {key}": reason for key, reason in fallen.items()})
        if times:
            ways[name] = next(iter(times))
            ready[name] = repeat(entries[ways[name]])
            ready[name].replay()
            errors[name] = error(ready[name].results[0], entries[ways[name]])
    laps = race(ready, rounds=9)
    baseline = laps[next(iter(contestants))]
    return {"seconds": {name: median(seconds) for name, seconds in laps.items()},
            "speedup": {name: median(a / b for a, b in zip(baseline, seconds, strict=True)) for name, seconds in laps.items()},
            "ways": ways, "errors": errors, "failed": failed}


def line(found: dict[str, Any]) -> str:
    def told(name: str) -> str:
        seconds, error = found["seconds"][name], found["errors"][name]
        return (f"{name} {seconds * 1e6:.1f} µs {found['speedup'][name]:.2f}× ({found['floor_s'] / seconds:.0%} of roofline, "
                f"{found['ways'][name]})" + ("" if error <= TOLERANCE else f" WRONG {error:.2g}"))

    fallen = "".join(f"\n      {name}: {reason}" for name, reason in found["failed"].items())
    return f"   {found['name']:16} {found['mask']:15} {found['sparsity']:.0%}  " + "  ".join(map(told, found["seconds"])) + fallen


def floor(found: dict[str, Any], best: dict[str, float]) -> float:
    """Seconds that the kept multiplications or the fewest bytes take at the chip's measured best."""
    kept = found["density"] * found["rows"] * found["columns"]
    moved = 2 * (kept + found["tokens"] * (found["rows"] + found["columns"]))
    return least_seconds(2 * kept * found["tokens"], moved, best)


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    """Geometric means of the speedups, mask by mask."""
    groups: dict[str, list[float]] = {}
    for layer in found:
        for name, speedup in layer.get("speedup", {}).items():
            if name != next(iter(CONTESTANTS)) and layer["errors"][name] <= TOLERANCE:
                groups.setdefault(f"{layer['mask']} {layer['sparsity']:.0%} {name}", []).append(speedup)
    return {key: geometric_mean(speedups) for key, speedups in sorted(groups.items())}


def autotuned(run: Run) -> object:
    """Whether PyTorch's compiler, trying what it can, multiplies dense weights faster than cuBLAS in its best layout."""
    few = {name: (LARGE | SMALL)[name] for name in ("llama-8b q", "bert-base up")}
    found = []
    for layer, result, reason in run.each(time_autotuned, list(of(few, ("tw2-128",), (0.5,))), 2 * PATIENCE):
        found.append({"name": layer.name, "rows": layer.rows, "columns": layer.columns} | (result or {"error": reason}))
        say(f"   {found[-1]}")
    return found


def time_autotuned(layer: Layer) -> dict[str, Any]:
    problem = Problem(layer)
    compiled = torch.compile(torch.nn.functional.linear, mode="max-autotune-no-cudagraphs")
    ways = cublas(problem) | {"max-autotune": Way(lambda x: compiled(x, problem.weight), False)}
    times, failed = fastest({key: partial(problem.repeated, way) for key, way in ways.items()}, finalists=len(ways))
    return {"seconds": times, "failed": failed}


def linear_layers() -> list[Layer]:
    return [Layer("llama-8b q", 4096, 4096, mask, sparsity)
            for mask, sparsity in (("block-128", 0.75), ("tw2-128", 0.75), ("block-64", 0.5), ("unstructured", 0.5))]


def linears(run: Run) -> object:
    """``TileWiseLinear`` as a network would use it: token-major, its way chosen by timing."""
    found = []
    for layer, result, reason in run.each(time_linear, linear_layers(), PATIENCE):
        found.append(asdict(layer) | (result or {"error": reason}))
        say(f"   {found[-1]}")
    return found


def chosen_linear(problem: Problem, bias: torch.Tensor) -> TileWiseLinear:
    """Its way chosen without regard to earlier choices."""
    with tempfile.TemporaryDirectory() as directory:
        choice = choose(problem.weight, TOKENS, ChoiceCache(Path(directory, "choices")))
    return TileWiseLinear(problem.weight, bias, choice)


def time_linear(layer: Layer) -> dict[str, Any]:
    problem = Problem(layer)
    bias = torch.randn(layer.rows, device=DEVICE, dtype=DTYPE)
    module = chosen_linear(problem, bias)
    dense = partial(torch.nn.functional.linear, weight=problem.weight, bias=bias)
    laps = race({name: Repeated([partial(call, x) for x in problem.token_major])
                 for name, call in (("dense", dense), ("tile-wise", module))}, 9)
    x = problem.token_major[0]
    reference = x.float() @ problem.weight.float().T + bias.float()
    return {"way": module.choice.way, "config": str(module.choice.config), "error": relative_error(module(x), reference),
            "seconds": {name: median(seconds) for name, seconds in laps.items()},
            "speedup": median(a / b for a, b in zip(laps["dense"], laps["tile-wise"], strict=True))}
