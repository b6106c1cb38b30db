"""What is compared: a pruned network for Zellige, the dense one it came from for the rivals, and inputs for both."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from zellige.models import NamedModel, warm_statistics
from zellige.patterns import Pattern

NO_PATTERN = "none"


@dataclass(frozen=True)
class Subject:
    """A network in its two forms. ``pattern`` is as on the command line, ``sparsity`` the share asked for.

    Where nothing was pruned for the comparison, ``pruned`` and ``dense`` are the same module.
    """

    name: str
    pattern: str
    sparsity: float
    pruned: torch.nn.Module
    dense: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    weights: str

    @property
    def batch(self) -> int:
        return self.inputs[0].shape[0] if self.inputs[0].dim() else 1

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense network's parameters in f32."""
        return 4 * sum(parameter.numel() for parameter in _weights(self.dense))


def _weights(model: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters, or, in a module read from an exported program that has none, its floating-point buffers."""
    return list(model.parameters()) or [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def as_it_is(named: NamedModel) -> Subject:
    """Compare a network with the zeros that it has, or has not."""
    return Subject(named.name, NO_PATTERN, 0.0, named.model, named.model, named.example_inputs, named.weights)


def pruned_subject(
    named: NamedModel, pattern: Pattern, sparsity: float, scope: str = "layer", score: str = "l1"
) -> Subject:
    """Prune a copy of the network; the dense one stays as it is.

    Where the weights are random, batch-norm statistics are taken again after pruning, as training would do.
    """
    import zellige as zl

    pruned = copy.deepcopy(named.model)
    zl.prune(pruned, pattern, sparsity=sparsity, example_inputs=named.example_inputs, scope=scope, score=score)
    if named.random_weights:
        warm_statistics(pruned, named.example_inputs)
    return Subject(named.name, str(pattern), sparsity, pruned, named.model, named.example_inputs, named.weights)
