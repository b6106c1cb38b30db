"""Convolutions in tiles on a GPU against cuDNN: first whether they are right, then how fast layers of ResNet-50 and VGG-16 are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import torch
from gpu_contestants import DEVICE, DTYPE, ROTATED, capability
from gpu_correctness import verdict
from gpu_error import FUNCTIONS, checked_error, relative_error
from gpu_layers import compared, least_seconds, measured, measured_ceilings
from gpu_masks import tile_wise, tile_wise_in_eights
from gpu_run import Run

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.layers.timing import Repeated
from zellige.cuda.operators.convolution import convolve
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window

IMAGES = 64
CHECKED = 4  # images whose answers are compared with float32
STEP = 64
CONFIGS = 3  # of each tile, the likeliest
SPARSITIES = (0.75, 0.5, 0.9)

LAYERS = {
    "vgg-16 conv4": (512, 512, 28, 3, 1), "resnet-50 3×3": (256, 256, 14, 3, 1), "vgg-16 conv3": (256, 256, 56, 3, 1),
    "resnet-50 3×3, strided": (256, 256, 28, 3, 2), "resnet-50 1×1": (1024, 256, 14, 1, 1),
    "resnet-50 3×3, last": (512, 512, 7, 3, 1), "resnet-50 3×3, second": (128, 128, 28, 3, 1),
    "vgg-16 conv2": (128, 128, 112, 3, 1), "resnet-50 3×3, first": (64, 64, 56, 3, 1),
}
"""Name → channels, rows, height and width, kernel, stride; the padding keeps the size or halves it."""

UNLIKE = ("vgg-16 conv4", "resnet-50 3×3, strided", "resnet-50 1×1", "resnet-50 3×3, first")
"""Layers that want code of their own; the others' is that of the first."""

EIGHTS, SINGLE = "tw2-128 in eights", "tw2-128"
"""Masks: rows and channels go in eights, for channels-last; one by one, for planes."""


@dataclass(frozen=True)
class Layer:
    """A convolution under a mask."""

    name: str
    channels: int
    rows: int
    size: int
    kernel: int
    stride: int
    mask: str
    sparsity: float

    @property
    def window(self) -> Window:
        pad = self.kernel // 2
        return Window((self.kernel,) * 2, (self.stride,) * 2, (pad, pad))

    @property
    def pixels(self) -> int:
        return IMAGES * math.prod(self.window.output(self.size, self.size))


@dataclass(frozen=True)
class Way:
    """``cut`` is None for cuDNN."""

    cut: ConvolutionTiles | None
    config: Config | None = None
    planes: bool = False


