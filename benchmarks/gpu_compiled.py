"""Layers in tiles under ``torch.compile(mode="reduce-overhead")`` on a GPU: what comes of the CUDA graphs that PyTorch captures.

Every call is compared with the same layer, called directly. The first call of a size runs in the graph's own pool of memory, the
second is captured, later ones are replayed; then comes a size for which nothing was planned in particular, and the first one again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_contestants import DEVICE, DTYPE, Layer, Problem, capability
from gpu_correctness import PATIENCE, TOLERANCE
from gpu_error import relative_error
from gpu_record import say
from gpu_run import Run
from gpu_vectors import hopper
from torch._dynamo.utils import counters

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.choosing import BLOCKS, BY_BLOCKS, DENSE, TWO_FOUR
from zellige.cuda.layers.convolution import TileWiseConv2d
from zellige.cuda.layers.fp8 import Fp8BlockLinear
from zellige.cuda.layers.linear import TileWiseLinear
from zellige.cuda.layers.vectors import VECTORS
from zellige.cuda.operators.block_product import kernels
from zellige.cuda.operators.product import multiply
from zellige.cuda.tiling.convolution_tiles import Window
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import cut_tiles

ROWS, COLUMNS, SPARSITY = 512, 4096, 0.75  # few tiles: they are cut into parts, for few tokens into more than for many
TOKENS = (2048, 300)
"""What the choice is made for, and another number."""

WINDOW, CHANNELS, SIZE, IMAGES = Window((3, 3), padding=(1, 1)), 128, 28, (8, 3)
CALLS = 4
MASKS = {DENSE: "tw1-128 by 64", BLOCKS: "tw1-128 by 64", TWO_FOUR: "tvw-128 by 64", "groups": "tw1-128 by 8",
         "columns": "tw1-128", VECTORS: "tvw-128"}
"""Way → the mask of a weight for it."""

Call = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """What is called, with inputs of so many tokens or images; whether gradients are asked for too."""

    call: Call
    draw: Callable[[int], torch.Tensor]
    sizes: tuple[int, int] = TOKENS
    trained: tuple[torch.Tensor, ...] = ()


def compiled(run: Run) -> object:
    """Each case in a process that may die; what is off, what failed and what PyTorch did not capture is told."""
    cases: dict[str, Any] = {}
    for name, result, reason in run.each(checked, list(CASES), PATIENCE):
        cases[name] = result or {"error": reason}
        say(f"   {name}: " + ("right" if right(cases[name]) else f"WRONG {cases[name]}"))
    return {"cases": cases, "wrong": [name for name, case in cases.items() if not right(case)]}


def right(case: dict[str, Any]) -> bool:
    """Whether all answers were, and came from graphs; what this GPU does not run counts as neither."""
    if "left out" in case:
        return True
    return "error" not in case and case["replays"] > 0 and all(error <= TOLERANCE for error in case["errors"].values())


def checked(name: str) -> dict[str, Any]:
    """The largest relative error of each size in turn, how often graphs were replayed, and how often PyTorch would not capture."""
    make, needs_hopper = CASES[name]
    if needs_hopper and not hopper():
        return {"left out": "it runs on compute capability 9.0 alone"}
    torch._dynamo.reset()
    counters.clear()
    subject, replays = make(), [0]
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        replays[0] += 1
        replay(graph)

    torch.cuda.CUDAGraph.replay = counted  # type: ignore[method-assign]
    try:
        traced, errors = torch.compile(subject.call, mode="reduce-overhead"), {}
        for turn, size in enumerate((*subject.sizes, subject.sizes[0])):
            errors[f"{turn + 1}: {size}"] = max(error_of(subject, traced, size, 100 * turn + call) for call in range(CALLS))
    finally:
        torch.cuda.CUDAGraph.replay = replay  # type: ignore[method-assign]
    return {"errors": errors, "replays": replays[0], "skipped": counters["inductor"]["cudagraph_skips"]}


def error_of(subject: Subject, traced: Call, size: int, seed: int) -> float:
    """Of one call with an input of its own; of its result and gradients the worst, infinite where there are no numbers."""
    torch.manual_seed(seed)
    x = subject.draw(size)
    torch.compiler.cudagraph_mark_step_begin()
    found, wanted = (answers(call, x, subject.trained, seed) for call in (traced, subject.call))
    errors = [relative_error(one, other) for one, other in zip(found, wanted, strict=True)]
    return max(math.inf if math.isnan(error) else error for error in errors)


def answers(call: Call, x: torch.Tensor, trained: tuple[torch.Tensor, ...], seed: int) -> list[torch.Tensor]:
    """The result, and where something is trained the gradients of it and of x: copies, since a graph writes over its results."""
    if not trained:
        with torch.no_grad():
            return [call(x).clone()]
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    torch.manual_seed(seed + 1)
    return [one.detach().clone() for one in (y, *torch.autograd.grad(y, [leaf, *trained], torch.randn_like(y)))]


# -------------------------------------------------------------------------------------------------------------- cases


def config_for(way: str, tokens: int) -> Config | None:
    if way in (DENSE, VECTORS):
        return None
    return kernels(way == TWO_FOUR)[0].config if way in BY_BLOCKS else candidates(128, 64, tokens, capability())[0]


def linear(way: str, trainable: bool = False) -> Subject:
    weight = Problem(Layer("", ROWS, COLUMNS, MASKS[way], SPARSITY)).weight
    choice = Choice(way, config_for(way, TOKENS[0]), 1.0, 1.0, size=TOKENS[:1])
    module = TileWiseLinear(weight, torch.randn(ROWS, device=DEVICE, dtype=DTYPE), choice, trainable=trainable)
    return Subject(module, tokens, trained=tuple(module.parameters()))


def convolution(way: str) -> Subject:
    mask = Problem(Layer("", CHANNELS, CHANNELS, MASKS[way], 0.5)).weight != 0
    weight = torch.randn(CHANNELS, CHANNELS, *WINDOW.kernel, device=DEVICE, dtype=DTYPE) * mask[..., None, None] / CHANNELS**0.5
    choice = Choice(way, config_for(way, IMAGES[0] * SIZE**2), 1.0, 1.0, size=(IMAGES[0], SIZE, SIZE))
    module = TileWiseConv2d(weight, torch.randn(CHANNELS, device=DEVICE, dtype=DTYPE), WINDOW, choice)
    return Subject(module, images, IMAGES)


def e4m3() -> Subject:
    weight = Problem(Layer("", ROWS, COLUMNS, "block-128", SPARSITY)).weight
    return Subject(Fp8BlockLinear(weight), tokens)


def operator() -> Subject:
    """The product without a layer that plans for it: its plans are made when it is first called, in the graph's pool or not."""
    weight = Problem(Layer("", ROWS, COLUMNS, MASKS["groups"], SPARSITY)).weight
    tiles = DeviceTiles.upload(cut_tiles(weight.float().cpu().numpy(), 128, 8, 64), DEVICE, DTYPE)
    return Subject(lambda x: multiply(tiles, x), tokens)


def tokens(count: int) -> torch.Tensor:
    return torch.randn(count, COLUMNS, device=DEVICE, dtype=DTYPE)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, CHANNELS, SIZE, SIZE, device=DEVICE, dtype=DTYPE).to(memory_format=torch.channels_last)


CASES: dict[str, tuple[Callable[[], Subject], bool]] = {
    **{f"linear, {way}": (partial(linear, way), way in BY_BLOCKS) for way in MASKS},
    **{f"linear, {way}, trained": (partial(linear, way, True), False) for way in ("groups", "columns")},
    **{f"convolution, {way}": (partial(convolution, way), way == BLOCKS) for way in ("groups", "columns", BLOCKS)},
    "linear, e4m3": (e4m3, True), "operator": (operator, False),
}
"""Name → what makes it, and whether it runs on Hopper alone."""
