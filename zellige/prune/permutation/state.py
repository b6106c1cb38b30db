"""The tensors of a model that stand behind the constants of its graph, and permutations written into them, all or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from zellige.graph.axes.permute import Sources
from zellige.graph.from_torch import Traced
from zellige.prune.layers import overlaps_itself
from zellige.prune.usage import place

COMPUTED = "it is computed from the model's parameters, or written in its code, and is none of them itself"


@dataclass(frozen=True, eq=False)
class State:
    """``tensors`` by the names of constants; ``fixed`` and ``same`` as ``find_axes`` takes them."""

    tensors: Mapping[str, torch.Tensor]
    fixed: Mapping[str, str]
    same: Mapping[str, str]
    unread: tuple[str, ...]
    """Parameters that the graph doesn't read."""


def state_of(model: nn.Module, traced: Traced) -> State:
    """The parameters and buffers that are constants of the graph.

    A constant that is none of them can't be permuted, and what it was computed from can't be either. Two names of one tensor are
    one; a tensor that shares memory with another in any other way can't be permuted.
    """
    graph = traced.graph
    named = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    fixed: dict[str, str] = {}
    same: dict[str, str] = {}
    first: dict[object, str] = {}
    for name in graph.constants:
        if name not in named or named[name].shape != graph.type_of(name).shape:
            fixed[name] = COMPUTED
            continue
        key = (place(named[name]), named[name].stride())
        if first.setdefault(key, name) != name:
            same[name] = first[key]
    tensors = {name: named[name] for name in graph.constants if name not in fixed}
    sources = {name: [place(traced.state[source]) for source in traced.sources[name]] for name in graph.constants}
    readers = {at[:2]: name for name in graph.constants if name not in tensors for at in sources[name]}
    fixed.update({name: f"{readers[at]} is made of it" for name, tensor in tensors.items() if (at := place(tensor)[:2]) in readers})
    fixed.update(_overlapping(named, tensors))
    fixed.update({name: reason for name, tensor in tensors.items() if (reason := _unwritable(tensor))})
    read = {at for of_constant in sources.values() for at in of_constant}
    unread = tuple(name for name, parameter in model.named_parameters() if place(parameter) not in read)
    return State(tensors, fixed, same, unread)


def _overlapping(named: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Tensors that others see in part or in another shape."""
    holders: dict[object, dict[object, str]] = defaultdict(dict)
    for name, tensor in named.items():
        holders[place(tensor)[:2]].setdefault((place(tensor), tensor.shape, tensor.stride()), name)
    found = {}
    for name, tensor in tensors.items():
        views = holders[place(tensor)[:2]]
        others = [other for key, other in views.items() if key != (place(tensor), tensor.shape, tensor.stride())]
        if others:
            found[name] = f"it shares memory with {others[0]}"
    return found


def _unwritable(tensor: torch.Tensor) -> str | None:
    """Why numbers can't be written into a tensor, or None."""
    if tensor.is_inference():
        return "it was made in inference mode and can't be written to"
    return "several of its numbers share one place in memory" if overlaps_itself(tensor) else None


def moved_tensors(state: State, sources: Sources) -> dict[str, torch.Tensor]:
    """The tensors that change, as they are to be."""
    return {name: _moved(state.tensors[name].detach(), lines) for name, lines in sources.items()}


def _moved(tensor: torch.Tensor, lines: Mapping[tuple[int, ...], object]) -> torch.Tensor:
    for dims, source in lines.items():
        front = tensor.movedim(dims, tuple(range(len(dims))))
        flat = front.flatten(0, len(dims) - 1)
        taken = flat.index_select(0, torch.as_tensor(source)).reshape(front.shape)
        tensor = taken.movedim(tuple(range(len(dims))), dims)
    return tensor


def write(state: State, moved: Mapping[str, torch.Tensor]) -> None:
    """Writes the tensors into the model; if that is broken off, all are as they were."""
    before: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        try:
            for name, tensor in moved.items():
                before[name] = state.tensors[name].clone()
                state.tensors[name].copy_(tensor)
        except BaseException:
            for name, tensor in list(before.items()):
                state.tensors[name].copy_(tensor)
            raise
