"""Networks from model libraries: torchvision and timm with random weights, the Hugging Face hub with its own."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

from zellige.errors import FAILURES, ZelligeError, in_one_line
from zellige.models.named import NamedModel, Request, Shape

IMAGE: Shape = (3, 224, 224)
LARGER_IMAGES: dict[str, Shape] = {"inception_v3": (3, 299, 299)}


def torchvision_model(request: Request) -> NamedModel:
    """``torchvision:resnet50``: any network of torchvision's registry, with random weights."""
    try:
        from torchvision import models
    except ImportError as error:
        raise ZelligeError("torchvision is not installed: pip install 'zellige[models]'") from error
    if request.name not in models.list_models():
        raise ZelligeError(f"torchvision has no model {request.name!r}{_nearest(request.name, models.list_models())}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _seeded(lambda: models.get_model(request.name, weights=None), request.seed)
    example = request.example(LARGER_IMAGES.get(request.name, IMAGE))
    return _untrained("torchvision", request, model, example)


def timm_model(request: Request) -> NamedModel:
    """``timm:NAME``: any network of timm, at its own input size, with random weights."""
    try:
        import timm
    except ImportError as error:
        raise ZelligeError("timm is not installed: pip install 'zellige[models]'") from error
    if not timm.is_model(request.name.split(".")[0]):
        raise ZelligeError(f"timm has no model {request.name!r}{_nearest(request.name, timm.list_models())}")
    model = _seeded(lambda: timm.create_model(request.name, pretrained=False), request.seed)
    config: Any = model.default_cfg
    return _untrained("timm", request, model, request.example(tuple(config["input_size"])))


class Logits(torch.nn.Module):
    """A Hugging Face image classifier as a plain function: pixels in, logits out."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (batch, channels, height, width) to logits (batch, classes)."""
        logits: torch.Tensor = self.network(pixel_values=pixels).logits
        return logits


def hub_model(request: Request) -> NamedModel:
    """``hf:NAME_OR_DIR``: an image classifier of the hub, or a directory it was saved in, with its trained weights."""
    try:
        from transformers import AutoModelForImageClassification
        from transformers.utils import logging
    except ImportError as error:
        raise ZelligeError("transformers is not installed: pip install 'zellige[models]'") from error
    bars = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if bars:
        logging.disable_progress_bar()
    try:
        network: Any = AutoModelForImageClassification.from_pretrained(request.name)
    except (*FAILURES, OSError) as error:
        raise ZelligeError(f"hf:{request.name} can't be loaded, neither as a model of the hub nor as a directory that "
                           f"save_pretrained wrote: {in_one_line(error)}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    size = getattr(network.config, "image_size", IMAGE[1])
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    example = request.example((getattr(network.config, "num_channels", 3), height, width))
    return NamedModel(f"hf:{request.name}", Logits(network).eval(), (example,), f"trained, from {request.name}", False)


def _seeded(make: Any, seed: int) -> torch.nn.Module:
    """Make a network with the global generator seeded, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: torch.nn.Module = make()
    return model.eval()


def _untrained(library: str, request: Request, model: torch.nn.Module, example: torch.Tensor) -> NamedModel:
    return NamedModel(f"{library}:{request.name}", model, (example,), f"random (seed {request.seed})", True)


def _nearest(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
