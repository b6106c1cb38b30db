"""A user's batches and loss, and running a model on them to learn what its weights do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from zellige.errors import FAILURES, PruneError, ZelligeError, in_one_line
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
            PruneError: there are none, or the data fails to give one.
        """
        of = _of_how_many(self.data)
        for count, batch in enumerate(drawn(self.data, purpose), 1):
            self.tell(f"{purpose}: batch {count}{of}")
            yield tree_map_only(torch.Tensor, lambda tensor: tensor.to(device, copy=tensor.is_inference()), batch)

    def held(self) -> Calibration:
        """The same with its batches in a list, to go through them several times; none are none still.

        Raises:
            PruneError: as ``batches``.
        """
        return self if self.data is None else replace(self, data=list(drawn(self.data, "calibration")))

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
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or loss.is_complex():
            came = f"a {loss.dtype} tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise PruneError(f"{purpose}: the loss must be a tensor of one real number, not {came}.")
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


def drawn(data: Any, purpose: str) -> Iterator[Any]:
    """What data gives, batch by batch, wherever it lies.

    Raises:
        PruneError: it is no iterable of batches, holds none, or fails.
    """
    if isinstance(data, (torch.Tensor, str, bytes, Mapping)) or not isinstance(data, Iterable):
        raise PruneError(f"{purpose} needs data: an iterable of batches, such as a list of them or a data loader, "
                         f"not {type(data).__name__}.")
    count = 0
    try:
        for batch in data:
            count += 1
            yield batch  # what fails while it is used doesn't come back in here
    except ZelligeError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise PruneError(f"{purpose}: the data fails after batch {count}: {in_one_line(error)}") from error
    if not count:
        raise PruneError(f"{purpose} needs data, and there is no batch in it (an iterator gives its batches only once).")


def _of_how_many(data: Any) -> str:
    """How many batches there are, for messages; nothing where that isn't known (a data loader may have a length that fails)."""
    try:
        return f" of {len(data)}"
    except (TypeError, NotImplementedError):
        return ""


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
