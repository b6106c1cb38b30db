"""Masks over parameters, and what keeps zeros zero: the core of this room, which needs no scheme and no loop.

After an optimiser's step, whatever it did is undone where a mask says so: in the weights, in the optimiser's own memory of them
(momentum, moments), and in averaged copies of the model. So nothing that was pruned comes back, whichever optimiser it is,
and nothing has to be attached to the model: no hook, no parametrization, no subclass of a tensor. Parameters are looked up by
name at every step, because wrappers and adapters put others in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from zellige.errors import TrainingError
from zellige.prune.layers import find_layers
from zellige.train.names import bare_module, bare_name, bare_parameters
from zellige.train.sharding import local_part, local_tensor
from zellige.train.stencil import blank, fits, stencil_of


class Sparsifier:
    """Holds masks by parameter name, and makes what they exclude exactly zero.

    Names may be those of the model or of a wrapped form of it; a mask has its parameter's shape, and True stays.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> sparsifier = Sparsifier(model, {"weight": torch.tensor([[True, False]])}, optimizer)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> optimizer.step()
    >>> sparsifier.step()
    >>> float(model.weight[0, 1])
    0.0

    Raises:
        TrainingError: a mask is for no parameter of the model, is no bool tensor, or has another shape; or what should be a model
            or an optimiser is none.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] = (),
        copies: Iterable[nn.Module] = (),
    ) -> None:
        _check_model(model)
        self.model = model
        self.optimizers = _optimizers(optimizer)
        self.copies = list(copies)
        self.masks: dict[str, torch.Tensor] = {}
        self._stencils: dict[tuple[str, torch.dtype], torch.Tensor] = {}
        self.set_masks(masks)

    @classmethod
    def of_zeros(cls, model: nn.Module, optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] = ()) -> Sparsifier:
        """One that holds the zeros that convolutions and linear layers have now, whoever made them."""
        _check_model(model)
        return cls(model, zero_masks(model), optimizer)

    def set_masks(self, masks: Mapping[str, torch.Tensor], state: bool = True) -> None:
        """Take other masks, for the same parameters or for others, and write their zeros, as ``step`` does.

        Raises:
            TrainingError: as for the constructor.
        """
        bare = {bare_name(name): mask for name, mask in masks.items()}
        parameters = bare_parameters(self.model)
        for name, mask in bare.items():
            _check(name, mask, parameters)
        self.masks = {name: mask.detach().cpu() for name, mask in bare.items()}
        self._stencils = {}
        self.step(state)

    @torch.no_grad()
    def step(self, state: bool = True) -> None:
        """Make pruned weights exactly zero, after the optimiser's step; with ``state``, what it remembers of them too."""
        parameters = bare_parameters(self.model)
        for name in self.masks:
            parameter = self._parameter(name, parameters)
            self._blank(name, parameter)
            for memory in self._memories(parameter) if state else ():
                self._blank(name, memory)
        for copied in self.copies:
            averaged = bare_parameters(copied)
            for name in self.masks:
                self._blank(name, self._parameter(name, averaged))

    def on(self, model: nn.Module) -> Sparsifier:
        """The same masks over another model with the same names, a deep copy say; its optimiser is yet to come."""
        return Sparsifier(model, self.masks)

    def synchronize(self, state: bool = True) -> None:
        """Take the masks of rank 0, in a process group. Every rank must call this.

        Masks that were chosen from the same weights are the same anyway: this makes sure.
        """
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return
        parameters = bare_parameters(self.model)
        for name in sorted(self.masks):
            sent = self.masks[name].to(self._parameter(name, parameters).device, torch.uint8)
            torch.distributed.broadcast(sent, src=0)
            self.masks[name] = sent.cpu().bool()
        self._stencils = {}
        self.step(state)

    def finalize(self) -> nn.Module:
        """Write the zeros a last time, let go of optimisers and copies, and give back the model without its wrappers."""
        self.step()
        self.optimizers, self.copies = [], []
        return bare_module(self.model)

    @property
    def sparsity(self) -> float:
        """The share of masked parameters' weights that the masks exclude; 0 without masks."""
        weights = sum(mask.numel() for mask in self.masks.values())
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / weights if weights else 0.0

    def state_dict(self) -> dict[str, Any]:
        """The masks, as tensors by name."""
        return {"masks": dict(self.masks)}

    def load_state_dict(self, saved: Mapping[str, Any], state: bool = True) -> None:
        """Take the masks that ``state_dict`` gave.

        Raises:
            TrainingError: they don't fit the model, or there are none.
        """
        masks = saved.get("masks")
        if not isinstance(masks, Mapping):
            raise TrainingError(f"expected what a Sparsifier's state_dict gave, with 'masks' in it; it has {', '.join(saved)}")
        self.set_masks(masks, state)

    def _parameter(self, name: str, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parameter = parameters.get(name)
        if parameter is None:
            raise TrainingError(f"there is a mask for '{name}', but the model has no such parameter any more; after replacing "
                                "layers by others, make a new Sparsifier")
        if parameter.shape != self.masks[name].shape:
            raise TrainingError(f"the mask of '{name}' has shape {tuple(self.masks[name].shape)}, but the parameter is now "
                                f"{tuple(parameter.shape)}: a flattened shard keeps no rows and columns; shard with "
                                "torch.distributed.fsdp.fully_shard, which does")
        return parameter

    def _blank(self, name: str, tensor: torch.Tensor) -> None:
        """Write a parameter's zeros into it, or into what has its shape: into this process's part of it."""
        local = local_tensor(tensor)
        stencil = self._stencils.get((name, tensor.dtype))
        if stencil is None or not fits(stencil, local):
            mask = local_part(self.masks[name].to(tensor.device), tensor)
            stencil = self._stencils[name, tensor.dtype] = stencil_of(mask, local)
        blank(local, stencil)

    def _memories(self, parameter: torch.Tensor) -> list[torch.Tensor]:
        """What optimisers remember of each of a parameter's weights, as numbers (some keep codes, in which zero is not 0)."""
        return [value for optimizer in self.optimizers for value in optimizer.state.get(parameter, {}).values()
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.is_floating_point()]


def zero_masks(model: nn.Module) -> dict[str, torch.Tensor]:
    """Of every convolution and linear layer with zeros in its weight: where it is not zero."""
    weights = ((f"{layer.name}.weight".removeprefix("."), layer.weight.detach()) for layer in find_layers(model) if layer.plain)
    return {bare_name(name): (weight != 0).cpu() for name, weight in weights if bool((weight == 0).any())}


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TrainingError(f"a Sparsifier takes a torch.nn.Module, not {type(model).__name__}")
    refuse_meta(model)


def refuse_meta(model: nn.Module) -> None:
    """``TrainingError`` if a parameter or buffer has no numbers."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise TrainingError(f"'{name}' is on the meta device, which holds no numbers; load the weights first")


def _optimizers(given: Any) -> list[torch.optim.Optimizer]:
    found = [given] if isinstance(given, torch.optim.Optimizer) or not isinstance(given, Iterable) else list(given)
    for one in found:
        if not isinstance(getattr(one, "state", None), Mapping):
            raise TrainingError(f"expected an optimiser, or several, not {type(one).__name__}")
    return found


def _check(name: str, mask: torch.Tensor, parameters: Mapping[str, torch.Tensor]) -> None:
    if name not in parameters:
        raise TrainingError(f"there is a mask for '{name}', which is no parameter of the model; it has "
                            f"{', '.join(list(parameters)[:3])}, …")
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.shape != parameters[name].shape:
        came = f"{mask.dtype} of {tuple(mask.shape)}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise TrainingError(f"the mask of '{name}' must be a bool tensor of its shape {tuple(parameters[name].shape)}, not {came}")
