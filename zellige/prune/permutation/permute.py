"""Permuting a whole network: everything is found, searched and checked first, then written in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn

from zellige.errors import PruneError
from zellige.graph.axes import Axes, AxisGroup, Part, find_axes, sources
from zellige.graph.from_torch import trace
from zellige.patterns import Block, Pattern, TileWise, parse_pattern
from zellige.patterns.sums import row_sums, tree_sum
from zellige.prune.arguments import check_progress, check_seed, named
from zellige.prune.layers import Layer
from zellige.prune.on_cpu import on_cpu
from zellige.prune.permutation.members import Lines
from zellige.prune.permutation.report import AXES, Fixed, GroupReport, LayerShare, PermuteReport
from zellige.prune.permutation.search import METHODS, Search, one_thread
from zellige.prune.permutation.state import State, moved_tensors, state_of, write
from zellige.prune.permutation.weights import Clusterable, Cut, PlacedWeight, kept_l1
from zellige.prune.request import layers_to_prune
from zellige.prune.undisturbed import undisturbed

UNREAD = "the traced network doesn't read its weight as it is"
PERMUTABLE = "Block(rows, columns) and TileWise(rows, whole_rows=False), or their text ('block:8x8', 'tile-rows:128')"
MOST_NAMED = 3  # parameters that a warning names


def permute(
    model: nn.Module,
    pattern: Pattern | str,
    sparsity: float,
    example_inputs: Any,
    *,
    method: str = "exchange",
    seed: int = 0,
    targets: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> PermuteReport:
    """Reorders the channels of a whole network, in place, so that the pattern keeps more of its L1 mass; what it computes stays.

    Rows of producers, columns of consumers, residual branches, normalisations and depthwise filters are permuted alike, each set of
    tensors that share channels by one permutation: no operation is added, and the network gives what it gave, but for the order
    of additions. What a permutation is worth is summed over all weights that ``prune`` would prune. The result depends on the
    arguments alone, and never keeps less in all than the network as it is. On any error the model is untouched.

    Args:
        model: any module that ``zl.compile`` takes, in any mode; float32, on the CPU.
        pattern: ``Block`` of any size, or ``TileWise(…, whole_rows=False)``; or its text.
        sparsity: as for ``prune``, of every layer.
        example_inputs: positional arguments of the model; only shapes matter.
        method: ``"exchange"``, exchanges of pairs of channels; ``"annealing"``, the same for much longer; ``"mass"``,
            channels sorted by their L1 norm in all weights.
        seed: a whole number, for methods that draw.
        targets: as for ``prune``: the layers whose gain counts.
        ignore: the same for layers whose gain does not count. Their channels move with the others' all the same.
        progress: is told in a few words what is being done.

    Returns:
        What was done: who shares channels with whom, what every layer keeps, and what couldn't be permuted, and why.

    Raises:
        PruneError: an argument doesn't fit; weights are NaN, infinite or on the meta device; no layer is to be pruned.
        UnsupportedModelError: the model can't be brought into a graph, so nobody knows which tensors share channels.
        InputError: the example inputs don't fit the model.

    >>> model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    >>> report = permute(model, "block:8x8", 0.5, torch.ones(1, 16))
    >>> report.groups[0].members
    (('0.weight', 'rows'), ('0.bias', 'elements'), ('2.weight', 'columns'))
    >>> report.kept > report.kept_before
    True
    """
    pattern = _checked_pattern(pattern)
    exact, effort = pattern.check(sparsity), named("method of permutation", METHODS, method)
    check_seed(seed)
    check_progress(progress)
    if not isinstance(model, nn.Module):
        raise PruneError(f"permute takes a torch.nn.Module, not {type(model).__name__}.")
    if example_inputs is None:
        raise PruneError("permute needs example_inputs: which tensors share channels is found by tracing the model.")
    tell = progress or (lambda text: None)
    inputs = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)

    pruned = layers_to_prune(model, pattern, targets, ignore, inputs).pruned
    tell("finding which tensors share channels")
    with undisturbed(model):
        traced = trace(model, inputs)
    state = state_of(model, traced)
    axes = find_axes(traced.graph, state.fixed, state.same)
    del traced
    names = {layer: name for layer in pruned if (name := _constant_of(layer, state))}

    with torch.no_grad(), on_cpu():
        kept_before = {layer: kept_l1(layer.weight, layer.shape.groups, pattern, exact) for layer in pruned}
        orders = [np.arange(group.units) for group in axes.groups]
        moved: dict[str, torch.Tensor] = {}
        kept = kept_before
        if exact and axes.groups:
            weights = _placed({name: layer for layer, name in names.items()}, pattern, exact)
            groups = [[_lines(weights[part.constant], part) for part in group.parts if part.constant in weights]
                      for group in axes.groups]
            search = Search(groups, [group.units for group in axes.groups], seed)
            with one_thread():
                found = [order.numpy() for order in search.run(effort, tell)]
            del weights, groups, search
            tell("permuting")
            changed = moved_tensors(state, sources(axes, found, {name: tuple(t.shape) for name, t in state.tensors.items()}))
            after = {layer: kept_l1(changed[names[layer]], layer.shape.groups, pattern, exact)
                     if names.get(layer) in changed else kept_before[layer] for layer in pruned}
            if sum(after.values()) > sum(kept_before.values()):
                orders, moved, kept = found, changed, after
        shares = tuple(_share(layer, names.get(layer), axes, kept_before[layer], kept[layer]) for layer in pruned)
    report = PermuteReport(str(pattern), float(sparsity), method, seed, shares,
                           tuple(_group_report(group, order, state) for group, order in zip(axes.groups, orders, strict=True)),
                           tuple(_warnings(state, bool(moved))))
    write(state, moved)
    return report


def _checked_pattern(pattern: Pattern | str) -> Clusterable:
    """The pattern, if it makes a difference to it which lines are neighbours."""
    if isinstance(pattern, str):
        pattern = parse_pattern(pattern)
    if type(pattern) is Block or (type(pattern) is TileWise and not pattern.whole_rows):
        return pattern
    raise PruneError(f"Networks are permuted for {PERMUTABLE}; not for {pattern}.")


def permutation_refusal(pattern: Pattern) -> str | None:
    """Why networks can't be permuted for a pattern, or None."""
    try:
        _checked_pattern(pattern)
    except PruneError as error:
        return str(error)
    return None


