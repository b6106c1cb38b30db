"""What is timed later is compiled before, many at a time: machine code that it finds on disk, and nothing that was chosen.

Ways are run once as they will be timed, since code depends on more than a configuration: on rows that go in eights, on tiles that
are cut into parts. Whole networks are compiled as they will be, and PyTorch's compiler tries what it can; who was fastest meanwhile
is forgotten (``gpu_caches.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import gpu_block_convolution
import gpu_blocks
import gpu_fp8
import gpu_vectors
import torch
from gpu_contestants import DEVICE, DTYPE, TOKENS, Layer, Problem, capability, cut_on_device, tiles
from gpu_layers import LARGE, SMALL, chosen_linear, linear_layers
from gpu_masks import MASKS
from gpu_models import BATCH, SEQUENCE
from gpu_networks import NETWORKS, contestants
from gpu_record import say
from gpu_run import Run
from gpu_vectors import hopper

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.kernels.cubins import Request, cubin
from zellige.cuda.network.prices import worth_timing
from zellige.cuda.operators.product import multiply

PATIENCE = 120.0
"""Seconds that a job may take, while others have the cores too."""

REPRESENTATIVES = {
    "block-128": ("llama-8b q", "bert-base q", "bert-large up"), "tw2-128": ("llama-8b q",),
    "tw1-128": ("bert-base q", "bert-large up"), "block-64": ("llama-8b q",), "tvw-128": ("llama-8b q", "bert-large up"),
    "block-32": ("llama-8b q", "bert-base up")}
"""Mask → layers that need all the code there is for it: of many tiles, and of few, which are cut into parts."""

REHEARSED = {"bert-base": ("ours block:128x64 50%", "ours dense", "ours tvw:128x64:2:4 75%", "ours tile-rows:128 50%",
                           "ours tile:128 50%"),
             "vgg-16": ("ours block:128x64 50%", "ours dense"), "resnet-50": ("ours block:128x64 50%", "ours dense")}
"""Network → contestants that need all the code there is for it: more sparsity needs no other."""

Prepared = tuple[Callable[..., object], tuple[Any, ...]]
"""What is done, and with what."""


def layers(run: Run) -> object:
    """Single layers: CUDA C++, tiles in all configurations, and ``TileWiseLinear``."""
    requests = [*gpu_blocks.requests(), *gpu_block_convolution.requests(), *gpu_fp8.requests()] if hopper() else []
    ways = [(mask, features, number) for mask in REPRESENTATIVES for features in (True, False)
            for number in range(count(mask, features))]
    return prepared(run, [*((cubin_of, (request,)) for request in dict.fromkeys([*requests, *gpu_vectors.requests()])),
                          *((chosen, (layer,)) for layer in linear_layers()), *((way, wanted) for wanted in ways)])


def networks(run: Run) -> object:
    """Whole networks: the products that most layers need, then each network by itself."""
    configs = worth_timing(768, BATCH * SEQUENCE, capability())
    products = [(config, y_features, activation, residual) for config in configs for y_features in (True, False)
                for activation, residual in (("none", False), ("none", True), ("gelu", False))]
    return prepared(run, [*((network_product, wanted) for wanted in products),
                          *((rehearsal, (key, name)) for key, names in REHEARSED.items() for name in names)])


def tuning(run: Run) -> object:
    """PyTorch's compiler, for each network."""
    return prepared(run, [(rehearsal, (key, "max-autotune")) for key in NETWORKS], run.left)


def prepared(run: Run, jobs: list[Prepared], patience: float = PATIENCE) -> object:
    failed = [f"{work.__name__} {arguments}: {reason}" for (work, arguments), _, reason in run.each(done, jobs, patience) if reason]
    say(f"   {len(jobs)} things to compile, {len(failed)} failed")
    for reason in failed[:8]:
        say(f"   {reason}")
    return {"configurations": len(jobs), "failed": failed}


def done(job: Prepared) -> None:
    work, arguments = job
    work(*arguments)
    torch.cuda.synchronize()


def cubin_of(request: Request) -> None:
    cubin(request)


def count(mask: str, features: bool) -> int:
    """How many configurations there are of tiles under a mask."""
    cuts = [(tile, step) for tile, group, step in MASKS[mask].cuts if features or group >= 8]
    return sum(len(candidates(tile, step, TOKENS, capability())) for tile, step in cuts)


def way(mask: str, features: bool, number: int) -> None:
    """Run tiles in one of their configurations."""
    for name in REPRESENTATIVES[mask]:
        problem = Problem(Layer(name, *(LARGE | SMALL)[name], mask, 0.75))
        one = list(tiles(problem, features).values())[number]
        one.product((problem.feature_major if features else problem.token_major)[0])


def chosen(layer: Layer) -> None:
    problem = Problem(layer)
    chosen_linear(problem, torch.zeros(layer.rows, device=DEVICE, dtype=DTYPE))(problem.token_major[0])


def network_product(config: Config, y_features: bool, activation: str, with_residual: bool) -> None:
    """Run a configuration once with parts and once without, features × tokens in."""
    for columns in (768, 64):
        cut = cut_on_device(torch.ones(128, columns), 128, 1, 64)
        x, bias = torch.ones(columns, 8192, device=DEVICE, dtype=DTYPE), torch.ones(128, device=DEVICE, dtype=DTYPE)
        residual = torch.ones((128, 8192) if y_features else (8192, 128), device=DEVICE, dtype=DTYPE) if with_residual else None
        multiply(cut, x, bias, residual, activation, True, y_features, config)


def rehearsal(key: str, name: str) -> None:
    """Make a contestant ready, and call it; what it says of its choices is of no use."""
    model, example = NETWORKS[key].make()
    with redirect_stdout(StringIO()):
        contestants(key, model, example, {})[name]()()
