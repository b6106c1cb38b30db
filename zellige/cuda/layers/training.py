"""The choice of a way for a linear layer that is trained: whole steps race, forward and backward, since a way that is fast forward
may lose it all on the way back.

Two ways have a backward pass, *groups* and *columns*; *dense* is PyTorch's product with a whole weight, whose zeros the trainer
keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.choosing import (
    GROUPS,
    Product,
    check_timeable,
    configurations,
    fastest_way,
    key_of,
    promises,
    why_untimed,
)
from zellige.cuda.layers.linear import product, upload
from zellige.cuda.tiling.tiles import cut_tiles


def choose_for_training(weight: torch.Tensor, tokens: int, cache: ChoiceCache | None = None, tile: int = 128,
                        step: int = 64) -> Choice:
    """Time a step of each way with so many tokens, y and the gradients of x and of the weight, or take what was chosen for the like
    before; what ``TileWiseLinear(…, trainable=True)`` wants. Where it says dense, the layer is trained as it was.

    Ways that leave next to nothing out are not timed. ``CompileError`` where the weight is not of bfloat16 or float16 on a GPU.
    """
    check_timeable(weight, 2)
    configs = dict.fromkeys(GROUPS, configurations(weight.device, tile, step, tokens))
    matrix = weight.detach().float().cpu().numpy()
    cuts = {way: cut_tiles(matrix, tile, group, step) for way, group in GROUPS.items()}
    promised = promises(cuts)
    cuts = {way: cuts[way] for way, promise in promised.items() if promise.worth_timing}
    ways = {way: partial(_prepared, weight, tile, step, way) for way in cuts}
    whole = weight.detach().clone().requires_grad_()
    dense = partial(stepped, partial(torch.nn.functional.linear, weight=whole), whole)
    return fastest_way(key_of(weight, tile, step, cuts, "training", tokens), dense, ways, configs,
                       weight.new_empty(tokens, weight.shape[1]), cache, (tokens,), "" if ways else why_untimed(promised.values()))


def stepped(call: Callable[[torch.Tensor], torch.Tensor], parameter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The gradient of x after a step, of which that of the parameter is a part; for want of a loss, y stands for its gradient."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = call(leaf)
        return torch.autograd.grad(y, (leaf, parameter), y.detach())[0]


def _prepared(weight: torch.Tensor, tile: int, step: int, way: str) -> Product:
    tiles = upload(weight, way, tile, step, trained=True)
    values = tiles.values.requires_grad_()

    def call(config: Config | None, x: torch.Tensor) -> torch.Tensor:
        return stepped(partial(product, tiles, way, config), values, x)

    return call
