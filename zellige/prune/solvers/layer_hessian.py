"""The Hessian of a layer's squared output error, XXᵀ, summed batch by batch: X is everything that the weights are multiplied with.

A row of a weight gives its outputs alone, so one matrix of inputs × inputs serves all rows of a group. For a convolution an input
is a channel at one tap, in the order of the weight's numbers, and X its unfolded inputs: they are made a piece at a time, and
never kept. Products are float32 for weights of that type or less, within a piece; pieces are added in float64.

Cost: samples × places × inputs² multiplications and additions, of which the symmetric half is saved in part by panels.
"""

from __future__ import annotations

import torch
from torch import nn

from zellige.patterns import WeightShape
from zellige.prune.windows import seen_by_taps

PIECE = 1 << 24  # numbers of unfolded inputs at once, unless a single sample has more
PANELS = 4       # of the columns of a product: the part above the diagonal is skipped panel by panel
FEW = 256        # inputs from which on that is worth it


class LayerHessian:
    """XXᵀ of a layer with such a weight, (groups, inputs, inputs) in float64 on the CPU."""

    def __init__(self, shape: WeightShape) -> None:
        self.shape = shape
        self.inputs = shape.columns * shape.taps
        self._sums = torch.zeros(shape.groups, self.inputs, self.inputs, dtype=torch.float64, device="cpu")

    def add(self, module: nn.Module, inputs: torch.Tensor) -> None:
        """Adds what the module, a convolution or linear layer of that shape, was called on."""
        if not inputs.numel():
            return
        wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        taps = list(seen_by_taps(module, wide))
        places = taps[0][0, 0].numel() if taps[0].dim() > 2 else 1
        samples = max(1, PIECE // (self.shape.groups * self.inputs * max(1, places)))
        for pieces in zip(*(tap.split(samples) for tap in taps), strict=True):
            self._add_products(self._unfolded(pieces))

    def matrix(self) -> torch.Tensor:
        """The sum so far."""
        lower = self._sums.tril()
        return lower + lower.tril(-1).mT

    def _unfolded(self, taps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Samples of every tap as groups × inputs × (samples and places)."""
        channels, columns = taps[0].shape[1], len(taps[0]) * taps[0][0, 0].numel()
        unfolded = taps[0].new_empty(channels, len(taps), len(taps[0]), *taps[0].shape[2:])
        for at, tap in enumerate(taps):
            unfolded[:, at] = tap.transpose(0, 1)
        return unfolded.reshape(self.shape.groups, self.inputs, columns)

    def _add_products(self, unfolded: torch.Tensor) -> None:
        """Adds products of inputs with inputs to the lower triangle, and to what of the upper one shares a panel with it."""
        width = -(-self.inputs // PANELS) if self.inputs >= FEW else self.inputs
        for sums, seen in zip(self._sums, unfolded, strict=True):
            for start in range(0, self.inputs, width):
                sums[start:, start:start + width] += (seen[start:] @ seen[start:start + width].T).cpu()
