"""Prices by rule, in place of those that a GPU gives: so that every way and order can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.choosing import DENSE, TWO_FOUR
from zellige.cuda.layers.vectors import VECTORS
from zellige.cuda.network.layers import FEATURES, TOKENS, Layer, Linear, WithWeights
from zellige.cuda.network.modules import WAYS, cut, tile_groups
from zellige.cuda.network.prices import ways_of
from zellige.cuda.network.vectors import two_four_tiles
from zellige.cuda.tiling.compressed_blocks import compressible

CONFIG = Config(16, 4, 3, 1)


class RuledPrices:
    """``way``: how layers with weights run, each dense where that can't be; ``seconds``: by orders; ``turn``: of turning an
    activation; ``rule``: seconds by layer and orders."""

    def __init__(self, way: str = "columns", seconds: Mapping[tuple[str, str], float] | None = None, turn: float = 1.0,
                 rule: Callable[[Layer, tuple[str, str]], float] | None = None) -> None:
        self.way, self.seconds, self.turn, self.rule = way, seconds or {}, turn, rule

    def layer(self, layer: Layer, tokens: int, residual: bool, orders: tuple[str, str]) -> Choice | None:
        seconds = self.rule(layer, orders) if self.rule else self.seconds.get(orders, 1.0)
        ways = ways_of(layer, orders)
        if isinstance(layer, WithWeights) and ways:
            tiles = self.way in WAYS and orders in WAYS[self.way][1] and self._able(layer)
            return Choice(self.way if tiles else DENSE, CONFIG if tiles else None, seconds if tiles else 2 * seconds, 2 * seconds)
        return Choice(ways[0], None, seconds, seconds) if ways else None

    def _able(self, layer: WithWeights) -> bool:
        """Whether the layer has tiles of this way."""
        if self.way == VECTORS:
            return isinstance(layer, Linear) and two_four_tiles(layer, torch.float16) is not None
        return self.way in tile_groups(layer) and (
            self.way != TWO_FOUR or compressible(cut(layer, WAYS[self.way][0], torch.float16)))

    def without_tiles(self, layer: WithWeights, tokens: int, residual: bool) -> Choice:
        best = self.layer(layer, tokens, residual, (TOKENS, TOKENS))
        assert best is not None
        return Choice(DENSE, None, best.dense_seconds, best.dense_seconds)

    def turning(self, features: int, tokens: int) -> float:
        return self.turn


CHEAP = {TOKENS: {(TOKENS, TOKENS): 0.1}, FEATURES: {(FEATURES, FEATURES): 0.1}}
"""Prices under which a network stays in one order."""
