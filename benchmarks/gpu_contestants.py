"""Who multiplies a sparse weight with activations on a GPU: cuBLAS, Zellige's kernels, cuSPARSE."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import torch
from gpu_error import relative_error
from gpu_masks import MASKS
from gpu_vectors import EVERYWHERE, HOPPER, TILE_WISE, hopper, label
from torch.sparse.semi_structured import SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.layers.timing import Repeated
from zellige.cuda.operators.block_product import KERNELS, TWO_FOUR_KERNELS, suits
from zellige.cuda.operators.block_product import multiply as multiply_blocks
from zellige.cuda.operators.product import multiply
from zellige.cuda.operators.tile_vector_wise import multiply as multiply_vectors
from zellige.cuda.tiling.compressed_blocks import compressed
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import paired
from zellige.cuda.tiling.tiles import cut_tiles
from zellige.cuda.tiling.vector_tiles import vector_tiles

TOKENS = 4096
BY_STEPS, TWO_FOUR_BY_STEPS = "tw1-128 by 64", "tvw-128 by 64"  # masks whose columns go in whole steps
ROTATED = 160e6  # bytes of inputs that a graph goes through: several times the L2 cache
DTYPE = torch.bfloat16
DEVICE = torch.device("cuda")


@dataclass(frozen=True)
class Layer:
    """A weight of rows × columns under a mask, and the tokens that it meets."""

    name: str
    rows: int
    columns: int
    mask: str
    sparsity: float
    tokens: int = TOKENS


@dataclass(frozen=True)
class Way:
    """A product of one input; ``features``: whether that input and the result are feature-major; ``captured``: in a graph."""

    product: Callable[[torch.Tensor], torch.Tensor]
    features: bool
    captured: bool = True


class Called:
    """Calls made anew in every lap: for what a graph can't capture; gaps between launches must not count."""

    def __init__(self, calls: Sequence[Callable[[], torch.Tensor]]):
        self.calls, self.count = calls, len(calls)
        self.results = [calls[0]()]

    def replay(self) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for call in self.calls:
            call()
        stop.record()
        return start, stop


@dataclass
class Problem:
    """A layer's weight and its inputs, in both orders."""

    layer: Layer
    seed: int = 0

    @cached_property
    def weight(self) -> torch.Tensor:
        layer, generator = self.layer, torch.Generator().manual_seed(self.seed)
        mask = MASKS[layer.mask].draw(layer.rows, layer.columns, layer.sparsity, generator).to(DEVICE)
        values = torch.randn(layer.rows, layer.columns, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(self.seed))
        return (values * mask / math.sqrt(layer.columns)).to(DTYPE)

    @cached_property
    def density(self) -> float:
        return self.weight.count_nonzero().item() / self.weight.numel()

    @cached_property
    def token_major(self) -> list[torch.Tensor]:
        """Inputs of tokens × columns, as many as exceed the cache."""
        shape = (self.layer.tokens, self.layer.columns)
        generator = torch.Generator(DEVICE).manual_seed(self.seed + 1)
        return [torch.randn(*shape, device=DEVICE, dtype=DTYPE, generator=generator)
                for _ in range(max(2, math.ceil(ROTATED / (2 * math.prod(shape)))))]

    @cached_property
    def feature_major(self) -> list[torch.Tensor]:
        return [x.T.contiguous() for x in self.token_major]

    @cached_property
    def tiles(self) -> list[DeviceTiles]:
        return [cut_on_device(self.weight, *cut) for cut in MASKS[self.layer.mask].cuts]

    def repeated(self, way: Way) -> Repeated | Called:
        repeat = Repeated if way.captured else Called
        return repeat([partial(way.product, x) for x in (self.feature_major if way.features else self.token_major)])

    def error(self, y: torch.Tensor, way: Way) -> float:
        """Of the answers for the first input: ‖y − reference‖ ÷ ‖reference‖."""
        return relative_error(y.T if way.features else y, self.token_major[0].float() @ self.weight.float().T)


def cut_on_device(weight: torch.Tensor, tile: int, group: int, step: int) -> DeviceTiles:
    return DeviceTiles.upload(cut_tiles(weight.float().cpu().numpy(), tile, group, step), DEVICE, DTYPE)


def capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def tile_product(cut: DeviceTiles, config: Config, features: bool, x: torch.Tensor) -> torch.Tensor:
    return multiply(cut, x, x_features=features, y_features=features, config=config)


def cublas(problem: Problem) -> dict[str, Way]:
    """Dense, in the layouts that it may choose from."""
    weight = problem.weight
    transposed = weight.T.contiguous()
    return {"tokens NT": Way(lambda x: x @ weight.T, False), "tokens NN": Way(lambda x: x @ transposed, False),
            "features": Way(lambda x: weight @ x, True)}