def _constant_of(layer: Layer, state: State) -> str | None:
    """The constant that stands for a layer's weight, if the graph reads it as such."""
    names = [f"{name}.weight" if name else "weight" for name in layer.names]
    return next((state.same.get(name, name) for name in names if name in state.tensors), None)


def _placed(layers: Mapping[str, Layer], pattern: Clusterable, sparsity: Fraction) -> dict[str, PlacedWeight]:
    """The weights as the search sees them, in units of their mean magnitude."""
    mass = sum(float(tree_sum(row_sums(layer.weight.detach().abs()), 0)) for layer in layers.values())
    unit = mass / sum(layer.shape.weights for layer in layers.values()) or 1.0
    cut = Cut.of(pattern)
    return {name: PlacedWeight(layer.weight, layer.shape.groups, unit, cut, sparsity) for name, layer in layers.items()}


def _lines(weight: PlacedWeight, part: Part) -> Lines:
    """The lines of a weight that a part of a group is. A column of a grouped convolution stands in every row: once is enough."""
    positions, (rows, columns) = part.positions, weight.lines
    if part.dims == (0,):
        axis, group, line = 0, positions // rows, positions % rows
    elif part.dims == (1,):
        axis, group, line = 1, np.zeros_like(positions), positions
    else:
        positions = positions.reshape(len(positions), -1, rows)[:, :, 0]
        axis, group, line = 1, positions // columns // rows, positions % columns
    return Lines(weight, axis, torch.from_numpy(group), torch.from_numpy(line))


def _share(layer: Layer, name: str | None, axes: Axes, before: float, after: float) -> LayerShare:
    fixed = [Fixed(AXES[lines.axis], lines.lines, lines.of, lines.reason) for lines in axes.fixed if lines.constant == name]
    if name is None:
        fixed = [Fixed(axis, size, size, UNREAD) for axis, size in zip(AXES, layer.shape.dims, strict=False)]
    l1 = float(tree_sum(row_sums(layer.weight.detach().abs()), 0))
    return LayerShare(layer.name, layer.kind, layer.shape.dims, layer.shape.groups, l1, before, after, tuple(fixed))


def _group_report(group: AxisGroup, order: np.ndarray, state: State) -> GroupReport:
    members = tuple((part.constant, _axis_word(part, state.tensors[part.constant].dim())) for part in group.parts)
    return GroupReport(group.units, int((order != np.arange(group.units)).sum()), members)


def _axis_word(part: Part, rank: int) -> str:
    return AXES[part.dims[-1]] if rank in (2, 4) else "elements"


def _warnings(state: State, moved: bool) -> list[str]:
    """Channels may also be read where the trace doesn't go, such as in heads that serve training alone."""
    if not moved or not state.unread:
        return []
    some = ", ".join(state.unread[:MOST_NAMED]) + (", …" if len(state.unread) > MOST_NAMED else "")
    return [f"{len(state.unread)} parameters are not read in evaluation ({some}): what they make of permuted channels is not what "
            "it was"]
