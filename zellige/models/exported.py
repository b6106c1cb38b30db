"""Networks from a ``.pt2`` file, as ``torch.export.save`` writes it: graph, weights and example inputs in one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from zellige.errors import FAILURES, ZelligeError, in_one_line
from zellige.models.named import NamedModel, Request, batch_of


def exported_model(request: Request) -> NamedModel:
    """Read the file; its shapes are fixed, so another batch size or input shape is refused."""
    path = Path(request.name)
    if not zipfile.is_zipfile(path):
        raise ZelligeError(f"{path} can't be read as an exported program: it is no archive, or only part of one")
    try:
        program = torch.export.load(path)
    except (*FAILURES, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ZelligeError(f"{path} can't be read as an exported program: {in_one_line(error)}") from error
    if program.example_inputs is None:
        raise ZelligeError(f"{path} holds no example inputs: export it again with torch.export.export(model, inputs)")
    positional, keywords = program.example_inputs
    if keywords or not all(isinstance(value, torch.Tensor) for value in positional):
        raise ZelligeError(f"{path} takes inputs other than tensors by position, which can't be compiled")
    inputs = tuple(positional)
    if not inputs:
        raise ZelligeError(f"{path} takes no inputs, so there is nothing to compile it for")
    if request.shape is not None or (request.batch != 1 and request.batch != batch_of(inputs)):
        raise ZelligeError(
            f"{path} was exported for {', '.join(str(tuple(tensor.shape)) for tensor in inputs)}; "
            "export it again for another batch size or shape"
        )
    model = program.module()
    for module in model.modules():
        module.training = False  # its operators are those of the mode that it was exported in; eval() of it is refused
    return NamedModel(str(path), model, inputs, f"as saved in {path.name}", False)
