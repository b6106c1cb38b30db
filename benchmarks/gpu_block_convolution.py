"""Convolutions in blocks of 128 rows × 64 channels of a tap on a GPU: whether they are right, and how fast against cuDNN."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import torch
from gpu_contestants import DEVICE, DTYPE, ROTATED
from gpu_convolution import CHECKED, IMAGES, Layer, dense, timed
from gpu_correctness import verdict
from gpu_error import FUNCTIONS, checked_error, relative_error
from gpu_layers import compared
from gpu_masks import columns_only, tile_vector_wise_in_runs
from gpu_run import Run
from gpu_vectors import LIMITS, hopper

from zellige.cuda.kernels.cubins import Request
from zellige.cuda.layers.choosing import BLOCKS, PAIRED, TWO_FOUR, tile_of
from zellige.cuda.layers.convolution import upload
from zellige.cuda.layers.timing import Repeated
from zellige.cuda.operators.block_convolution import ENTRY, convolve, result_shape
from zellige.cuda.operators.block_product import ARCHITECTURE, KERNELS, ROWS, STEP, TWO_FOUR_KERNELS, BlockKernel, kernels
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window

MASK, MASK_TWO_FOUR = "blocks 128 × 64 of a tap", "blocks 128 × 64 of a tap, 2:4"
SPARSITIES = (0.5, 0.75, 0.9)
HALVED = ("resnet-50 3×3", "resnet-50 3×3, last", "vgg-16 conv3", "vgg-16 conv4")
"""Layers that are timed with 2:4 in their blocks too."""

LAYERS = {
    "resnet-50 3×3, second": (128, 128, 28, 3, 1), "resnet-50 3×3": (256, 256, 14, 3, 1),
    "resnet-50 3×3, last": (512, 512, 7, 3, 1), "resnet-50 3×3, strided": (256, 256, 28, 3, 2),
    "resnet-50 1×1": (1024, 256, 14, 1, 1),
    "resnet-50 1×1, strided": (512, 1024, 28, 1, 2), "vgg-16 conv2": (128, 128, 112, 3, 1), "vgg-16 conv3": (256, 256, 56, 3, 1),
    "vgg-16 conv4": (512, 512, 28, 3, 1), "vgg-16 conv5": (512, 512, 14, 3, 1),
}
"""Name → channels, rows, height and width, kernel, stride; the padding keeps the size or halves it."""


# -------------------------------------------------------------------------------------------------------- correctness


@dataclass(frozen=True)
class Case:
    """A convolution of an awkward shape; ``density``: of blocks, ``gap``: numbers behind every pixel of the input."""

    channels: int
    rows: int
    images: int
    height: int
    width: int
    window: Window
    kernel: BlockKernel = KERNELS[0]
    density: float = 0.5
    dropped: float = 0.0
    activation: str = "none"
    plain: bool = False
    dtype: torch.dtype = torch.bfloat16
    gap: int = 0
    way: str = BLOCKS


SAME = Window((3, 3), padding=(1, 1))
PICKED = (
    Case(64, 128, 3, 15, 17, SAME, plain=True), Case(64, 128, 3, 15, 17, SAME, density=1.0),
    Case(64, 128, 2, 1, 1, SAME, density=1.0),
    Case(128, 256, 5, 7, 7, SAME, activation="relu"), Case(72, 64, 2, 12, 12, Window((3, 3), padding=(2, 2), dilation=(2, 2))),
    Case(256, 136, 3, 14, 9, Window((1, 1), (2, 2)), activation="silu"), Case(96, 256, 2, 28, 28, Window((3, 3), (2, 2), (1, 1))),
    Case(64, 128, 2, 30, 20, Window((5, 3), (1, 2), (0, 1)), dtype=torch.float16), Case(64, 128, 64, 1, 3, Window((1, 3))),
    Case(128, 128, 2, 200, 3, Window((7, 1), (3, 1), (3, 0), (2, 1)), gap=8), Case(64, 120, 4, 11, 13, SAME, dropped=0.3),
    Case(64, 128, 1, 40, 40, SAME, density=0.0), Case(8, 128, 2, 33, 31, Window((4, 4), (4, 3), (2, 1)), density=1.0),
    Case(64, 128, 2, 140, 6, Window((3, 3), (1, 1), (100, 2), (60, 1))), Case(64, 128, 2, 9, 9, Window((2, 2), (8, 7))),
    Case(64, 128, 3, 15, 17, SAME, way=TWO_FOUR), Case(136, 264, 5, 14, 9, Window((3, 3), (2, 2), (1, 1)), way=TWO_FOUR),
    Case(256, 136, 3, 14, 9, Window((1, 1), (2, 2)), TWO_FOUR_KERNELS[1], way=TWO_FOUR, dtype=torch.float16),
    Case(72, 64, 2, 12, 12, Window((3, 3), padding=(2, 2), dilation=(2, 2)), TWO_FOUR_KERNELS[2], way=TWO_FOUR),
    Case(136, 264, 5, 14, 9, Window((3, 3), (2, 2), (1, 1)), way=PAIRED),
    Case(128, 520, 3, 15, 17, SAME, KERNELS[1], density=0.5, way=PAIRED, dtype=torch.float16),
    Case(72, 64, 2, 12, 12, Window((3, 3), padding=(2, 2), dilation=(2, 2)), KERNELS[2], way=PAIRED),
)


def cases() -> Iterator[Case]:
    """Those above, and as many that are drawn."""
    yield from PICKED
    draw = random.Random(0)

    def pair(least: int, most: int) -> tuple[int, int]:
        return draw.randint(least, most), draw.randint(least, most)

    for number in range(len(PICKED)):
        window = Window(pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 3))
        least = [space * (taps - 1) + 1 for taps, space in zip(window.kernel, window.dilation, strict=True)]
        height, width = (size + draw.randint(0, 30) for size in least)
        yield Case(8 * draw.randint(1, 40), 8 * draw.randint(1, 50), draw.randint(1, 9), height, width, window,
                   KERNELS[number % len(KERNELS)], draw.choice((0.3, 0.7, 1.0)), draw.choice((0.0, 0.0, 0.2)),
                   list(FUNCTIONS)[number % 2], number % 5 == 0, DTYPE, 8 * (number % 2))


def correctness(run: Run) -> object:
    """Against float64, outputs poisoned beforehand."""
    return verdict(run, "convolutions", checked, list(cases())) if hopper() else "for compute capability 9.0 alone"


def checked(case: Case) -> list[tuple[str, float]]:
    """Infinite where the error is more than the type explains."""
    error = case_error(case)
    return [(f"{error:.3g} {case}", error if error <= LIMITS[case.dtype] else math.inf)]


def requests() -> Iterator[Request]:
    """The machine code that layers of networks may want."""
    for way, activation in product((BLOCKS, TWO_FOUR, PAIRED), ("none", "relu")):
        for kernel in kernels(way == TWO_FOUR):
            yield Request(f"{ENTRY}.cu", ARCHITECTURE, kernel.defines(DTYPE, activation, two_four=way == TWO_FOUR,
                                                                      paired=way == PAIRED))


def case_error(case: Case) -> float:
    generator = torch.Generator(DEVICE).manual_seed(case.rows + case.channels)
    window, dtype = case.window, case.dtype

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=DEVICE, generator=generator)

    height = tile_of(case.way, ROWS)
    kept = torch.rand(-(-case.rows // height), -(-case.channels // STEP), *window.kernel, device=DEVICE, generator=generator)
    weight = drawn(case.rows, case.channels, *window.kernel) * (kept < case.density).repeat_interleave(height, 0).repeat_interleave(
        STEP, 1)[:case.rows, :case.channels] / math.sqrt(case.channels)
    weight *= torch.rand(case.rows, 1, 1, 1, device=DEVICE, generator=generator) >= case.dropped
    weight = weight.to(dtype)
    if case.way == TWO_FOUR:
        weight *= (torch.arange(case.channels, device=DEVICE) % 4 % 3 == 0)[:, None, None]
    whole = torch.full((case.images + 2, case.height, case.width, case.channels + case.gap), torch.nan, device=DEVICE, dtype=dtype)
    x = whole[1:-1, ..., :case.channels]
    x.copy_(drawn(*x.shape))
    exact = weight.double(), x.permute(0, 3, 1, 2).double()
    before = dense(window, *exact).permute(0, 2, 3, 1)
    terms = dense(window, *(operand.abs() for operand in exact)).permute(0, 2, 3, 1)
    bias, residual = None, None
    if not case.plain:
        bias, residual = drawn(case.rows).to(dtype), drawn(*before.shape).to(dtype)
        before = before + bias.double() + residual.double()
        terms = terms + bias.double().abs() + residual.double().abs()
    cut = upload(weight, window, case.way, ROWS, STEP)
    poison = torch.full((before.numel(),), float("nan"), device=DEVICE, dtype=dtype)
    del poison  # the allocator hands this memory to the result
    activation = "none" if case.plain else case.activation
    y = convolve(cut, x, bias, residual, activation, case.kernel)
    assert y.shape == result_shape(x, case.rows, window)
    return checked_error(y, before, terms, weight[0].numel(), activation)


# -------------------------------------------------------------------------------------------------------------- speed


@dataclass
class Problem:
    """A weight, each of whose tiles of 128 rows has lost as many blocks, and its inputs. A way is a kernel; None is cuDNN."""

    layer: Layer

    @property
    def two_four(self) -> bool:
        return self.layer.mask == MASK_TWO_FOUR

    @cached_property
    def weight(self) -> torch.Tensor:
        layer, taps = self.layer, self.layer.kernel**2
        draw = tile_vector_wise_in_runs if self.two_four else columns_only
        mask = draw(layer.rows, taps * layer.channels, layer.sparsity, torch.Generator().manual_seed(0), STEP).to(DEVICE)
        values = torch.randn(layer.rows, taps * layer.channels, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
        by_tap = (values * mask / math.sqrt(layer.channels * taps)).view(layer.rows, layer.kernel, layer.kernel, layer.channels)
        return by_tap.permute(0, 3, 1, 2).to(DTYPE).contiguous()

    @cached_property
    def inputs(self) -> list[torch.Tensor]:
        """Images × height × width × channels, as many as exceed the cache."""
        shape = (IMAGES, self.layer.size, self.layer.size, self.layer.channels)
        count = max(2, math.ceil(ROTATED / (2 * math.prod(shape))))
        return [torch.randn(*shape, device=DEVICE, dtype=DTYPE) for _ in range(count)]

    @cached_property
    def cut(self) -> ConvolutionTiles:
        return upload(self.weight, self.layer.window, TWO_FOUR if self.two_four else BLOCKS, ROWS, STEP)

    def repeated(self, way: BlockKernel | None) -> Repeated:
        if way is None:
            last = self.weight.to(memory_format=torch.channels_last)
            return Repeated([partial(dense, self.layer.window, last, x.permute(0, 3, 1, 2)) for x in self.inputs])
        return Repeated([partial(convolve, self.cut, x, kernel=way) for x in self.inputs])

    def error(self, y: torch.Tensor, way: BlockKernel | None) -> float:
        """Of the answers for some images of the first input."""
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            reference = dense(self.layer.window, self.weight.float(), self.inputs[0][:CHECKED].permute(0, 3, 1, 2).float())
        if way is not None:
            y = y.permute(0, 3, 1, 2)
        return relative_error(y[:CHECKED], reference)


def layers() -> Iterator[Layer]:
    for sparsity in SPARSITIES:
        yield from (Layer(name, *numbers, MASK, sparsity) for name, numbers in LAYERS.items())
    for sparsity in SPARSITIES[1:]:
        yield from (Layer(name, *LAYERS[name], MASK_TWO_FOUR, sparsity) for name in HALVED)


def block_convolution(run: Run) -> object:
    """The layers."""
    return timed(run, "block convolution", time_layer, list(layers())) if hopper() else "for compute capability 9.0 alone"


def time_layer(layer: Layer) -> dict[str, Any]:
    problem = Problem(layer)
    density = problem.weight.count_nonzero().item() / problem.weight.numel()
    ours = {str(kernel): kernel for kernel in kernels(problem.two_four)}
    return asdict(layer) | {"density": density} | compared(
        {"cudnn": lambda: {"channels-last": None}, "blocks-cuda": lambda: ours}, problem.repeated, problem.error)
