"""From a model's name to the model: the table of sources, and what is done for every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from zellige.errors import ZelligeError, in_one_line
from zellige.models.exported import exported_model
from zellige.models.factories import factory_model
from zellige.models.libraries import hub_model, timm_model, torchvision_model
from zellige.models.named import NamedModel, Request, Shape
from zellige.models.statistics import warm_statistics
from zellige.models.weights import load_weights

SOURCES: dict[str, Callable[[Request], NamedModel]] = {
    "torchvision": torchvision_model,
    "timm": timm_model,
    "hf": hub_model,
    "python": factory_model,
}
FILES: dict[str, Callable[[Request], NamedModel]] = {".pt2": exported_model}
EXAMPLES = "torchvision:resnet50, timm:NAME, hf:NAME_OR_DIR, python:PACKAGE.MODULE:FACTORY, or a .pt2 file"


def resolve(
    name: str, weights: Path | None = None, batch: int = 1, shape: Shape | None = None, seed: int = 0
) -> NamedModel:
    """The model of that name in eval mode, with example inputs of that batch size.

    ``weights`` is a file with a state dict; ``shape`` is an input's shape without the batch dimension, where it should
    differ from the model's own. Random weights come with batch-norm statistics that fit them.
    """
    if batch < 1:
        raise ZelligeError(f"the batch size must be at least 1, got {batch}")
    source, _, rest = name.partition(":")
    if source in SOURCES and rest:
        make, request = SOURCES[source], Request(rest, batch, shape, seed)
    elif Path(name).suffix in FILES:
        if not Path(name).is_file():
            raise ZelligeError(f"there is no file {name}")
        make, request = FILES[Path(name).suffix], Request(name, batch, shape, seed)
    else:
        raise ZelligeError(f"unknown model {name!r}: expected {EXAMPLES}")
    named = make(request)
    if weights is not None:
        return replace(named, weights=load_weights(named.model, weights), random_weights=False)
    if named.random_weights:
        try:
            warm_statistics(named.model, named.example_inputs, seed)
        except (RuntimeError, ValueError) as error:
            shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in named.example_inputs)
            raise ZelligeError(f"{name} doesn't run on inputs of {shapes} (the batch comes first, and is no part of a shape that "
                               f"is asked for): {in_one_line(error)}") from error
    return named
