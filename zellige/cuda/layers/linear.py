"""A linear layer that runs as tiles where that was measured to be faster, and dense where it was not.

Seven ways race for a layer whose activations are tokens × features, as PyTorch has them: *dense*; *blocks*, tiles that keep whole
steps of columns, by the kernel of blocks (``operators/block_product.py``); *blocks 2:4*, the same compressed, if they are 2:4
inside; *paired blocks*, tiles of 64 rows, two to one, where blocks as tall as a tile leave clearly more to do; *groups*, tiles that
keep columns in groups of 8, read as they lie; *columns*, tiles that keep single columns, for which the input is transposed first;
*vectors*, such that are 2:4 inside (``layers/vectors.py``). The weight is kept in the form of the winner alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.choosing import (
    BLOCKS,
    BY_BLOCKS,
    DENSE,
    GROUPS,
    PAIRED,
    TWO_FOUR,
    Product,
    check_timeable,
    configurations,
    cut_for,
    fastest_way,
    groups,
    key_of,
    promises,
    tile_of,
    why_untimed,
)
from zellige.cuda.layers.layer import TileWiseLayer, in_form
from zellige.cuda.layers.vectors import VECTORS, digest_of_zeros, packed, promising, vector_product, worth_timing
from zellige.cuda.operators import block_product
from zellige.cuda.operators.product import capability_of, multiply
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import cut_tiles
from zellige.cuda.tiling.vector_tiles import least_work, vector_tiles

TRAINED = {TWO_FOUR: "groups", BLOCKS: "groups", PAIRED: "groups", VECTORS: "columns"}
"""Ways whose kernels have no backward pass, and by which way they are trained."""


class TileWiseLinear(TileWiseLayer):
    """y = x · Wᵀ + b (+ residual) for x of … × columns, by the way that was chosen.

    The way is the same whatever the number of tokens: it was timed with ``choice.size`` of them, and with far fewer or more another
    may be faster.

    Args:
        weight: rows × columns, bfloat16 or float16, with the zeros that pruning made, on the device that runs it.
        bias: rows, or None.
        choice: what ``choose`` found; its way ``"dense"`` needs no GPU.
        trainable: keep the tiles' values and the bias as parameters. ``CompileError`` if the way is dense. Blocks are then
            multiplied by the kernel of groups, and vectors as single columns, which have a backward pass.

    ``InputError`` if the way is vectors and the weight not 2:4 in tiles.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, choice: Choice, tile: int = 128, step: int = 64,
                 trainable: bool = False):
        super().__init__(weight.shape[0], bias, choice, trainable)
        self.columns = weight.shape[1]
        if choice.way == DENSE:
            self.keep_dense(weight)
        elif choice.way == VECTORS and not trainable:
            self.keep_vectors(vector_tiles(weight).to(weight.device))
        else:
            self.keep_tiles(upload(weight, choice.way, tile, step, trainable))

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """``InputError`` unless x is … × columns and the residual … × rows, both as the weight is."""
        self.check("x", x, (*x.shape[:-1], self.columns))
        self.check("residual", residual, (*x.shape[:-1], self.features))
        if self.choice.way == DENSE:
            y = torch.nn.functional.linear(x, self.weight, self.bias)
            return y if residual is None else y + residual
        flat = x.reshape(-1, self.form.shape[1]).contiguous()
        addend = None if residual is None else residual.reshape(-1, self.features).contiguous()
        way, config = self.choice.way, self.choice.config
        if self.trainable and way in TRAINED:
            way, config = TRAINED[way], None
        if way == VECTORS:
            y = vector_product(self.vectors, flat, self.bias, addend)
        else:
            y = product(self.tiles, way, config, flat, self.bias, addend)
        return y.reshape(*x.shape[:-1], self.features)


def upload(weight: torch.Tensor, way: str, tile: int, step: int, trained: bool = False) -> DeviceTiles:
    cut = cut_tiles(weight.detach().float().cpu().numpy(), tile_of(way, tile), groups(step).get(way, 1), step)
    tiles = DeviceTiles.upload(cut, weight.device, weight.dtype, trained)
    return tiles if trained else in_form(tiles, way)


def product(tiles: DeviceTiles, way: str, config: Config | None, x: torch.Tensor, bias: torch.Tensor | None = None,
            residual: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens × rows, from tokens × columns."""
    if way in BY_BLOCKS and config is not None:
        return block_product.multiply(tiles, x, bias, residual, kernel=block_product.BlockKernel.of(config))
    features = way == "columns"
    return multiply(tiles, x.T.contiguous() if features else x, bias, residual, x_features=features, config=config)


def choose(weight: torch.Tensor, tokens: int, cache: ChoiceCache | None = None, tile: int = 128, step: int = 64) -> Choice:
    """Time the ways to multiply ``weight`` with so many tokens, or take what was chosen for the like before.

    Ways that leave next to nothing out are not timed. ``CompileError`` where the weight is not of bfloat16 or float16 on a GPU.
    """
    check_timeable(weight, 2)
    configs: dict[str, Sequence[Config | None]] = {
        **{way: block_product.configurations(weight.shape, tile, step, capability_of(weight.device), way == TWO_FOUR)
           for way in BY_BLOCKS},
        **dict.fromkeys(GROUPS, configurations(weight.device, tile, step, tokens)), VECTORS: [None]}
    matrix = weight.detach().float().cpu().numpy()
    cuts = cut_for([way for way in groups(step) if configs[way]], tile, step,
                   lambda rows, group: cut_tiles(matrix, rows, group, step))
    promised = promises(cuts)
    least = min([1.0, *(promise.work for promise in promised.values())])
    cuts = {way: cuts[way] for way, promise in promised.items() if promise.worth_timing}
    ways: dict[str, Callable[[], Product | None]] = {way: partial(_prepared, weight, tile, step, way) for way in cuts}
    about: list[object] = [tokens]
    if promising(least_work(weight), least, tile, step, capability_of(weight.device)):
        ways[VECTORS] = partial(_prepared_vectors, weight, least)
        about.append((VECTORS, digest_of_zeros(weight)))
    return fastest_way(key_of(weight, tile, step, cuts, *about), partial(torch.nn.functional.linear, weight=weight), ways,
                       configs, weight.new_empty(tokens, weight.shape[1]), cache, (tokens,),
                       "" if ways else why_untimed(promised.values()))


def _prepared(weight: torch.Tensor, tile: int, step: int, way: str) -> partial[torch.Tensor]:
    if way in BY_BLOCKS:
        block_product.compile_ahead(weight.dtype, two_four=way == TWO_FOUR, paired=way == PAIRED)
    return partial(product, upload(weight, way, tile, step), way)


def _prepared_vectors(weight: torch.Tensor, least: float) -> Product | None:
    tiles = packed(weight)
    if tiles is None or not worth_timing(tiles, least):
        return None
    return lambda config, x: vector_product(tiles, x)  # the operator takes the kernel for the GPU
