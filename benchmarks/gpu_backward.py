"""Training through tiles on a GPU: whether gradients are right, and how long a layer's forward and backward pass take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from gpu_contestants import DEVICE, DTYPE, TOKENS, capability
from gpu_contestants import Layer as Shape
from gpu_contestants import Problem as Drawn
from gpu_correctness import TOLERANCE, awkward_weight, verdict
from gpu_error import FUNCTIONS, relative_error
from gpu_layers import compared
from gpu_record import say
from gpu_run import Run

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.layers.timing import Repeated
from zellige.cuda.operators import gradient
from zellige.cuda.operators.product import multiply
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import cut_tiles

SIZE, SPARSITY, TILE, STEP = 4096, 0.75, 128, 64
INPUTS = 3  # of 32 MB, and as many gradients of outputs: several times the L2 cache
CONFIGS = 2  # the likeliest
PATIENCE = 30.0


@dataclass(frozen=True)
class Job:
    """A layer of ``SIZE``² under a mask, how it is cut, and whether activations are feature-major."""

    mask: str
    group: int
    features: bool

    def __str__(self) -> str:
        return f"{self.mask}, {'features × tokens' if self.features else 'tokens × features'}"


JOBS = (Job("tw2-128", 1, True), Job("tw2-128 in eights", 8, False), Job("block-128", 64, False), Job("block-128", 64, True))

GRADIENTS = ((128, 3), (128, 4), (64, 4))
"""Columns that a program of the values' gradient takes, and stages of its pipeline."""

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From x and the gradient of y."""


def correctness(run: Run) -> object:
    """Gradients of awkward shapes; and what will be timed is compiled."""
    jobs: list[tuple[Any, int]] = [(shape, form) for form in range(len(FORMS)) for shape in range(len(AWKWARD))]
    jobs += [(job, number) for number in range(CONFIGS + len(GRADIENTS)) for job in JOBS]
    return verdict(run, "gradients", prepare, jobs)


def backward(run: Run) -> object:
    """One layer under each mask, whole passes and their parts."""
    found: list[dict[str, Any]] = []
    run.facts["backward"] = {"layers": found}
    for job, result, reason in run.each(time_job, JOBS, PATIENCE):
        found.append({"name": str(job), "mask": job.mask, "sparsity": SPARSITY, "rows": SIZE, "columns": SIZE, "tokens": TOKENS}
                     | (result or {"error": reason}))
        say(f"   {job} " + (f"FAILED: {reason}" if result is None else str(result["work"])))
        for part, times in (result or {}).get("parts", {}).items():
            say(f"      {part:8} " + told(times))
        run.write()
    return run.facts["backward"]


def told(times: dict[str, Any]) -> str:
    def one(who: str) -> str:
        error = times["errors"][who]
        return (f"{who} {times['seconds'][who] * 1e6:.1f} µs {times['speedup'][who]:.2f}× ({times['ways'][who]})"
                + ("" if error <= TOLERANCE else f" WRONG {error:.2g}"))

    return "  ".join(map(one, times["seconds"])) + "".join(f"\n         {who}: {why}" for who, why in times["failed"].items())


@dataclass
class Problem:
    """A weight, its tiles, and what meets it."""

    job: Job

    @cached_property
    def weight(self) -> torch.Tensor:
        return Drawn(Shape("", SIZE, SIZE, self.job.mask, SPARSITY)).weight

    @cached_property
    def transposed(self) -> torch.Tensor:
        return self.weight.T.contiguous()

    @cached_property
    def tiles(self) -> DeviceTiles:
        cut = cut_tiles(self.weight.float().cpu().numpy(), TILE, self.job.group, STEP)
        return DeviceTiles.upload(cut, DEVICE, DTYPE, trained=True)

    @property
    def configs(self) -> dict[str, Config]:
        return {str(config): config for config in candidates(TILE, STEP, TOKENS, capability())[:CONFIGS]}

    def pair(self, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """x and the gradient of y; rows and columns are as many."""
        generator = torch.Generator(DEVICE).manual_seed(seed)
        shape = (SIZE, TOKENS) if self.job.features else (TOKENS, SIZE)
        x, dy = (torch.randn(*shape, device=DEVICE, dtype=DTYPE, generator=generator) for _ in range(2))
        return x, dy

    @cached_property
    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [self.pair(seed) for seed in range(INPUTS)]

    def repeated(self, product: Product) -> Repeated:
        return Repeated([partial(product, *pair) for pair in self.pairs])

    def times(self, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Dense."""
        return weight @ x if self.job.features else torch.nn.functional.linear(x, weight)

    def by_rows(self, dy: torch.Tensor) -> torch.Tensor:
        return dy if self.job.features else dy.T.contiguous()

    # What may be timed: dense ways, and those through tiles.

    def forward(self) -> tuple[dict[str, Product], dict[str, Product]]:
        return ({"as it lies": lambda x, _: self.times(self.weight, x),
                 "transposed": lambda x, _: self.times(self.transposed.T, x)},
                {name: partial(self.product, config) for name, config in self.configs.items()})

    def product(self, config: Config, x: torch.Tensor, dy: torch.Tensor | None = None) -> torch.Tensor:
        return multiply(self.tiles, x, x_features=self.job.features, y_features=self.job.features, config=config)

    def dx(self) -> tuple[dict[str, Product], dict[str, Product]]:
        return ({"as it lies": lambda _, dy: self.times(self.weight.T, dy),
                 "transposed": lambda _, dy: self.times(self.transposed, dy)},
                {name: partial(self.gradient_of_x, config) for name, config in self.configs.items()})

    def gradient_of_x(self, config: Config, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """As the backward pass does it: the values are fetched into their transposed order every time."""
        return multiply(self.tiles.turned(), self.by_rows(dy), x_features=True, y_features=self.job.features, config=config)

    def dw(self) -> tuple[dict[str, Product], dict[str, Product]]:
        return ({"dense": lambda x, dy: dy @ x.T if self.job.features else dy.T @ x},
                {f"{wide} columns, {stages} stages": partial(self.gradient_of_values, wide, stages) for wide, stages in GRADIENTS})

    def gradient_of_values(self, wide: int, stages: int, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        tiles, values = self.tiles, torch.empty_like(self.tiles.values, requires_grad=False)
        gradient.launch(self.by_rows(dy), x, tiles.units, tiles.rows, tiles.starts, tiles.unit, self.job.features, values,
                        wide, stages)
        return values

    def whole(self) -> tuple[dict[str, Product], dict[str, Product]]:
        """Forward and backward, by autograd; what it gives back is dx."""
        weight, values = self.weight.clone().requires_grad_(), self.tiles.values.requires_grad_()
        return ({"autograd": partial(differentiated, partial(self.times, weight), weight)},
                {name: partial(differentiated, partial(self.product, config), values) for name, config in self.configs.items()})

    def error(self, part: str, found: torch.Tensor) -> float:
        x, dy = (tensor.float() for tensor in self.pairs[0])
        if part == "forward":
            return relative_error(found, self.times(self.weight.float(), x))
        if part != "dw":
            return relative_error(found, self.times(self.weight.float().T, dy))
        wanted = dy @ x.T if self.job.features else dy.T @ x
        return relative_error(found, wanted if found.shape == wanted.shape else values_of(self.tiles, wanted))


def differentiated(product: Callable[[torch.Tensor], torch.Tensor], parameter: torch.Tensor, x: torch.Tensor,
                   dy: torch.Tensor) -> torch.Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(product(leaf), [leaf, parameter], dy)[0]


def prepare(job: tuple[Any, int]) -> list[tuple[str, float]]:
    """Check an awkward shape in a form; or make one of a layer's ways ready, of which there is nothing to tell."""
    if not isinstance(job[0], Job):
        return awkward_cases(job)
    compile_way(*job)
    return []


def compile_way(job: Job, number: int) -> None:
    """Run one of the ways once: then its code is in Triton's cache on disk."""
    problem = Problem(job)
    ways = [*problem.whole()[1].values(), *problem.dw()[1].values()]
    ways[number](*problem.pair())
    torch.cuda.synchronize()


def time_job(job: Job) -> dict[str, Any]:
    problem = Problem(job)
    parts: dict[str, Any] = {}
    for part in ("whole", "forward", "dx", "dw"):
        dense, ours = getattr(problem, part)()
        with torch.set_grad_enabled(part == "whole"):
            parts[part] = compared({"dense": partial(dict, dense), "tiles": partial(dict, ours)}, problem.repeated,
                                   lambda y, _, part=part: problem.error(part, y.detach()))
    back = problem.tiles.transposed
    assert back is not None
    return {"parts": parts, "work": {name: steps * TILE * STEP / SIZE**2 for name, steps in
                                     (("tiles", problem.tiles.starts[-1]), ("transposed", back.starts[-1]))}}


# ------------------------------------------------------------------------------------------------------------ results

AWKWARD = ((1000, 777, 4095), (300, 264, 17), (128, 128, 1), (40, 1032, 2000))
"""Rows, columns, tokens."""

FORMS = ((128, 1, 64, True, True), (128, 8, 64, False, False), (64, 64, 64, False, True))
"""Rows of a tile, columns of a group and of a step, whether x and y are feature-major."""


def awkward_cases(job: tuple[int, int]) -> list[tuple[str, float]]:
    """Relative errors of all gradients, of one shape in one form."""
    (rows, columns, tokens), (tile, group, step, x_features, y_features) = AWKWARD[job[0]], FORMS[job[1]]
    activation = list(FUNCTIONS)[sum(job) % len(FUNCTIONS)]
    found = []
    for kind in ("half", "full"):
        weight = awkward_weight(rows, columns, group, kind)
        tiles = DeviceTiles.upload(cut_tiles(weight.float().cpu().numpy(), tile, group, step), DEVICE, DTYPE, trained=True)
        shapes = ((tokens, columns), (rows,), (tokens, rows), (tokens, rows))
        x, bias, residual, dy = (torch.randn(*shape, device=DEVICE, dtype=DTYPE) for shape in shapes)
        exact = [tensor.float().requires_grad_() for tensor in (x, weight, bias, residual)]
        y = FUNCTIONS[activation](exact[0] @ exact[1].T + exact[2] + exact[3])
        wanted = dict(zip(("x", "values", "bias", "residual"), torch.autograd.grad(y, exact, dy.float()), strict=True))
        wanted["values"] = values_of(tiles, wanted["values"])

        leaves = [turned(x, x_features), tiles.values, bias, turned(residual, y_features)]
        for leaf in leaves:
            leaf.requires_grad_()
        y = multiply(tiles, leaves[0], bias, leaves[3], activation, x_features, y_features)
        grads = dict(zip(wanted, torch.autograd.grad(y, leaves, turned(dy, y_features)), strict=True))
        grads["x"] = turned(grads["x"], x_features)
        grads["residual"] = turned(grads["residual"], y_features)
        case = f"{rows}×{columns}×{tokens} {FORMS[job[1]]} {kind} {activation}"
        found += [(f"{name} {case}", relative_error(grads[name], wanted[name])) for name in wanted]
    return found


def turned(tensor: torch.Tensor, features: bool) -> torch.Tensor:
    return tensor.T.contiguous() if features else tensor


def values_of(tiles: DeviceTiles, dense: torch.Tensor) -> torch.Tensor:
    """What stands in ``dense`` where the tiles have numbers, and zero where they are filled up."""
    back = tiles.transposed
    assert back is not None
    values = torch.zeros(tiles.values.numel() + 1, device=dense.device)
    tile, per_step = back.rows.numel() // (len(back.starts) - 1), tiles.step // back.form[2]
    starts, steps = torch.tensor(back.starts, device=dense.device), back.starts[-1]
    own = torch.repeat_interleave(torch.arange(len(starts) - 1, device=dense.device), starts.diff())
    columns = back.rows.view(-1, tile)[own].view(steps, tile, 1).clamp_min(0)
    rows = back.units[:steps * per_step].view(steps, 1, tiles.step)
    values[back.sources.view(steps, tile, tiles.step).long()] = dense.float()[rows.long(), columns.long()]
    return values[1:].view(-1, tiles.step)