@dataclass
class Problem:
    """A layer's weight and its inputs."""

    layer: Layer

    @cached_property
    def weight(self) -> torch.Tensor:
        layer, generator = self.layer, torch.Generator().manual_seed(0)
        draw = tile_wise_in_eights if layer.mask == EIGHTS else tile_wise
        mask = draw(layer.rows, layer.channels, layer.sparsity, generator).to(DEVICE)
        shape = (layer.rows, layer.channels, layer.kernel, layer.kernel)
        values = torch.randn(*shape, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
        return (values * mask[:, :, None, None] / math.sqrt(layer.channels * layer.kernel**2)).to(DTYPE)

    @cached_property
    def inputs(self) -> list[torch.Tensor]:
        """Images × height × width × channels, as many as exceed the cache."""
        shape = (IMAGES, self.layer.size, self.layer.size, self.layer.channels)
        return [torch.randn(*shape, device=DEVICE, dtype=DTYPE) for _ in range(max(2, math.ceil(ROTATED / (2 * math.prod(shape)))))]

    @cached_property
    def planes(self) -> list[torch.Tensor]:
        return [x.permute(3, 0, 1, 2).contiguous() for x in self.inputs]

    def dense(self) -> dict[str, Way]:
        return {"channels-last": Way(None)}

    def tiles(self) -> dict[str, Way]:
        planes = self.layer.mask == SINGLE
        found = {}
        for tile in (128,) if planes else (128, 64):
            cut = ConvolutionTiles.upload(self.weight, self.layer.window, tile, 1 if planes else 8, STEP)
            for config in candidates(tile, STEP, self.layer.pixels, capability())[:CONFIGS - planes]:
                found[f"{tile}: {config}"] = Way(cut, config, planes)
        return found

    def repeated(self, way: Way) -> Repeated:
        if way.cut is None:
            last = self.weight.to(memory_format=torch.channels_last)
            return Repeated([partial(dense, self.layer.window, last, x.permute(0, 3, 1, 2)) for x in self.inputs])
        call = partial(convolve, way.cut, x_features=way.planes, y_features=way.planes, config=way.config)
        return Repeated([partial(call, x) for x in (self.planes if way.planes else self.inputs)])

    def error(self, y: torch.Tensor, way: Way) -> float:
        """Of the answers for some images of the first input."""
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            x = self.inputs[0][:CHECKED].permute(0, 3, 1, 2).float()
            reference = dense(self.layer.window, self.weight.float(), x)
        if way.cut is not None:
            y = y.transpose(0, 1) if way.planes else y.permute(0, 3, 1, 2)
        return relative_error(y[:CHECKED], reference)


def dense(window: Window, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.conv2d(x, weight, None, window.stride, window.padding, window.dilation)


def layers() -> Iterator[Layer]:
    for sparsity in SPARSITIES:
        for name, numbers in LAYERS.items():
            yield Layer(name, *numbers, EIGHTS, sparsity)
        if sparsity == SPARSITIES[0]:
            yield from (Layer(name, *LAYERS[name], SINGLE, sparsity) for name in ("vgg-16 conv4", "resnet-50 3×3", "resnet-50 1×1"))


def correctness(run: Run) -> object:
    """Awkward shapes; and what will be timed is compiled."""
    jobs: list[tuple[Any, int]] = [(shape, cut) for cut in range(len(CUTS)) for shape in range(len(AWKWARD))]
    jobs += [(layer, number) for layer in layers() if layer.sparsity == SPARSITIES[0] and layer.name in UNLIKE
             for number in range(2 * CONFIGS)]
    return verdict(run, "convolutions", prepare, jobs)


def convolution(run: Run) -> object:
    """The layers."""
    return timed(run, "convolution", time_layer, list(layers()))


def timed(run: Run, section: str, time: Callable[[Layer], dict[str, Any]], layers: list[Layer]) -> dict[str, Any]:
    """Put what is found of each layer among the section's facts, which are written after every one."""
    best = measured_ceilings(run)
    found: list[dict[str, Any]] = []
    run.facts[section] = {"ceilings": best, "layers": found}
    measured(run, found, time, layers, lambda layer, result: floor(layer, result["density"], best))
    return run.facts[section]


def prepare(job: tuple[Any, int]) -> list[tuple[str, float]]:
    """Check an awkward shape in a cut; or make one of a layer's ways ready, of which there is nothing to tell."""
    if not isinstance(job[0], Layer):
        return awkward_cases(job)
    compile_way(*job)
    return []


def compile_way(layer: Layer, number: int) -> None:
    """Run a way of a layer once for all images and once for one, which is cut into parts: then its code is in Triton's cache."""
    for way in list(Problem(layer).tiles().values())[number:number + 1]:
        assert way.cut is not None
        for images in (IMAGES, 1):
            shape = (images, layer.size, layer.size, layer.channels)
            x = torch.randn(shape[-1:] + shape[:-1] if way.planes else shape, device=DEVICE, dtype=DTYPE)
            convolve(way.cut, x, x_features=way.planes, y_features=way.planes, config=way.config)
    torch.cuda.synchronize()


def time_layer(layer: Layer) -> dict[str, Any]:
    problem = Problem(layer)
    density = problem.weight.count_nonzero().item() / problem.weight.numel()
    return asdict(layer) | {"density": density} | compared({"cudnn": problem.dense, "tiles": problem.tiles}, problem.repeated,
                                                          problem.error)


def floor(layer: Layer, density: float, best: dict[str, float]) -> float:
    """Seconds that the kept multiplications or the fewest bytes take at the chip's measured best."""
    kept = density * layer.rows * layer.channels * layer.kernel**2
    moved = 2 * (kept + IMAGES * layer.size**2 * layer.channels + layer.pixels * layer.rows)
    return least_seconds(2 * kept * layer.pixels, moved, best)


# ------------------------------------------------------------------------------------------------------------ results

AWKWARD = (
    # channels, rows, images, height, width, window
    (64, 128, 3, 15, 17, Window((3, 3), padding=(1, 1))), (40, 100, 2, 13, 9, Window((3, 3), stride=(2, 2), padding=(1, 1))),
    (72, 61, 1, 1, 1, Window((3, 3), padding=(1, 1))), (20, 136, 2, 11, 14, Window((3, 2), stride=(3, 1), padding=(0, 1))),
    (128, 64, 2, 12, 12, Window((3, 3), padding=(2, 2), dilation=(2, 2))), (96, 256, 3, 7, 7, Window((1, 1))),
    (33, 48, 2, 14, 14, Window((1, 1), stride=(2, 2))), (8, 200, 5, 30, 20, Window((5, 5), padding=(2, 2))),
)
CUTS = ((128, 8, 64, False), (64, 8, 64, False), (128, 64, 64, False), (64, 1, 64, True))
"""Rows of a tile, channels of a group, columns of a step, and whether activations are planes."""


def awkward_cases(job: tuple[int, int]) -> list[tuple[str, float]]:
    """Relative errors of one shape in one cut, against float32 on the GPU, outputs poisoned beforehand."""
    (channels, rows, images, height, width, window), (tile, group, step, planes) = AWKWARD[job[0]], CUTS[job[1]]
    activation = list(FUNCTIONS)[sum(job) % len(FUNCTIONS)]
    configs = candidates(tile, step, images * height * width, capability())
    config = configs[sum(job) % len(configs)]
    found = []
    for kind in ("half", "full") + ("empty",) * (sum(job) % 4 == 0):
        generator = torch.Generator(DEVICE).manual_seed(rows)
        weight = torch.randn(rows, channels, *window.kernel, device=DEVICE, generator=generator) / math.sqrt(channels)
        if kind == "half":
            kept = torch.rand(-(-rows // 32), -(-channels // group), 1, 1, device=DEVICE, generator=generator) < 0.5
            weight *= kept.repeat_interleave(32, 0).repeat_interleave(group, 1)[:rows, :channels]
        weight = (weight * (kind != "empty")).to(DTYPE)
        cut = ConvolutionTiles.upload(weight, window, tile, group, step)
        case = f"{channels}→{rows} {images}×{height}×{width} {window} {CUTS[job[1]]} {kind} {config} {activation}"
        try:
            error = awkward_error(weight, cut, (images, channels, height, width), activation, planes, config)
        except torch.AcceleratorError:
            raise
        except Exception as problem:
            error, case = float("nan"), f"{case}: {type(problem).__name__}: {str(problem)[-300:]}"
        found.append((case, error))
    return found


def awkward_error(weight: torch.Tensor, cut: ConvolutionTiles, shape: tuple[int, ...], activation: str, planes: bool,
                  config: Config) -> float:
    x, bias = torch.randn(*shape, device=DEVICE, dtype=DTYPE), torch.randn(len(weight), device=DEVICE, dtype=DTYPE)
    before, terms = (dense(cut.window, *operands) + added[:, None, None] for operands, added in (
        ((weight.double(), x.double()), bias.double()), ((weight.double().abs(), x.double().abs()), bias.double().abs())))
    residual = torch.randn(before.shape, device=DEVICE, dtype=DTYPE)
    before, terms = before + residual.double(), terms + residual.double().abs()
    order = (1, 0, 2, 3) if planes else (0, 2, 3, 1)
    poison = torch.full((before.numel(),), float("nan"), device=DEVICE, dtype=DTYPE)
    del poison  # the allocator hands this memory to the result
    laid, addend = (tensor.permute(order).contiguous() for tensor in (x, residual))
    found = convolve(cut, laid, bias, addend, activation, planes, planes, config)
    return checked_error(found, before.permute(order), terms.permute(order), weight[0].numel(), activation)