def tiles(problem: Problem, features: bool = True) -> dict[str, Way]:
    """Tiles in every configuration worth timing; token-major only where groups of 8 columns and more are kept. Not where the kernel
    of blocks takes part with the same tiles."""
    if problem.layer.mask in (BY_STEPS, TWO_FOUR_BY_STEPS) and blocks_cuda(problem):
        return {}
    return {f"{cut.tile}: {config}": Way(partial(tile_product, cut, config, features), features)
            for cut in problem.tiles if features or cut.unit >= 8
            for config in candidates(cut.tile, cut.step, problem.layer.tokens, capability())}


def vectors(problem: Problem) -> dict[str, Way]:
    """Tile-vector-wise tiles through sparse tensor cores, by the kernels for this GPU."""
    if problem.layer.mask != "tvw-128":
        return {}
    packed = vector_tiles(problem.weight).to(DEVICE)
    kernels = HOPPER if hopper() else EVERYWHERE
    return {label(kernel): Way(partial(multiply_vectors, packed, kernel=kernel), True)
            for one in kernels for kernel in (one, replace(one, tokens_first=True))}


def tiles_cuda(problem: Problem) -> dict[str, Way]:
    """Tile-wise tiles by the CUDA C++ kernel, on Hopper alone."""
    if problem.layer.mask not in ("tw2-128", "tw2-128 uneven", "block-128") or not hopper():
        return {}
    packed = vector_tiles(problem.weight, sparse=False).to(DEVICE)
    return {label(kernel): Way(partial(multiply_vectors, packed, kernel=kernel), True)
            for one in TILE_WISE for kernel in (one, replace(one, tokens_first=True))}


def blocks_cuda(problem: Problem) -> dict[str, Way]:
    """Blocks as tall and wide as the CUDA C++ kernel from tensor maps wants them, on Hopper alone."""
    return {str(kernel): Way(partial(multiply_blocks, cut, kernel=kernel), False)
            for cut in problem.tiles if hopper() and suits(cut, problem.token_major[0])
            for one in KERNELS for kernel in (one, replace(one, width=64))}


def blocks_two_four(problem: Problem) -> dict[str, Way]:
    """The same, compressed, where they are 2:4."""
    if problem.layer.mask != TWO_FOUR_BY_STEPS or not hopper():
        return {}
    return {str(kernel): Way(partial(multiply_blocks, cut, kernel=kernel), False) for cut in map(compressed, problem.tiles)
            for one in TWO_FOUR_KERNELS for kernel in (one, replace(one, width=64))}


def blocks_paired(problem: Problem) -> dict[str, Way]:
    """Blocks of 64 rows, two to a tile, by the same kernel."""
    if problem.layer.mask != "block-64" or not hopper():
        return {}
    both = paired(problem.tiles[0])
    return {str(kernel): Way(partial(multiply_blocks, both, kernel=kernel), False)
            for one in KERNELS for kernel in (one, replace(one, width=64))}


def cusparse(problem: Problem) -> dict[str, Way]:
    """Compressed sparse rows, where there is no structure to know of."""
    if problem.layer.mask != "unstructured":
        return {}
    weight = problem.weight.to_sparse_csr()
    return {"csr": Way(lambda x: weight @ x, True, captured=False)}


def semi_structured(problem: Problem) -> dict[str, Way]:
    """PyTorch's own 2:4, through CUTLASS and cuSPARSELt, of which also the algorithm that it finds to be the fastest. Whole blocks
    that are zero it multiplies as well. What PyTorch can't make here fails by itself."""
    if problem.layer.mask != TWO_FOUR_BY_STEPS:
        return {}
    kinds = {"cutlass": SparseSemiStructuredTensorCUTLASS, "cusparselt": SparseSemiStructuredTensorCUSPARSELT}
    made = {name: cache(partial(kind.from_dense, problem.weight)) for name, kind in kinds.items()}

    @cache
    def searched() -> torch.Tensor:
        packed = made["cusparselt"]()
        packed.alg_id_cusparselt = torch._cslt_sparse_mm_search(packed.packed, problem.token_major[0].T)
        return packed

    made["cusparselt searched"] = searched
    return {f"{name} {order}": Way(product, order == "features") for name, packed in made.items() for order, product in (
        ("tokens", lambda x, packed=packed: torch.nn.functional.linear(x, packed())),
        ("features", lambda x, packed=packed: packed() @ x))}


CONTESTANTS: dict[str, Callable[[Problem], dict[str, Way]]] = {
    "cublas": cublas, "tiles": tiles, "tiles-tokens": partial(tiles, features=False),
    "tiles-cuda": tiles_cuda, "blocks-cuda": blocks_cuda, "blocks-2:4": blocks_two_four, "blocks-paired": blocks_paired,
    "tvw": vectors, "cusparse": cusparse, "pytorch-2:4": semi_structured}
"""Who takes part, each with the ways that it may choose from before all race; the first is what the others are compared with."""
