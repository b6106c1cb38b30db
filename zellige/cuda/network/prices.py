"""What the layers of a network take on this GPU, in each order and by each way: measured, and kept on disk.

Layers that are alike are timed once: of the same shape and epilogue, with about as many steps to their tiles. The dense product is
in every race, in every order, so nothing is chosen that was not faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.layers.agreement import Agreement
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.choosing import (
    BY_BLOCKS,
    CLEARLY_LESS,
    DENSE,
    PAIRED,
    TWO_FOUR,
    Contestant,
    best_of,
    failures,
    tile_of,
    why_untimed,
)
from zellige.cuda.layers.keys import about, machine
from zellige.cuda.layers.timing import Repeated, fastest
from zellige.cuda.layers.vectors import VECTORS
from zellige.cuda.network.expected import expected
from zellige.cuda.network.layers import FEATURES, TOKENS, Attention, Convolution, Layer, Linear, Norm, WithWeights
from zellige.cuda.network.modules import (
    FUSED,
    KERNEL,
    STEP,
    TILE,
    TORCH,
    WAYS,
    WITHOUT_TILES,
    Ordered,
    WeightedModule,
    cut,
    module_for,
    tile_groups,
)
from zellige.cuda.network.vectors import promising_tiles
from zellige.cuda.operators import block_convolution, block_product, features
from zellige.cuda.tiling.compressed_blocks import SHARE, compressible
from zellige.cuda.tiling.outlook import WORTH_TIMING, outlook
from zellige.cuda.tiling.paired_blocks import fetched
from zellige.cuda.tiling.tiles import Tiles
from zellige.cuda.tiling.vector_tiles import VectorTiles

Orders = tuple[str, str]

MOST_CONFIGS = 3
FEW_ITEMS = 600
"""Where tiles × blocks of 128 tokens are fewer, smaller blocks are timed too: they leave fewer multiprocessors idle at the end."""

ROTATED_BYTES = 160e6  # inputs that are timed in turn: more than the L2 caches of today hold
ALIKE = 32
"""Layers count as alike if their tiles take the same number of 32nds of the dense multiplications, are spread alike over them, and
results are written alike."""

SPREAD = 16
"""Tiles are spread alike if quartiles of their steps are the same number of 16ths of a dense tile's."""


