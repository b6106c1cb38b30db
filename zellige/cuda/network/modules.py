"""Layers as modules that run in the orders that were decided, their weights in the form of the way that was chosen.

In one order an activation comes and goes as … × features; in the other it is a matrix, features × tokens, contiguous. Those of
convolutions have PyTorch's shape.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch.nn import functional

from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.choosing import BY_BLOCKS, DENSE, tile_of
from zellige.cuda.layers.layer import in_form
from zellige.cuda.layers.vectors import VECTORS
from zellige.cuda.network.layers import FEATURES, ORDERS, TOKENS, Attention, Convolution, Layer, Linear, Norm, WithWeights
from zellige.cuda.network.vectors import two_four_tiles
from zellige.cuda.operators import block_convolution, block_product, features, fused_convolution, tile_vector_wise
from zellige.cuda.operators.convolution import convolve
from zellige.cuda.operators.product import multiply
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, cut_convolution
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import Tiles, cut_tiles

TILE, STEP = 128, 64
WAYS: dict[str, tuple[int, tuple[tuple[str, str], ...]]] = {
    **dict.fromkeys(BY_BLOCKS, (STEP, ((TOKENS, TOKENS),))), "steps": (STEP, tuple((x, y) for x in ORDERS for y in ORDERS)),
    "groups": (8, ((TOKENS, TOKENS), (TOKENS, FEATURES))), "columns": (1, ((FEATURES, FEATURES), (FEATURES, TOKENS))),
    VECTORS: (1, ((FEATURES, FEATURES),))}
"""Through tiles, the fastest kernels first: columns that are kept together, and the orders of operand and result that such tiles
are fast in. Those of blocks, which come compressed if they are 2:4, and two to a tile if they are of 64 rows, run by
``operators/block_product.py``, vectors, which are 2:4 inside, by ``tile_vector_wise.py``, others by ``product.py``; of convolutions
by ``block_convolution.py`` and ``convolution.py``."""

ACTIVATIONS = {"none": lambda y: y, "relu": torch.relu, "gelu": functional.gelu, "silu": functional.silu}
FUSED = "fused"
WITHOUT_TILES = (DENSE, FUSED)
"""Dense: PyTorch's operators, or a convolution of cuDNN's with the epilogue in it (``operators/fused_convolution.py``)."""

TORCH, KERNEL = "torch", "kernel"
"""Ways of norms and attention: PyTorch's own operator, and Zellige's for features × tokens."""


class Ordered(torch.nn.Module):
    """What all have in common: ``lead``, the sizes of an activation before its features, and both orders."""

    def __init__(self, orders: tuple[str, str], lead: Sequence[int]) -> None:
        super().__init__()
        self.x_features, self.y_features = (order == FEATURES for order in orders)
        self.lead = tuple(lead)

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens × features, however these lie."""
        return x.T if self.x_features else x.reshape(-1, x.shape[-1])

    def shaped(self, y: torch.Tensor) -> torch.Tensor:
        return y if self.y_features else y.reshape(*self.lead, y.shape[-1])


