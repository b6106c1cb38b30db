"""What PyTorch makes of an operand by a layer to which nothing was done: what every way must answer (``layers/agreement.py``)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from zellige.cuda.layers.agreement import ROUNDING, Answer, norm
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.choosing import DENSE
from zellige.cuda.network.layers import FEATURES, TOKENS, Layer, WithWeights
from zellige.cuda.network.modules import ACTIVATIONS, TORCH, module_for


def expected(layer: Layer, orders: tuple[str, str], lead: tuple[int, ...], x: torch.Tensor, residual: torch.Tensor | None = None,
             ) -> Answer:
    """The answer for x, both in these orders; ``lead``: the sizes of the result before its features.

    A bias and a residual are added apart from the product, so that what may be off is known of each.
    """
    bare, way = (replace(layer, bias=None, activation="none"), DENSE) if isinstance(layer, WithWeights) else (layer, TORCH)
    module = module_for(bare, Choice(way, None, 1.0, 1.0), (TOKENS, TOKENS), lead, x.device, x.dtype)
    y = module(x.T.contiguous() if orders[0] == FEATURES else x)
    y = y.reshape(math.prod(lead), -1).T if orders[1] == FEATURES else y
    answer = Answer.of_product(y)
    if not isinstance(layer, WithWeights):
        return answer
    allowed = answer.allowed
    if layer.bias is not None:
        bias = layer.bias.detach().to(x.device, x.dtype)
        allowed += ROUNDING * norm(bias) * math.sqrt(y.numel() / layer.rows)
        y = y + (bias[:, None] if orders[1] == FEATURES else bias[:, None, None] if y.ndim == 4 else bias)
    if residual is not None:
        allowed += ROUNDING * norm(residual)
        y = y + residual
    return Answer(ACTIVATIONS[layer.activation](y), allowed)
