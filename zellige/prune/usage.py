"""Which weights a network really uses, and in which order: one run on example inputs, watched from outside.

Operators are watched rather than modules, because some modules hand their children's weights to an operator without
calling the children (multi-head attention does). Nothing is attached to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.prune.undisturbed import undisturbed

Place = tuple[object, ...]


def place(weight: torch.Tensor) -> Place:
    """Where a weight's numbers lie: equal for two tensors that are views of the same numbers."""
    if is_lazy(weight) or weight.is_meta or type(weight.data) is not torch.Tensor or weight.layout is not torch.strided:
        return ("object", id(weight))
    return (weight.device, weight.untyped_storage().data_ptr(), weight.storage_offset())


class _Watch(TorchFunctionMode):
    """Notes the weights that operators take to compute tensors, in the order of their first use."""

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._known = {place(weight) for weight in weights}
        self.used: dict[Place, None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(True for _ in _tensors(result)):
            self.used.update((at, None) for at in map(place, _tensors((args, kwargs))) if at in self._known)
        return result


def weights_in_use(model: nn.Module, example_inputs: Any, weights: Sequence[torch.Tensor]) -> list[Place]:
    """Runs the model once, as for inference, and returns the places of the ``weights`` it used, in order of first use.

    ``example_inputs`` are the positional arguments: a tuple or list, or a single tensor. The model is left as it was.

    Raises:
        PruneError: the model can't run on these inputs.
    """
    inputs = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    watch = _Watch(weights)
    with undisturbed(model), watch:
        try:
            model(*inputs)
        except FAILURES as error:
            raise PruneError(f"The model can't run on example_inputs: {in_one_line(error)}") from error
    return list(watch.used)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
