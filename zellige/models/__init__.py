"""Where models come from: a name on the command line becomes a network, example inputs and a word on its weights.

One file a source; ``SOURCES`` is the table. Nothing is downloaded unless the name asks for it (``hf:``): networks from
torchvision and timm get random weights from a fixed seed, and batch-norm statistics that fit them.
"""

from __future__ import annotations

from zellige.models.named import NamedModel, Request
from zellige.models.resolve import EXAMPLES, resolve
from zellige.models.statistics import warm_statistics

__all__ = ["EXAMPLES", "NamedModel", "Request", "resolve", "warm_statistics"]
