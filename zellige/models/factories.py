"""Networks from a user's own code: ``python:PACKAGE.MODULE:FACTORY``."""

from __future__ import annotations

import importlib
import reprlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from zellige.errors import ZelligeError, in_one_line
from zellige.models.named import NamedModel, Request, batch_of


def factory_model(request: Request) -> NamedModel:
    """Call the factory without arguments: it gives a module, or a module and a tuple of example inputs.

    A module alone needs the input shape from the user. The working directory can be imported from. Nobody but the
    factory knows whether its weights are trained.
    """
    made = _call(_find(request.name), request)
    model, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, torch.nn.Module):
        raise ZelligeError(
            f"python:{request.name} gave {type(made).__name__}; expected a torch.nn.Module, or (module, example inputs)"
        )
    if inputs is None or request.shape is not None:
        if request.shape is None:
            raise ZelligeError(
                f"python:{request.name} gave no example inputs: return (module, (tensor, ...)), or give --shape"
            )
        inputs = (request.example(request.shape),)
    inputs = _tensors(inputs, request)
    if request.batch not in (1, batch_of(inputs)):
        raise ZelligeError(
            f"python:{request.name} gave inputs for batch {batch_of(inputs)}, not {request.batch}: give --shape too"
        )
    return NamedModel(f"python:{request.name}", model.eval(), inputs, "as the factory made them", False)


def _find(name: str) -> Callable[[], object]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ZelligeError(f"python:{name}: expected python:PACKAGE.MODULE:FACTORY, such as python:mynet.model:build")
    with _working_directory_first():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever the user's code raises
            raise ZelligeError(f"python:{name}: {module_name} can't be imported: {in_one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ZelligeError(f"python:{name}: {module_name} has no function {attribute!r}")
    found: Callable[[], object] = factory
    return found


def _call(factory: Callable[[], object], request: Request) -> object:
    with torch.random.fork_rng(devices=[]), _working_directory_first():
        torch.manual_seed(request.seed)
        try:
            return factory()
        except Exception as error:  # whatever the user's code raises
            raise ZelligeError(f"python:{request.name} failed, called without arguments: {in_one_line(error)}") from error


def _tensors(inputs: object, request: Request) -> tuple[torch.Tensor, ...]:
    """The example inputs that a factory gave: one tensor, or several in a tuple or list."""
    found = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    if not isinstance(found, tuple | list) or not found or not all(isinstance(value, torch.Tensor) for value in found):
        got = reprlib.repr(inputs)
        raise ZelligeError(f"python:{request.name} gave {got} as example inputs; expected a tensor, or a tuple of tensors")
    return tuple(found)


@contextmanager
def _working_directory_first() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
