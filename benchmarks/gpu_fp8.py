"""Blocks of 128 × 128 in e4m3 on a GPU: are products right, and how fast, against cuBLAS in e4m3 and in bfloat16.

cuBLAS multiplies the same numbers, with one scale for each tensor or one for each row, in either orientation, adding up as fast
as it can (``use_fast_accum``). Numbers are drawn such that they are exact in bfloat16 too, so all products have one reference.
The layer is timed as it is called, from bfloat16, with the scale of its input found anew and known beforehand; and what makes e4m3
of that input by itself, against the bytes that it must move and against PyTorch's operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from statistics import median
from typing import Any

import torch
from gpu_contestants import DEVICE, DTYPE, ROTATED, TOKENS, Layer, cut_on_device
from gpu_correctness import Case, verdict
from gpu_error import FUNCTIONS, relative_error
from gpu_layers import LARGE, PATIENCE, compared, least_seconds, measured, measured_ceilings, of
from gpu_masks import MASKS, blocks, tile_wise
from gpu_record import say
from gpu_run import Run
from gpu_vectors import CHECK_SECONDS, hopper

from zellige.cuda.kernels.cubins import Request
from zellige.cuda.layers.fp8 import Fp8BlockLinear
from zellige.cuda.layers.timing import Repeated, race
from zellige.cuda.operators.block_product import ARCHITECTURE, ENTRY, KERNELS, BlockKernel
from zellige.cuda.operators.block_product_fp8 import STEP, multiply
from zellige.cuda.operators.e4m3 import to_e4m3, to_e4m3_with
from zellige.cuda.tiling.scaled_tiles import E4M3, LARGEST, ScaledTiles, quantize, scale_for

TOLERANCE = 1e-2
"""One rounding to bfloat16 is 1.7e-3; sums of 14 336 products that keep 13 bits, and cut off the rest, are off by 3e-3 in NumPy."""

SHAPES = (
    (1000, 777, 4095), (512, 2048, 64), (304, 257, 17), (128, 128, 1), (40, 4099, 130), (3072, 768, 8192), (8, 16, 3),
    (136, 14336, 257), (4096, 4096, 1), (1024, 1000, 129), (256, 129, 255), (2048, 127, 1025), (520, 3000, 191), (128, 8192, 193),
    (1152, 640, 4096),
)
"""Rows, columns and tokens."""

SPARSITIES = (0.5, 0.0, 0.8, None, 1.0)
"""In blocks, one after the other; None: tile-wise, of rows that don't lie together."""

VARIANTS: tuple[tuple[BlockKernel, str, torch.dtype], ...] = tuple(
    zip(KERNELS, ("gelu", "silu", "relu"), (torch.bfloat16, torch.float16, torch.bfloat16), strict=True))

SPECIAL = (1.0, 0.0, math.nan, -math.inf, 6e4)
"""What stands in the middle of an input that is rounded."""

SCALE = 2.0**-7
"""By which whatever is timed is multiplied, activations and weights: a power of two loses nothing in bfloat16."""


# ------------------------------------------------------------------------------------------------------------ results


def correctness(run: Run) -> object:
    """Every shape by one kernel, with everything and with nothing beside the product, against float64; and what is rounded."""
    if not hopper():
        return "for compute capability 9.0 alone"
    jobs = [(number, plain) for number in range(len(SHAPES)) for plain in (False, True)]
    found = verdict(run, "products in e4m3", shape_case, jobs, TOLERANCE)
    return found | {"wrong roundings": run.one(roundings, None, CHECK_SECONDS)}


def requests() -> Iterator[Request]:
    """The machine code of all of them, and of what is timed."""
    for kernel, activation, dtype in VARIANTS:
        for made, name in ((dtype, activation), (dtype, "none"), (DTYPE, "none")):
            yield Request(f"{ENTRY}.cu", ARCHITECTURE, kernel.defines(made, name, e4m3=True))


def shape_case(job: tuple[int, bool]) -> list[Case]:
    number, plain = job
    variant = VARIANTS[number % len(VARIANTS)]
    return [(f"{SHAPES[number]} {variant} plain={plain}", case_error(*SHAPES[number], *variant, plain, number))]


