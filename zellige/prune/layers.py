"""The layers of a model that hold weights to prune, and which of them are left alone, and why.

Layers are convolutions and linear layers, subclasses included, in the order in which the model defines them. Left alone
in any case: transposed convolutions, weights that are computed from others or kept in another form, layers that the
pattern refuses. Left alone unless a user names them: the stem convolution (the first one, if it has at most
``STEM_CHANNELS`` inputs, like an image), layers too small to gain, layers that are never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from zellige.errors import PruneError
from zellige.patterns import Pattern, WeightShape
from zellige.prune.selection import Selection
from zellige.prune.usage import place, weights_in_use

STEM_CHANNELS = 4
PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
STEM = "stem: the first convolution stays dense"
UNUSED = "unused: the example inputs never reach it"
QUANTIZED = "torch.ao.nn.quantized"
"""Where PyTorch's quantised layers come from."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A module with a weight to prune. ``aliases`` are the names of other layers that use the very same weight."""

    name: str
    module: nn.Module
    weight: torch.Tensor
    shape: WeightShape
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def kind(self) -> str:
        return type(self.module).__name__

    @property
    def plain(self) -> bool:
        """Whether the weight is an ordinary tensor of floating-point numbers, neither quantised nor distributed."""
        ordinary = type(self.weight.data) is torch.Tensor and self.weight.layout is torch.strided
        return ordinary and self.weight.dtype in PLAIN_DTYPES

    @property
    def convolution(self) -> bool:
        """Whether the layer is a convolution proper, not a transposed one."""
        return isinstance(self.module, _ConvNd) and not isinstance(self.module, _ConvTransposeNd)


@dataclass(frozen=True, eq=False)
class Choice:
    """A layer, and why it is left alone; it is pruned if there is no reason."""

    layer: Layer
    reason: str | None


def find_layers(model: nn.Module) -> list[Layer]:
    """All convolutions and linear layers, in order of definition; a weight that several of them use is one layer.

    Raises:
        PruneError: a weight has no shape yet (lazy modules), or one that is no matrix of rows and columns; the model was exported,
            scripted or quantised, and no such layers are left in it.
    """
    found: dict[object, Layer] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, (_ConvNd, nn.Linear)) or not isinstance(weight := _weight(module), torch.Tensor):
            continue
        if is_lazy(weight):
            raise PruneError(f"Layer '{name}' has no weight yet: run the model once before pruning it.")
        if weight.dim() < 2 or weight.numel() == 0:
            raise PruneError(f"The weight of layer '{name}' has shape {tuple(weight.shape)}; expected rows × columns. "
                             "A sharded model must be gathered first.")
        key = place(weight)
        aliases = (*found[key].names, name)[1:] if key in found else ()
        first = found.get(key) or Layer(name, module, weight, _shape(module, weight))
        found[key] = Layer(first.name, first.module, first.weight, first.shape, aliases)
    if not found and (made := _made_of_layers(model)):
        kind, make = made
        raise PruneError(f"{kind} keeps no layers that could be pruned: prune the model first, then {make} it.")
    return list(found.values())


def choose_layers(
    layers: Sequence[Layer], pattern: Pattern, selection: Selection, in_use: Sequence[object] | None = None
) -> list[Choice]:
    """Says of each layer whether it is pruned, or why not.

    ``in_use`` are the places of the weights that a run used, in order; without it, layers count as used as defined.
    """
    stem = _stem(layers, in_use)

    def reasons(layer: Layer) -> Iterator[str | None]:
        yield _obstacle(layer)
        yield "named in ignore" if selection.ignores(layer.names) else None
        yield "not among targets" if not selection.wants(layer.names) else None
        yield pattern.refusal(layer.shape)
        if not selection.insists_on(layer.names):
            yield UNUSED if in_use is not None and place(layer.weight) not in in_use else None
            yield STEM if layer is stem else None
            yield pattern.too_small(layer.shape)

    return [Choice(layer, next(filter(None, reasons(layer)), None)) for layer in layers]


def last_layer(layers: Sequence[Layer], in_use: Sequence[object] | None) -> Layer:
    """The layer that a run used last, or the last one defined."""
    order = {at: position for position, at in enumerate(in_use or ())}
    return max(enumerate(layers), key=lambda numbered: (order.get(place(numbered[1].weight), -1), numbered[0]))[1]


def uses(model: nn.Module, layers: Sequence[Layer], example_inputs: Any) -> list[Any] | None:
    """What ``choose_layers`` takes as ``in_use``; None without example inputs."""
    if example_inputs is None:
        return None
    return weights_in_use(model, example_inputs, [layer.weight for layer in layers])


def _weight(module: nn.Module) -> Any:
    """A module's weight. Where a parametrization computes it, it does so as for inference: spectral norm, for one, takes a step
    of its iteration each time that it is asked in training."""
    if not is_parametrized(module, "weight"):
        return getattr(module, "weight", None)
    computing = [(part, part.training) for part in module.parametrizations["weight"].modules()]  # type: ignore[index,union-attr]
    try:
        for part, _ in computing:
            part.training = False
        return module.weight
    finally:
        for part, training in computing:
            part.training = training


def _made_of_layers(model: nn.Module) -> tuple[str, str] | None:
    """What a model without layers is, and how it was made of one that had them: ``torch.export`` leaves a list of operators, which
    take weights by name, scripting a language of its own, quantisation layers of another kind."""
    if isinstance(model, torch.fx.GraphModule) and any(
            isinstance(node.target, torch._ops.OpOverload) for node in model.graph.nodes):
        return "An exported program", "export"
    if isinstance(model, torch.jit.ScriptModule):
        return "A scripted model", "script"
    if any(type(module).__module__.startswith(QUANTIZED) for module in model.modules()):
        return "A quantised model", "quantise"
    return None


def _shape(module: nn.Module, weight: torch.Tensor) -> WeightShape:
    return WeightShape(tuple(weight.shape), getattr(module, "groups", 1) if isinstance(module, _ConvNd) else 1)


def _stem(layers: Sequence[Layer], in_use: Sequence[object] | None) -> Layer | None:
    """The first convolution that runs, if what it sees looks like an input: an image, a signal."""
    convolutions = [layer for layer in layers if layer.convolution]
    if in_use is not None:
        order = {at: position for position, at in enumerate(in_use)}
        convolutions = [layer for layer in convolutions if place(layer.weight) in order]
        convolutions.sort(key=lambda layer: order[place(layer.weight)])
    first = next(iter(convolutions), None)
    return first if first and first.shape.columns * first.shape.groups <= STEM_CHANNELS else None


def _obstacle(layer: Layer) -> str | None:
    """Why zeros can't be written into a layer's weight, whatever the pattern, or None."""
    weight = layer.weight
    if isinstance(layer.module, _ConvTransposeNd):
        return "transposed convolution: not supported"
    if not any(weight is parameter for parameter in layer.module.parameters(recurse=False)):
        return "computed weight: remove the parametrization first, or the zeros are lost"
    if not layer.plain:
        return f"stored as {type(weight.data).__name__} of {weight.dtype}: not a plain floating-point tensor"
    if overlaps_itself(weight):
        return "expanded: several of its weights are one number in memory, and can't be zero by themselves"
    return None


def overlaps_itself(weight: torch.Tensor) -> bool:
    """Whether several entries of a strided tensor may lie in one place, as those of an expanded one do."""
    reach = 0  # of the axes of smaller steps
    for step, size in sorted((step, size) for step, size in zip(weight.stride(), weight.shape, strict=True) if size > 1):
        if step <= reach:
            return True
        reach += step * (size - 1)
    return False
