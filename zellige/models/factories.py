"""Networks from a user's own code: ``python:PACKAGE.MODULE:FACTORY``."""

from __future__ import annotations

import reprlib

import torch

from zellige.errors import ZelligeError
from zellige.models.functions import call_function, find_function
from zellige.models.named import NamedModel, Request, batch_of


def factory_model(request: Request) -> NamedModel:
    """Call the factory without arguments: it gives a module, or a module and a tuple of example inputs.

    A module alone needs the input shape from the user. The working directory can be imported from. Nobody but the
    factory knows whether its weights are trained.
    """
    made = _made(request)
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


def _made(request: Request) -> object:
    factory = find_function(request.name, "python:", "mynet.model:build")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        return call_function(factory, f"python:{request.name}")


def _tensors(inputs: object, request: Request) -> tuple[torch.Tensor, ...]:
    """The example inputs that a factory gave: one tensor, or several in a tuple or list."""
    found = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    if not isinstance(found, tuple | list) or not found or not all(isinstance(value, torch.Tensor) for value in found):
        got = reprlib.repr(inputs)
        raise ZelligeError(f"python:{request.name} gave {got} as example inputs; expected a tensor, or a tuple of tensors")
    return tuple(found)