def roundings(_: None) -> list[str]:
    return wrong_roundings()


def case_error(rows: int, columns: int, tokens: int, kernel: BlockKernel, activation: str, dtype: torch.dtype, plain: bool,
               seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    sparsity = SPARSITIES[seed % len(SPARSITIES)]
    mask = (tile_wise(rows, columns, 0.5, generator) if sparsity is None else blocks(rows, columns, sparsity, generator, 128))
    values = torch.randn(rows, columns, device=DEVICE) * 10 ** torch.empty(rows, 1, device=DEVICE).uniform_(-1, 1)
    weight = quantize(cut_on_device((values * mask.to(DEVICE) / math.sqrt(columns)).to(DTYPE), 128, STEP, STEP))
    small, scale = to_e4m3(torch.randn(tokens, columns, device=DEVICE, dtype=dtype))
    x = torch.full((tokens, columns + -columns % 16 + 16), math.nan, device=DEVICE).to(E4M3)[:, :columns]
    x.copy_(small)
    bias, residual = None, None
    expected = scale.double() * (x.double() @ dense_of(weight).T)
    if not plain:
        bias, residual = (torch.randn(*shape, device=DEVICE, dtype=dtype) for shape in ((rows,), (tokens, rows)))
        expected = FUNCTIONS[activation](expected + bias.double() + residual.double())
    poison = torch.full((tokens * rows,), math.nan, device=DEVICE, dtype=dtype)
    del poison  # the allocator hands this memory to the result
    y = multiply(weight, x, scale, bias, residual, "none" if plain else activation, dtype, kernel)
    return ((y.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def wrong_roundings() -> list[str]:
    """Inputs of which the kernels make other numbers, or another scale, than PyTorch's operators on the CPU."""
    wrong, known = [], torch.tensor([0.01])
    for number, (_, columns, tokens) in enumerate(SHAPES):
        for dtype in (torch.bfloat16, torch.float16):
            x = (torch.randn(tokens, columns, generator=torch.Generator().manual_seed(number)) * 10.0 ** (number % 9 - 4)).to(dtype)
            x[tokens // 2, columns // 2] = SPECIAL[number % len(SPECIAL)]
            here, there = x.to(DEVICE), (*to_e4m3(x), to_e4m3_with(x, known))
            made = (*to_e4m3(here), to_e4m3_with(here, known.to(DEVICE)))
            if not all(torch.allclose(a.float().cpu(), b.float(), 0, 0, equal_nan=True) for a, b in zip(made, there, strict=True)):
                wrong.append(f"{tokens} × {columns} of {dtype} with {SPECIAL[number % len(SPECIAL)]}")
                say(f"   WRONG in e4m3: {wrong[-1]}")
    return wrong


def dense_of(weight: ScaledTiles) -> torch.Tensor:
    """What the tiles stand for, rows × columns in float64."""
    tiles = weight.tiles
    rows, columns = tiles.shape
    whole = torch.zeros(rows + 1, columns + STEP, device=tiles.values.device, dtype=torch.float64)  # a row for what is padding
    counts = torch.tensor(tiles.starts).diff().to(tiles.rows.device)
    lines = tiles.rows.view(-1, tiles.tile).repeat_interleave(counts, 0).long()
    for step, (line_of, first) in enumerate(zip(lines, tiles.units.tolist(), strict=False)):  # behind the units there is room
        whole[line_of, first:first + STEP] = tiles.values[step * tiles.tile:(step + 1) * tiles.tile].double()
    return whole[:rows, :columns] * weight.scales.double()[:, None]


# -------------------------------------------------------------------------------------------------------------- times


@dataclass(frozen=True)
class Way:
    """A product of tokens × columns, in e4m3 or in bfloat16; ``features``: it gives rows × tokens."""

    product: Callable[[torch.Tensor], torch.Tensor]
    small: bool
    features: bool = False


@dataclass
class Problem:
    """A layer's weight and its inputs, the same numbers in both types."""

    layer: Layer

    @cached_property
    def weight(self) -> torch.Tensor:
        """In bfloat16; the largest of each row is 448 · ``SCALE``, so that this is its scale."""
        layer = self.layer
        mask = MASKS[layer.mask].draw(layer.rows, layer.columns, layer.sparsity, torch.Generator().manual_seed(0)).to(DEVICE)
        values = numbers(layer.rows, layer.columns, 0).to(DTYPE)
        values[torch.arange(layer.rows, device=DEVICE), mask.int().argmax(1)] = LARGEST
        return values * mask * SCALE

    @cached_property
    def small(self) -> list[torch.Tensor]:
        """Inputs in e4m3, as many as exceed the cache."""
        shape = (self.layer.tokens, self.layer.columns)
        return [numbers(*shape, seed) for seed in range(1, 1 + max(2, math.ceil(ROTATED / math.prod(shape))))]

    @cached_property
    def wide(self) -> list[torch.Tensor]:
        enough = max(2, math.ceil(len(self.small) / 2))
        return [x.to(DTYPE) * SCALE for x in self.small[:enough]]

    @cached_property
    def module(self) -> Fp8BlockLinear:
        return Fp8BlockLinear(self.weight)

    @cached_property
    def known(self) -> Fp8BlockLinear:
        """The same with the scale that all inputs have."""
        return Fp8BlockLinear(self.weight, x_scale=SCALE)

    @cached_property
    def density(self) -> float:
        return self.weight.count_nonzero().item() / self.weight.numel()

    def repeated(self, way: Way) -> Repeated:
        return Repeated([partial(way.product, x) for x in (self.small if way.small else self.wide)])

    def error(self, y: torch.Tensor, way: Way) -> float:
        return relative_error(y.T if way.features else y, self.wide[0].float() @ self.weight.float().T)


def numbers(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    drawn = (100 * torch.randn(rows, columns, device=DEVICE, generator=generator)).clamp_(-LARGEST, LARGEST)
    drawn[0, 0] = LARGEST
    return drawn.to(E4M3)


def cublas_e4m3(problem: Problem) -> dict[str, Way]:
    weight = (problem.weight / SCALE).to(E4M3)
    layer, one = problem.layer, torch.full((1,), SCALE, device=DEVICE)
    by_token, by_row = one.expand(layer.tokens, 1).contiguous(), one.expand(1, layer.rows).contiguous()
    product = partial(torch._scaled_mm, out_dtype=DTYPE, use_fast_accum=True)
    return {"per tensor": Way(lambda x: product(x, weight.T, one, one), True),
            "per row": Way(lambda x: product(x, weight.T, by_token, by_row), True),
            "per tensor, features": Way(lambda x: product(weight, x.T, one, one), True, True)}


def cublas_bf16(problem: Problem) -> dict[str, Way]:
    weight, transposed = problem.weight, problem.weight.T.contiguous()
    return {"tokens NT": Way(lambda x: x @ weight.T, False), "tokens NN": Way(lambda x: x @ transposed, False),
            "features": Way(lambda x: weight @ x.T, False, True)}


def ours(problem: Problem) -> dict[str, Way]:
    weight, one = problem.module.weight, torch.full((1,), SCALE, device=DEVICE)
    return {str(kernel): Way(partial(multiply, weight, x_scale=one, kernel=kernel), True)
            for first in KERNELS for kernel in (first, replace(first, width=64))}


def ours_layer(problem: Problem) -> dict[str, Way]:
    """From bfloat16: the largest input is found, all are rounded, and multiplied."""
    return {str(problem.module.kernel): Way(problem.module, False)}


def ours_known(problem: Problem) -> dict[str, Way]:
    """From bfloat16, rounded by a scale that is known."""
    return {str(problem.known.kernel): Way(problem.known, False)}


CONTESTANTS: dict[str, Callable[[Problem], dict[str, Way]]] = {
    "cublas-e4m3": cublas_e4m3, "cublas-bf16": cublas_bf16, "blocks-e4m3": ours, "layer-e4m3": ours_layer,
    "layer-e4m3-known": ours_known}


def time_layer(layer: Layer) -> dict[str, Any]:
    problem = Problem(layer)
    entries = {name: partial(contestant, problem) for name, contestant in CONTESTANTS.items()}
    return asdict(layer) | {"density": problem.density} | compared(entries, problem.repeated, problem.error)


def by_operators(x: torch.Tensor) -> torch.Tensor:
    """What ``to_e4m3`` makes, by PyTorch's operators, which read x several times."""
    low, high = torch.aminmax(x)
    return (x / scale_for(torch.maximum(-low, high)).reshape(1)).to(E4M3)


ROUNDED_BYTES = {"found": 5, "known": 3, "operators": 5}
"""Scale → the fewest bytes that move for each number: 2 whenever x is read, 1 that is written. What a second reading finds in the
cache is no traffic of the memory, so that a share of this floor may exceed 100 %."""


def time_rounding(columns: int, copied: float) -> dict[str, Any]:
    """Seconds of making e4m3 of so many columns, and those that its bytes take at the speed of a copy."""
    count = max(2, math.ceil(ROTATED / (2 * TOKENS * columns)))
    inputs = [numbers(TOKENS, columns, seed).to(DTYPE) * SCALE for seed in range(count)]
    calls: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "found": lambda x: to_e4m3(x)[0], "known": partial(to_e4m3_with, scale=torch.full((1,), SCALE, device=DEVICE)),
        "operators": by_operators}
    laps = race({name: Repeated([partial(call, x) for x in inputs]) for name, call in calls.items()}, 9)
    return {"columns": columns, "seconds": {name: median(seconds) for name, seconds in laps.items()},
            "floor_s": {name: moved * TOKENS * columns / copied for name, moved in ROUNDED_BYTES.items()}}


def time_ceiling(_: None) -> float:
    """FLOP per second of cuBLAS at 8192³ in e4m3."""
    a, b, one = numbers(8192, 8192, 0), numbers(8192, 8192, 1), torch.full((1,), SCALE, device=DEVICE)
    product = partial(torch._scaled_mm, a, b.T, one, one, out_dtype=DTYPE, use_fast_accum=True)
    return 2 * 8192**3 / median(race({"product": Repeated([product] * 2)}, 7)["product"])


def floor(found: dict[str, Any], best: dict[str, float]) -> float:
    """Seconds that the kept multiplications or the fewest bytes take at the chip's measured best."""
    kept = found["density"] * found["rows"] * found["columns"]
    moved = kept + found["tokens"] * (2 * found["rows"] + found["columns"])
    return least_seconds(2 * kept * found["tokens"], moved, best)


def layers() -> list[Layer]:
    return list(of(LARGE, ("block-128",)))


def fp8(run: Run) -> object:
    """The layers, and what it takes to make e4m3 of activations."""
    if not hopper():
        return "for compute capability 9.0 alone"
    copied = measured_ceilings(run)["bytes_per_s"]
    flop = run.one(time_ceiling, None, PATIENCE)
    say(f"   8192³ e4m3 {flop / 1e12:.0f} TFLOP/s")
    found: list[dict[str, Any]] = []
    facts = run.facts["fp8"] = {"flop_per_s": flop, "tokens": TOKENS, "roundings": [], "layers": found}
    measured(run, found, time_layer, layers(), lambda _, result: floor(result, {"flop_per_s": flop, "bytes_per_s": copied}))
    columns = sorted({layer.columns for layer in layers()})
    for wide, rounding, reason in run.each(partial(time_rounding, copied=copied), columns, PATIENCE):
        if reason:
            say(f"   {TOKENS} × {wide} to e4m3  FAILED: {reason}")
            continue
        facts["roundings"].append(rounding)
        say(f"   {TOKENS} × {wide} to e4m3  " + "  ".join(
            f"{name} {took * 1e6:.1f} µs ({rounding['floor_s'][name] / took:.0%} of the floor)"
            for name, took in rounding["seconds"].items()))
    return facts