class WeightedModule(Ordered):
    """A layer with weights and its epilogue: the weight as it is, or its tiles. The residual comes in the order of the result."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, layer: WithWeights, choice: Choice, orders: tuple[str, str], lead: Sequence[int], device: torch.device,
                 dtype: torch.dtype, tile: int = TILE, step: int = STEP) -> None:
        super().__init__(orders, lead)
        self.choice, self.activation = choice, layer.activation
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().to(device, dtype))
        if choice.way in WITHOUT_TILES:
            form = torch.channels_last if layer.weight.ndim == 4 else torch.preserve_format
            self.register_buffer("weight", layer.weight.detach().to(device, dtype, memory_format=form))
            return
        if choice.way == VECTORS:
            assert isinstance(layer, Linear)
            found = two_four_tiles(layer, dtype)
            assert found is not None, "only what is 2:4 has this way"
            self._hold(found.to(device))
        else:
            own = cut(layer, WAYS[choice.way][0], dtype, tile_of(choice.way, tile), step)
            self._hold(in_form(DeviceTiles.upload(own, device, dtype), choice.way))

    def _hold(self, tiles: Any) -> None:
        """``DeviceTiles`` or ``VectorTiles``: tensors become buffers, which move with the module; ``form`` has numbers alone."""
        held = {field.name: value for field in fields(tiles) if isinstance(value := getattr(tiles, field.name), torch.Tensor)}
        self.held = tuple(held)
        for name, tensor in held.items():
            self.register_buffer(f"tiles_{name}", tensor)
        self.form = replace(tiles, **dict.fromkeys(held, torch.empty(0)))

    def tuned(self, choice: Choice) -> WeightedModule:
        """The same layer, by the same way in another configuration, with the same weights."""
        other = copy.copy(self)
        other.choice = choice
        return other

    def tiles(self) -> Any:
        """As the kernel of the way wants them, of the tensors that the module has now."""
        return replace(self.form, **{name: getattr(self, f"tiles_{name}") for name in self.held})

    @property
    def block_kernel(self) -> block_product.BlockKernel | None:
        """That of blocks, if the layer runs by it."""
        config = self.choice.config
        return block_product.BlockKernel.of(config) if self.choice.way in BY_BLOCKS and config is not None else None

    def ended(self, y: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """With the epilogue behind a dense product."""
        return ACTIVATIONS[self.activation](y if residual is None else y + residual)

    def extra_repr(self) -> str:
        return f"{self.choice.way}, {self.choice.dense_seconds / self.choice.seconds:.2f}× dense"


class LinearModule(WeightedModule):
    """A linear layer."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        if self.choice.way == DENSE:
            return self._dense(x, residual)
        source = x if self.x_features else self.flat(x).contiguous()
        if residual is not None and not self.y_features:
            residual = residual.reshape(-1, residual.shape[-1]).contiguous()
        return self.shaped(self.product(source, residual))

    def product(self, x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """Through tiles, of matrices in the orders of this layer."""
        if kernel := self.block_kernel:
            return block_product.multiply(self.tiles(), x, self.bias, residual, self.activation, kernel)
        if self.choice.way == VECTORS:
            return tile_vector_wise.multiply(self.tiles(), x, self.bias, residual,
                                             None if self.activation == "none" else self.activation)
        return multiply(self.tiles(), x, self.bias, residual, self.activation, self.x_features, self.y_features, self.choice.config)

    def _dense(self, x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        if self.y_features:
            right = self.flat(x).T
            y = self.weight @ right if self.bias is None else torch.addmm(self.bias[:, None], self.weight, right)
        else:
            y = self.shaped(functional.linear(self.flat(x), self.weight, self.bias))
        return self.ended(y, residual)


class ConvolutionModule(WeightedModule):
    """A convolution of images × channels × height × width that lie channels-last."""

    taps: torch.Tensor

    def __init__(self, layer: Convolution, *how: Any) -> None:
        super().__init__(layer, *how)
        self.window, self.channels = layer.window, layer.channels
        if self.choice.way not in WITHOUT_TILES:
            placed = ConvolutionTiles.of(self.tiles(), self.channels, self.window)
            self.tiles_units = placed.tiles.units
            self.register_buffer("taps", placed.taps)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        window = self.window
        if self.choice.way == FUSED:
            return fused_convolution.convolve(x, self.weight, self.bias, residual, window)
        if self.choice.way == DENSE:
            y = functional.conv2d(x, self.weight, self.bias, window.stride, window.padding, window.dilation)
            return self.ended(y, residual)
        source = x.permute(0, 2, 3, 1).contiguous()
        addend = None if residual is None else residual.permute(0, 2, 3, 1).contiguous()
        weight = ConvolutionTiles(self.tiles(), self.taps, self.channels, window)
        if kernel := self.block_kernel:
            y = block_convolution.convolve(weight, source, self.bias, addend, self.activation, kernel)
        else:
            y = convolve(weight, source, self.bias, addend, self.activation, config=self.choice.config)
        return y.permute(0, 3, 1, 2)


def tile_groups(layer: WithWeights) -> dict[str, int]:
    """The ways through tiles that a layer has, and their columns that are kept together. Convolutions know one order, and that of
    blocks wants a window that fits a tensor map. Vectors are cut otherwise (``vectors.py``)."""
    def has(way: str, orders: tuple[tuple[str, str], ...]) -> bool:
        if isinstance(layer, Linear):
            return way != VECTORS
        return (TOKENS, TOKENS) in orders and (way not in BY_BLOCKS or block_convolution.fits(layer.window))

    return {way: group for way, (group, orders) in WAYS.items() if has(way, orders)}


def cut(layer: WithWeights, group: int, dtype: torch.dtype, tile: int = TILE, step: int = STEP) -> Tiles:
    """The tiles of a layer's weight; of a linear layer's, of rows that keep like columns: those of stacked weights share none, as a
    rule."""
    if isinstance(layer, Convolution):
        return cut_convolution(layer.weight.detach().to(dtype), layer.window, tile, group, step)
    return cut_tiles(layer.weight.detach().to(dtype).float().numpy(), tile, group, step, clustered=True)


class NormModule(Ordered):
    """A layer norm: PyTorch's where tokens × features come and go."""

    weight: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, layer: Norm, choice: Choice, orders: tuple[str, str], lead: Sequence[int], device: torch.device,
                 dtype: torch.dtype) -> None:
        super().__init__(orders, lead)
        self.way, self.features, self.epsilon = choice.way, layer.features, layer.epsilon
        for name, vector in (("weight", layer.weight), ("bias", layer.bias)):
            self.register_buffer(name, None if vector is None else vector.detach().to(device, dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == TORCH:
            return functional.layer_norm(x, (self.features,), self.weight, self.bias, self.epsilon)
        source = x if self.x_features else self.flat(x).contiguous()
        return self.shaped(features.layer_norm(source, self.weight, self.bias, self.epsilon, self.x_features, self.y_features))


class AttentionModule(Ordered):
    """Attention of queries, keys and values that lie side by side: PyTorch's where tokens × features come and go."""

    def __init__(self, layer: Attention, choice: Choice, orders: tuple[str, str], lead: Sequence[int], device: torch.device,
                 dtype: torch.dtype) -> None:
        super().__init__(orders, lead)
        self.layer, self.way, self.config = layer, choice.way, choice.config

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        if self.way == KERNEL:
            return features.attention(x, layer.heads, layer.sequence, layer.scale, self.config)
        heads = x.reshape(-1, layer.sequence, 3, layer.heads, layer.features // layer.heads).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], scale=layer.scale)
        return self.shaped(y.transpose(1, 2).reshape(-1, layer.features))


def module_for(layer: Layer, choice: Choice, orders: tuple[str, str], lead: Sequence[int], device: torch.device,
               dtype: torch.dtype) -> Ordered:
    """The module that runs a layer so; its weights are copies."""
    kinds: dict[type, type] = {Linear: LinearModule, Convolution: ConvolutionModule, Norm: NormModule, Attention: AttentionModule}
    found: Ordered = kinds[type(layer)](layer, choice, orders, lead, device, dtype)
    return found