class MeasuredPrices:
    """Prices for one GPU and element type."""

    def __init__(self, device: torch.device, dtype: torch.dtype, cache: ChoiceCache | None = None) -> None:
        self.device, self.dtype = device, dtype
        self.cache = cache or ChoiceCache()
        major, minor = torch.cuda.get_device_capability(device)
        self.capability = 10 * major + minor
        self.known: dict[str, Choice] = {}
        self._cuts: dict[WithWeights, dict[str, Tiles]] = {}
        self._vectors: dict[WithWeights, VectorTiles | None] = {}
        self._patterns: dict[WithWeights, list[tuple[object, ...]]] = {}

    def layer(self, layer: Layer, tokens: int, residual: bool, orders: Orders) -> Choice | None:
        ways = self._ways(layer, tokens, orders)
        if not ways:
            return None
        choice = self._best(self._key(layer, tokens, residual, orders), layer, tokens, residual, orders, ways)
        if isinstance(layer, WithWeights) and all(way not in WAYS for way, _ in ways):
            return replace(choice, untimed=self._untimed(layer, orders))
        return choice

    def without_tiles(self, layer: WithWeights, tokens: int, residual: bool) -> Choice:
        orders = (TOKENS, TOKENS)
        choice, ways = self.layer(layer, tokens, residual, orders), ways_of(layer, orders)
        assert choice is not None
        if choice.way in ways:
            return choice
        if len(ways) == 1:
            return Choice(ways[0], None, choice.dense_seconds, choice.dense_seconds)
        key = f"{self._key(layer, tokens, residual, orders)} | without tiles"
        return self._best(key, layer, tokens, residual, orders, [(way, None) for way in ways])

    def _best(self, key: str, layer: Layer, tokens: int, residual: bool, orders: Orders, ways: Sequence[Contestant]) -> Choice:
        """The fastest of these ways, as it was found before, or by a race."""
        choice = self.known.get(key) or self.cache.get(key)
        if choice is None or (choice.way, choice.config) not in ways:
            choice = self._race(layer, tokens, residual, orders, ways)
            if not choice.failed:  # the next race may end otherwise
                self.cache.put(key, choice)
        self.known[key] = choice
        return choice

    def turning(self, features_: int, tokens: int) -> float:
        key = " | ".join(map(str, (*machine(self.device), self.dtype, "turning", features_, tokens)))
        choice = self.known.get(key) or self.cache.get(key)
        if choice is None:
            inputs = self._inputs((features_, tokens))
            alone: Contestant = (KERNEL, None)
            times, failed = fastest({alone: lambda: Repeated([partial(features.transposed, x) for x in inputs])})
            choice = Choice(*alone, best_of(times, failed, "turning an activation")[1], 1.0)
            self.cache.put(key, choice)
        self.known[key] = choice
        return choice.seconds

    def _ways(self, layer: Layer, tokens: int, orders: Orders) -> list[Contestant]:
        plain = ways_of(layer, orders)
        if isinstance(layer, Attention) and KERNEL in plain:
            return [(KERNEL, config) for config in features.attention_configs(layer.sequence)]
        tiles = self._able(layer, tokens) if isinstance(layer, WithWeights) and plain else {}
        return [*((way, None) for way in plain),
                *((way, config) for way, configs in tiles.items() if orders in WAYS[way][1] for config in configs)]

    def _able(self, layer: WithWeights, tokens: int) -> dict[str, Sequence[Config | None]]:
        """Ways through tiles with their configurations: a finer one where it takes clearly less than all coarser ones."""
        configs = worth_timing(layer.rows, tokens, self.capability)
        if isinstance(layer, Convolution):  # every window compiles a kernel of its own
            configs = list(dict.fromkeys([*configs[:MOST_CONFIGS - 1], configs[-1]]))
        found: dict[str, Sequence[Config | None]] = {}
        least = WORTH_TIMING
        for way, tiles in self._cut(layer).items():
            work = _work(layer, tiles, way)
            own = configs if way not in BY_BLOCKS else self._of_blocks(layer, way)
            if own and work < least:
                found[way] = own
                least = least if way == TWO_FOUR else CLEARLY_LESS * work  # the same blocks, whole, are as coarse
        if self._two_four(layer) is not None:
            found[VECTORS] = [None]  # the operator takes the kernel for the GPU
        return found

    def _of_blocks(self, layer: WithWeights, way: str) -> list[Config]:
        return block_product.configurations(layer.weight.shape[:2], TILE, STEP, self.capability, way == TWO_FOUR)

    def _race(self, layer: Layer, tokens: int, residual: bool, orders: Orders, ways: Sequence[Contestant]) -> Choice:
        for way in dict.fromkeys(way for way, _ in ways if way in BY_BLOCKS):
            assert isinstance(layer, WithWeights)
            compile_blocks(layer, self.dtype, way)
        lead, operand, result = shapes(layer, tokens, orders)
        inputs = self._inputs(operand)
        beside = [self._random(result)] if residual else []
        modules: dict[str, Ordered] = {}

        def prepared(way: Contestant) -> Repeated:
            choice = Choice(*way, 1.0, 1.0)
            if way[0] not in modules or not isinstance(layer, WithWeights):
                modules[way[0]] = module_for(layer, choice, orders, lead, self.device, self.dtype)
            module = modules[way[0]]
            module = module.tuned(choice) if isinstance(module, WeightedModule) else module
            return Repeated([partial(module, x, *beside) for x in inputs])

        with torch.no_grad():
            agreement = Agreement(partial(expected, layer, orders, lead, inputs[0], *beside))
            alone = all(way in (DENSE, TORCH) for way, _ in ways)  # nothing but PyTorch's own
            times, failed = fastest({way: partial(prepared, way) for way in ways}, check=None if alone else agreement.check)
            (way, config), seconds = best_of(times, failed, " and ".join(layer.names))
            plain = [one for one in ways if one[0] in WITHOUT_TILES] or ways[:1]
            known = [times[one] for one in plain if one in times]  # others did not come through the heat
            baseline = min(known or fastest({one: partial(prepared, one) for one in plain})[0].values(), default=seconds)
        return Choice(way, config, seconds, baseline, failures(failed))

    def _untimed(self, layer: WithWeights, orders: Orders) -> str:
        """Why no tiles were timed in these orders."""
        clustered = isinstance(layer, Linear)
        return why_untimed(replace(outlook(tiles, clustered), work=_work(layer, tiles, way))
                           for way, tiles in self._cut(layer).items() if orders in WAYS[way][1])

    def _inputs(self, shape: Sequence[int]) -> list[torch.Tensor]:
        """Enough of them that none is in the L2 cache when its turn comes."""
        count = max(2, min(64, math.ceil(ROTATED_BYTES / (2 * math.prod(shape)))))
        return [self._random(shape) for _ in range(count)]

    def _random(self, shape: Sequence[int]) -> torch.Tensor:
        """Numbers; maps of them lie channels-last."""
        form = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        return torch.empty(tuple(shape), device=self.device, dtype=self.dtype, memory_format=form).normal_()

    def _cut(self, layer: WithWeights) -> dict[str, Tiles]:
        if layer not in self._cuts:
            sizes = {way: (group, tile_of(way, TILE)) for way, group in tile_groups(layer).items()
                     if way != PAIRED or self._of_blocks(layer, way)}
            by_size = {(group, tile): cut(layer, group, self.dtype, tile, STEP) for group, tile in set(sizes.values())}
            self._cuts[layer] = {way: by_size[size] for way, size in sizes.items()
                                 if way != TWO_FOUR or compressible(by_size[size])}
        return self._cuts[layer]

    def _two_four(self, layer: WithWeights) -> VectorTiles | None:
        """Tiles for the sparse tensor cores, if a layer has some that are worth timing."""
        if isinstance(layer, Linear) and layer not in self._vectors:
            least = min([1.0, *(_work(layer, tiles, way) for way, tiles in self._cut(layer).items())])
            self._vectors[layer] = promising_tiles(layer, self.dtype, least, TILE, STEP, self.capability)
        return self._vectors.get(layer)

    def _pattern(self, layer: WithWeights) -> list[tuple[object, ...]]:
        """What a layer's tiles of each way have to do, and paired blocks to read, rounded."""
        if layer not in self._patterns:
            full = math.ceil(layer.weight[0].numel() / STEP)
            self._patterns[layer] = [(way, round(ALIKE * _work(layer, tiles, way)), *about(tiles, full, SPREAD),
                                      *([round(ALIKE * fetched(tiles))] if way == PAIRED else []))
                                     for way, tiles in self._cut(layer).items()]
            if (vectors := self._two_four(layer)) is not None:
                self._patterns[layer].append((VECTORS, round(ALIKE * vectors.density), round(SPREAD * vectors.longest / full)))
        return self._patterns[layer]

    def _key(self, layer: Layer, tokens: int, residual: bool, orders: Orders) -> str:
        own: tuple[object, ...]
        if isinstance(layer, WithWeights):
            kind = ("linear", layer.rows, layer.columns) if isinstance(layer, Linear) else (
                "convolution", layer.rows, layer.channels, layer.window, layer.height, layer.width)
            own = (*kind, layer.activation, layer.bias is None, residual, self._pattern(layer), TILE, STEP)
        elif isinstance(layer, Norm):
            own = ("norm", layer.features, layer.weight is None, layer.bias is None)
        else:
            own = ("attention", layer.features, layer.heads, layer.sequence)
        return " | ".join(map(str, (*machine(self.device), self.dtype, *own, tokens, *orders)))


