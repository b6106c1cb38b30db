"""What layers in tiles have in common: the way that was chosen, and the weight in the form of that way alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.choosing import DENSE, PAIRED, TWO_FOUR
from zellige.cuda.operators import block_product, product
from zellige.cuda.tiling.compressed_blocks import compressed, expanded, is_compressed
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import is_paired, paired, separated
from zellige.cuda.tiling.tiles import Tiles, expand
from zellige.cuda.tiling.vector_tiles import VectorTiles, vector_weight
from zellige.errors import CompileError, InputError

SIZES = {1: "tokens", 3: "images × height × width"}
"""What the numbers of a size are, by how many there are."""


FORMS: dict[str, Callable[[DeviceTiles], DeviceTiles]] = {TWO_FOUR: compressed, PAIRED: paired}
"""Ways whose kernels want tiles in another form than they are cut in."""


def in_form(tiles: DeviceTiles, way: str) -> DeviceTiles:
    """Tiles as they were cut, as the kernel of a way wants them."""
    return FORMS[way](tiles) if way in FORMS else tiles


def check_like(name: str, tensor: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    """``InputError`` if a tensor is there and is another."""
    if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != device):
        raise InputError(f"{name} must be {list(shape)} of {dtype} on {device}, "
                         f"not {list(tensor.shape)} of {tensor.dtype} on {tensor.device}")


class TileWiseLayer(torch.nn.Module):
    """A weight by the way that was chosen: ``weight`` itself, or its tiles as ``values``, ``units`` and ``rows`` (``halves`` too if
    they are paired), or as ``images``, ``lists``, ``starts`` and ``rows`` if they are 2:4.

    Trainable layers have ``values`` and ``bias`` as parameters. What was pruned has no number there, so it stays zero.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    values: torch.Tensor
    units: torch.Tensor
    rows: torch.Tensor
    halves: torch.Tensor | None
    starts: torch.Tensor
    lists: torch.Tensor
    images: torch.Tensor
    back_units: torch.Tensor
    back_rows: torch.Tensor
    back_sources: torch.Tensor

    def __init__(self, rows: int, bias: torch.Tensor | None, choice: Choice, trainable: bool = False):
        super().__init__()
        if trainable and choice.way == DENSE:
            raise CompileError("a layer whose way is dense is trained as what it was before, by zl.finetune, which keeps its zeros")
        self.choice, self.features, self.trainable = choice, rows, trainable
        self._hold("bias", None if bias is None else bias.detach().clone())

    def _hold(self, name: str, tensor: torch.Tensor | None) -> None:
        """As a parameter where the layer is trained, as a buffer elsewhere."""
        if self.trainable and tensor is not None:
            self.register_parameter(name, torch.nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    @property
    def dtype(self) -> torch.dtype:
        """What the weight is multiplied in."""
        if self.choice.way == DENSE:
            return self.weight.dtype
        form = self.form
        return form.dtype if isinstance(form, VectorTiles) else form.values.dtype if is_compressed(form) else self.values.dtype

    def keep_dense(self, weight: torch.Tensor) -> None:
        self.register_buffer("weight", weight.detach().clone())

    def keep_tiles(self, tiles: DeviceTiles) -> None:
        packed = is_compressed(tiles)  # bits, which no conversion of the module may touch
        self._hold("values", tiles.values.view(torch.int16) if packed else tiles.values)
        self.register_buffer("units", tiles.units)
        self.register_buffer("rows", tiles.rows)
        self.register_buffer("halves", tiles.halves)
        nothing, back = torch.empty(0), tiles.transposed
        if back is not None:
            self.register_buffer("back_units", back.units)
            self.register_buffer("back_rows", back.rows)
            self.register_buffer("back_sources", back.sources)
            back = replace(back, units=nothing, rows=nothing, sources=nothing)
        self.form: DeviceTiles | VectorTiles = replace(tiles, values=tiles.values[:0].clone(), units=nothing, rows=nothing,
                                                       transposed=back)  # what the operators' numbers say
        self.plan_ahead()

    def keep_vectors(self, tiles: VectorTiles) -> None:
        for name, tensor in (("rows", tiles.rows), ("starts", tiles.starts), ("lists", tiles.columns), ("images", tiles.images)):
            self.register_buffer(name, tensor)
        nothing = torch.empty(0)
        self.form = replace(tiles, rows=nothing, starts=nothing, columns=nothing, images=nothing)  # the numbers alone

    def plan_ahead(self) -> None:
        """Have the plans of all launches on the device where the tiles are, before anybody captures one."""
        tiles = self.tiles
        if not self.trainable and block_product.in_blocks(tiles):
            block_product.schedule_on(tiles.starts, tiles.values.device)
        else:
            product.plan_ahead(tiles)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TileWiseLayer:
        """As any module is moved; the plans come along."""
        super()._apply(fn, recurse)
        if self.choice.way != DENSE and isinstance(self.form, DeviceTiles):
            self.plan_ahead()
        return self

    @property
    def vectors(self) -> VectorTiles:
        """The 2:4 tiles, of the tensors that the module has now."""
        assert isinstance(self.form, VectorTiles)
        return replace(self.form, rows=self.rows, starts=self.starts, columns=self.lists, images=self.images)

    @property
    def tiles(self) -> DeviceTiles:
        """The tiles, of the tensors that the module has now: they may have been moved."""
        assert isinstance(self.form, DeviceTiles)
        back = self.form.transposed
        if back is not None:
            back = replace(back, units=self.back_units, rows=self.back_rows, sources=self.back_sources)
        values = self.values.view(self.dtype) if is_compressed(self.form) else self.values
        return replace(self.form, values=values, units=self.units, rows=self.rows, transposed=back, halves=self.halves)

    def check(self, name: str, tensor: torch.Tensor | None, shape: tuple[int, ...]) -> None:
        """``InputError`` if an operand is not of that shape, and of the weight's element type and device."""
        held = self.weight if self.choice.way == DENSE else self.rows
        check_like(name, tensor, shape, self.dtype, held.device)

    def matrix(self) -> torch.Tensor:
        """What the tiles hold now, rows × columns as they were cut, on the CPU."""
        if isinstance(self.form, VectorTiles):
            return vector_weight(self.vectors)
        form = expanded(self.tiles) if is_compressed(self.form) else self.tiles
        form = separated(form) if is_paired(form) else form
        values = form.values.detach().float().cpu().numpy().reshape(-1, form.tile, form.step)
        units = form.units.cpu().numpy()[:form.starts[-1] * (form.step // form.unit)]
        tiles = Tiles(form.shape, form.tile, form.unit, form.step, form.rows.cpu().numpy(), np.array(form.starts), units, values)
        return torch.from_numpy(expand(tiles)).to(self.dtype)

    def extra_repr(self) -> str:
        choice = self.choice
        timed = f" when timed with {' × '.join(map(str, choice.size))} {SIZES[len(choice.size)]}" if choice.size else ""
        return f"rows={self.features}, {choice.way}, {choice.dense_seconds / choice.seconds:.2f}× dense{timed}{choice.remarks}"
