"""Running a model on a user's batches to learn what its weights do, and leaving it exactly as it was.

The model runs in evaluation mode, so that batches don't depend on one another and nothing is updated. Gradients that it held,
which weights wanted any, modes, buffers and PyTorch's random state are put back afterwards, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.prune.layers import Layer
from zellige.prune.usage import place

Loss = Callable[[nn.Module, Any], torch.Tensor]
"""Model and batch in, one number to differentiate out, the mean over the batch's samples."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """``data`` gives batches: tensors, or tuples, lists and dicts of them, which are moved to where the model is. ``loss`` says
    how the model does on one. ``progress`` is told how far things are."""

    data: Iterable[Any] | None = None
    loss: Loss | None = None
    progress: Callable[[str], None] | None = None

    def batches(self, purpose: str, device: torch.device) -> Iterator[Any]:
        """The batches, on that device.

        Raises:
            PruneError: there are none, or the data fails.
        """
        if isinstance(self.data, torch.Tensor) or not isinstance(self.data, Iterable):
            raise PruneError(f"{purpose} needs data: an iterable of batches, such as a list of them or a data loader, "
                             f"not {type(self.data).__name__}.")
        count = 0
        for batch in _given(purpose, self.data):
            count += 1
            self.tell(f"{purpose}: batch {count}" + (f" of {len(self.data)}" if isinstance(self.data, Sized) else ""))
            yield tree_map_only(torch.Tensor, lambda tensor: tensor.to(device, copy=tensor.is_inference()), batch)
        if not count:
            raise PruneError(f"{purpose} needs data, and there is no batch in it (an iterator gives its batches only once).")

    def held(self) -> Calibration:
        """The same with its batches in a list, to go through them several times."""
        unfit = isinstance(self.data, torch.Tensor) or not isinstance(self.data, Iterable)
        return self if unfit else replace(self, data=list(_given("Calibration", self.data or ())))

    def tell(self, text: str) -> None:
        if self.progress is not None:
            self.progress(text)

    def loss_of(self, purpose: str, model: nn.Module, batch: Any) -> torch.Tensor:
        """The loss on a batch, a tensor of one number.

        Raises:
            PruneError: there is no loss, it fails on the batch, or it is something else than one finite number.
        """
        if self.loss is None or not callable(self.loss):
            raise PruneError(f"{purpose} needs a loss: a function of model and batch that returns one number to differentiate.")
        try:
            loss = self.loss(model, batch)
        except FAILURES as error:
            raise PruneError(f"{purpose}: the loss fails on a batch: {in_one_line(error)}") from error
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            came = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise PruneError(f"{purpose}: the loss must be a tensor of one number, not {came}.")
        if not bool(torch.isfinite(loss.detach())):
            raise PruneError(f"{purpose}: the loss is {float(loss.detach())} on a batch; expected a finite number.")
        return loss.reshape(())

    def run(self, purpose: str, model: nn.Module, batch: Any) -> None:
        """Runs the model on a batch for its activations: through the loss if there is one, else the batch is the arguments.

        Raises:
            PruneError: the model can't run on it.
        """
        if self.loss is not None:
            self.loss_of(purpose, model, batch)
            return
        try:
            model(*batch) if isinstance(batch, (tuple, list)) else model(batch)
        except FAILURES as error:
            raise PruneError(f"{purpose}: the model can't run on a batch, which without a loss holds its arguments: "
                             f"{in_one_line(error)}") from error


def _given(purpose: str, data: Iterable[Any]) -> Iterator[Any]:
    """The batches as they come.

    Raises:
        PruneError: the user's own code fails at it.
    """
    count = 0
    try:
        for batch in data:
            count += 1
            yield batch
    except FAILURES as error:
        raise PruneError(f"{purpose} gets no batch {count + 1} from the data: {in_one_line(error)}") from error


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
            if wants != (id(parameter) in wanting):
                parameter.requires_grad_(not wants)
        with torch.inference_mode(False), torch.random.fork_rng(devices=devices), torch.set_grad_enabled(bool(wanting)):
            yield
    finally:
        for parameter, wants, gradient in parameters:
            parameter.requires_grad_(wants)
            parameter.grad = gradient
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, copy in buffers:
                module._buffers[name] = buffer
                if buffer is not None and copy is not None and not torch.equal(buffer, copy):
                    buffer.copy_(copy)


def single_parameters(model: nn.Module, layers: Sequence[Layer], purpose: str) -> list[torch.Tensor]:
    """The layers' weights.

    Raises:
        PruneError: the numbers of one belong to several parameters, each of which would get only a part of the gradient.
    """
    owned = {place(layer.weight): layer for layer in layers}
    for name, parameter in model.named_parameters():
        layer = owned.get(place(parameter))
        if layer is not None and parameter is not layer.weight:
            raise PruneError(f"{purpose}: layer '{layer.name}' and '{name}' hold the same numbers in two parameters, and each "
                             "has a part of the gradient; make them one parameter, or name the layer in ignore.")
    return [layer.weight for layer in layers]


def samples(batch: Any, purpose: str) -> Iterator[Any]:
    """The samples of a batch, each as a batch of one: every tensor cut along its first axis.

    >>> [one.tolist() for one in samples(torch.tensor([1, 2]), "")]
    [[1], [2]]

    Raises:
        PruneError: the tensors don't have the same number of samples.
    """
    leaves, structure = tree_flatten(batch)
    counts = {len(leaf) if leaf.dim() else 0 for leaf in leaves if isinstance(leaf, torch.Tensor)}
    if len(counts) != 1 or 0 in counts:
        raise PruneError(f"{purpose} looks at samples one by one: every tensor of a batch must hold as many along its first axis; "
                         f"their numbers are {', '.join(map(str, sorted(counts))) or 'none'}.")
    for at in range(counts.pop()):
        yield tree_unflatten([leaf[at:at + 1] if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], structure)