def worth_timing(rows: int, tokens: int, capability: int) -> list[Config]:
    """Configurations for tiles of so many rows."""
    able = candidates(TILE, STEP, tokens, capability)
    small = [config for config in able if config.tokens == 64 and -(-rows // TILE) * -(-tokens // 128) < FEW_ITEMS]
    return list(dict.fromkeys([*able[:MOST_CONFIGS], *small]))


def compile_blocks(layer: WithWeights, dtype: torch.dtype, way: str) -> None:
    """Have the kernels of blocks at hand that a layer may want."""
    two_four, paired = way == TWO_FOUR, way == PAIRED
    if isinstance(layer, Linear):
        block_product.compile_ahead(dtype, layer.activation, two_four=two_four, paired=paired)
    else:
        block_convolution.compile_ahead(layer.window, dtype, layer.activation, two_four, paired)


def ways_of(layer: Layer, orders: Orders) -> tuple[str, ...]:
    """How a layer can run in these orders, without tiles."""
    if isinstance(layer, Convolution):
        if orders != (TOKENS, TOKENS):
            return ()
        return (DENSE, FUSED) if layer.activation == "relu" else (DENSE,)
    if isinstance(layer, WithWeights):
        return (DENSE,)
    if orders == (TOKENS, TOKENS):
        return (TORCH,)
    if isinstance(layer, Norm):
        return (KERNEL,) if layer.features <= features.MOST_FEATURES else ()
    able = orders == (FEATURES, FEATURES) and layer.features // layer.heads in features.HEAD_WIDTHS
    return (KERNEL,) if able else ()


def shapes(layer: Layer, tokens: int, orders: Orders) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Of a layer that makes so many tokens: the lead of its result (``lead_of``), and how operand and result lie."""
    if isinstance(layer, Convolution):
        down, right = layer.window.output(layer.height, layer.width)
        images = tokens // (down * right)
        return (images, down, right), (images, layer.channels, layer.height, layer.width), (images, layer.rows, down, right)
    lead = (tokens // layer.sequence, layer.sequence) if isinstance(layer, Attention) else (tokens,)
    columns, rows = (layer.columns, layer.rows) if isinstance(layer, Linear) else (
        layer.features * (3 if isinstance(layer, Attention) else 1), layer.features)
    return lead, _shape(orders[0], tokens, columns), _shape(orders[1], tokens, rows)


def _work(layer: WithWeights, tiles: Tiles, way: str) -> float:
    """Multiplications that tiles take as a share of the dense layer's, columns that only fill up groups too."""
    return tiles.values.size / layer.weight.numel() * (SHARE if way == TWO_FOUR else 1.0)


def _shape(order: str, tokens: int, width: int) -> tuple[int, int]:
    return (tokens, width) if order == TOKENS else (width, tokens)
