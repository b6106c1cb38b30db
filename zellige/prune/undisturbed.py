"""Running a model to learn something of it, and leaving it exactly as it was.

The model runs in evaluation mode, so that batches don't depend on one another and nothing is updated. Gradients that it held,
which weights wanted any, modes, buffers and PyTorch's random state are put back afterwards, whatever happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module, weights: Sequence[torch.Tensor] = ()) -> Iterator[None]:
    """In here the model is in evaluation mode and only ``weights`` want gradients; afterwards all of it is as it was."""
    wanting = {id(weight) for weight in weights}
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    buffers = [(module, name, buffer, None if buffer is None else buffer.clone())
               for module in model.modules() for name, buffer in module._buffers.items()]
    devices = sorted({parameter.device.index for parameter, _, _ in parameters if parameter.device.type == "cuda"})
    try:
        model.eval()
        for parameter, wants, _ in parameters:
            parameter.grad = None
            if wants != (id(parameter) in wanting) and not parameter.is_inference():  # those can't be told to want any again
                parameter.requires_grad_(not wants)
        with torch.inference_mode(False), torch.random.fork_rng(devices=devices), torch.set_grad_enabled(bool(wanting)):
            yield
    finally:
        for parameter, wants, gradient in parameters:
            if parameter.requires_grad != wants:
                parameter.requires_grad_(wants)
            parameter.grad = gradient
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, copy in buffers:
                module._buffers[name] = buffer
                if buffer is not None and copy is not None and not torch.equal(buffer, copy):
                    buffer.copy_(copy)
