"""A linear layer that runs as tiles where that was measured to be faster, and dense where it was not.

Three ways race for a layer whose activations are tokens × features, as PyTorch has them: *dense*; *groups*, tiles that keep
columns in groups of 8, read as they lie; *columns*, tiles that keep single columns, for which the input is transposed first. The
weight is kept in the form of the winner alone.
"""

from __future__ import annotations

from functools import partial

import torch
import triton

from zellige.cuda.choices import Choice, ChoiceCache
from zellige.cuda.config import Config, candidates
from zellige.cuda.outlook import outlook
from zellige.cuda.product import DTYPES, DeviceTiles, multiply
from zellige.cuda.tiles import cut_tiles
from zellige.cuda.timing import Repeated, fastest
from zellige.errors import CompileError

DENSE = "dense"
GROUPS = {"groups": 8, "columns": 1}
"""Way → the columns of a group."""

ROTATED_BYTES = 160e6  # inputs that are timed in turn: more than the L2 caches of today hold


class TileWiseLinear(torch.nn.Module):
    """y = x · Wᵀ + b (+ residual) for x of … × columns, by the way that was chosen.

    Args:
        weight: rows × columns, bfloat16 or float16, with the zeros that pruning made, on the device that runs it.
        bias: rows, or None.
        choice: what ``choose`` found; its way ``"dense"`` needs no GPU.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    values: torch.Tensor
    units: torch.Tensor
    rows: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, choice: Choice, tile: int = 128, step: int = 64):
        super().__init__()
        self.choice = choice
        self.features = weight.shape[0]
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        if choice.way == DENSE:
            self.register_buffer("weight", weight.detach().clone())
        else:
            tiles = upload(weight, GROUPS[choice.way], tile, step)
            self.shape, self.tile, self.step, self.unit, self.starts = tiles.shape, tiles.tile, tiles.step, tiles.unit, tiles.starts
            for name in ("values", "units", "rows"):
                self.register_buffer(name, getattr(tiles, name))

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        if self.choice.way == DENSE:
            y = torch.nn.functional.linear(x, self.weight, self.bias)
            return y if residual is None else y + residual
        tiles = DeviceTiles(self.shape, self.tile, self.step, self.unit, self.starts, self.values, self.units, self.rows)
        flat = x.reshape(-1, self.shape[1]).contiguous()
        addend = None if residual is None else residual.reshape(-1, self.features).contiguous()
        return product(tiles, self.choice.way, self.choice.config, flat, self.bias, addend).reshape(*x.shape[:-1], self.features)

    def extra_repr(self) -> str:
        return f"rows={self.features}, {self.choice.way}, {self.choice.dense_seconds / self.choice.seconds:.2f}× dense"


def upload(weight: torch.Tensor, group: int, tile: int, step: int) -> DeviceTiles:
    cut = cut_tiles(weight.detach().float().cpu().numpy(), tile, group, step)
    return DeviceTiles.upload(cut, weight.device, weight.dtype)


def product(tiles: DeviceTiles, way: str, config: Config | None, x: torch.Tensor, bias: torch.Tensor | None = None,
            residual: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens × rows, from tokens × columns."""
    features = way == "columns"
    return multiply(tiles, x.T.contiguous() if features else x, bias, residual, x_features=features, config=config)


def choose(weight: torch.Tensor, tokens: int, cache: ChoiceCache | None = None, tile: int = 128, step: int = 64) -> Choice:
    """Time the ways to multiply ``weight`` with so many tokens, or take what was chosen for the like before.

    Ways that promise no gain are not timed. Raises ``CompileError`` where the weight is not of bfloat16 or float16 on a GPU.
    """
    if weight.device.type != "cuda" or weight.dtype not in DTYPES or weight.ndim != 2:
        raise CompileError(f"ways are timed for a matrix of bfloat16 or float16 on a GPU, not for {list(weight.shape)} of "
                           f"{weight.dtype} on {weight.device}; move and convert the model first")
    cache = cache or ChoiceCache()
    cuts = {way: cut_tiles(weight.detach().float().cpu().numpy(), tile, group, step) for way, group in GROUPS.items()}
    cuts = {way: cut for way, cut in cuts.items() if outlook(cut).gain > 1}
    key = _key(weight, tokens, tile, step, {way: cut.steps for way, cut in cuts.items()})
    known = cache.get(key)
    if known is not None and (known.way == DENSE or known.way in cuts):
        return known
    count = max(2, int(ROTATED_BYTES / (weight.shape[1] * tokens * weight.itemsize)))
    inputs = [torch.randn(tokens, weight.shape[1], device=weight.device, dtype=weight.dtype) for _ in range(min(count, 64))]
    dense = partial(torch.nn.functional.linear, weight=weight)
    ways: dict[tuple[str, Config | None], partial[Repeated]] = {(DENSE, None): partial(_repeated, dense, inputs)}
    for way, cut in cuts.items():
        tiles = DeviceTiles.upload(cut, weight.device, weight.dtype)
        major, minor = torch.cuda.get_device_capability(weight.device)
        for config in candidates(tile, step, tokens, 10 * major + minor):
            ways[way, config] = partial(_repeated, partial(product, tiles, way, config), inputs)
    times, _ = fastest(ways)
    (best, chosen), seconds = next(iter(times.items()))
    baseline = times.get((DENSE, None))
    if baseline is None:  # it did not come through the heat
        baseline = fastest({0: ways[DENSE, None]})[0][0]
    choice = Choice(best, chosen, seconds, baseline)
    cache.put(key, choice)
    return choice


def _repeated(call: partial[torch.Tensor], inputs: list[torch.Tensor]) -> Repeated:
    return Repeated([partial(call, x) for x in inputs])


def _key(weight: torch.Tensor, tokens: int, tile: int, step: int, steps: dict[str, int]) -> str:
    """All that a choice depends on: the work of each way stands for the pattern of the zeros."""
    parts = (torch.cuda.get_device_name(weight.device), torch.__version__, triton.__version__, weight.dtype, list(weight.shape),
             tokens, tile, step, sorted(steps.items()))
    return " | ".join(map(str, parts))
