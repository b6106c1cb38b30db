"""Pruning, from request to zeros: everything is checked and computed first, then written in one go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from zellige.errors import PruneError
from zellige.patterns import Pattern, Scored, parse_pattern
from zellige.prune.allocation import SCOPES, SENSITIVITY, apart, scope_named
from zellige.prune.budget import Budget, Price, shares_by_weights, shares_within
from zellige.prune.calibration import Calibration, Loss
from zellige.prune.curves import Curve, score_curves
from zellige.prune.cut import Cut, measure, write
from zellige.prune.data_score import DataScore
from zellige.prune.layers import Choice, Layer, choose_layers, find_layers, last_layer, uses
from zellige.prune.report import Amounts, LayerReport, PruneReport
from zellige.prune.scores import Score, name_of, score_named, scores_of
from zellige.prune.selection import Selection
from zellige.prune.sensitivity import loss_curves
from zellige.prune.table import sparsity_in
from zellige.prune.usage import place

NEARLY_EMPTY = 0.95
TABLE = "table"  # the scope of a report, where every layer has a sparsity of its own


def prune(
    model: nn.Module,
    pattern: Pattern | str,
    sparsity: float | Mapping[str, float] | None = None,
    example_inputs: Any = None,
    *,
    score: str | Score | DataScore = "l1",
    scope: str = "layer",
    targets: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    progress: Callable[[str], None] | None = None,
    budget: Mapping[str, float] | None = None,
    prices: Mapping[str, Price] | None = None,
) -> PruneReport:
    """Zeroes the blocks that matter least in the model's convolutions and linear layers, in place.

    Exactly ⌊sparsity × blocks⌋ blocks go: of every layer (``scope="layer"``), or of all layers together
    (``scope="global"``, where each layer keeps one block at least), or of every layer with a sparsity that its form says, so
    that all together come out at the one asked for (``scope="erk"``), or such that the loss rises least, as measured on data
    for each layer alone (``scope="sensitivity"``). With a budget in place of a sparsity, layers lose what hurts least for it.
    Tile-wise patterns count weights, and come as near to that from below as whole rows and columns can; the report has what was
    attained. On any error the model is untouched. Biases, modes and hooks are never touched.

    Args:
        model: any module; a weight that several layers share is pruned once.
        pattern: such as ``Block(8, 8)``, or its text form, ``"block:8x8"``.
        sparsity: share of blocks to remove, at least 0 and less than 1. Patterns such as ``NM(2, 4)`` have only one. Or a table
            from names, or ``re:`` patterns, as in ``targets``, to sparsities; layers that it doesn't name are left alone.
        example_inputs: positional arguments of the model. With them the stem is found by order of execution, and
            layers that inference never uses are left alone; without them, order of definition counts.
        score: ``"l1"``, ``"l2"`` or ``"variance"``; a function from a weight to scores of its shape; or, measured on ``data``,
            ``"taylor"``, ``"fisher"``, ``"hessian"`` and ``"wanda"``.
        scope: ``"layer"``, ``"global"``, ``"erk"`` or ``"sensitivity"``.
        targets: names of layers, or of modules that hold layers, or ``re:`` patterns; all layers if None. The stem,
            small and unused layers are pruned if they are named in full.
        ignore: the same for layers to leave alone.
        data: batches of tensors, or of tuples, lists or dicts of tensors; gone through once.
        loss: a function ``loss(model, batch)`` that gives one number to differentiate, the mean over the batch's samples.
            ``"wanda"`` needs none: without it a batch holds the arguments of the model.
        progress: is told in a few words what is being done.
        budget: a share of what the dense network costs: ``{"latency": 0.5}`` of its time on this CPU as the compiler expects it
            (``zl.prune`` knows it, and needs ``example_inputs``), ``{"bytes": 0.4}`` of its parameters, or of a cost in
            ``prices``. Sparsities are those with which layers lose the least score for it (Taylor, Fisher and Hessian as they
            are, others as shares of each layer's), or with scope ``"sensitivity"`` the least loss; a layer loses 95 % at most
            (there: 90 %).
        prices: what the layers cost at each density, by the name of the kind of cost.

    Returns:
        What was done, layer by layer.

    Raises:
        PruneError: an argument doesn't fit; data is lacking, or the model, the loss or the score fails on it; weights are NaN,
            infinite or on the meta device, or a layer's all zero; no layer can be pruned.

    >>> from zellige.patterns import Block
    >>> report = prune(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32)), Block(8, 8), 0.5)
    >>> report.totals.removed, report.totals.blocks
    (48, 96)
    """
    pattern = _checked_pattern(pattern)
    score_of, measured = score_named(score), scope == SENSITIVITY
    allocate = SCOPES["layer"] if measured else scope_named(scope)
    limit = None if budget is None else _checked_budget(budget, {} if prices is None else prices, sparsity, scope)
    if limit is not None:
        scope = f"{limit}, by {SENSITIVITY}" if measured else str(limit)
    elif isinstance(sparsity, Mapping):
        targets, scope = _check_table(sparsity, pattern, targets, scope), TABLE
    elif sparsity is None:
        raise PruneError("Sparsity is missing: give a share such as 0.5, a table of them by layer, or a budget.")
    else:
        pattern.check(sparsity)
    calibration = _checked_calibration(Calibration(data, loss, progress), score_of, measured)
    if not isinstance(model, nn.Module):
        raise PruneError(f"prune takes a torch.nn.Module, not {type(model).__name__}.")

    layers = find_layers(model)
    selection = Selection.of(targets, ignore, (name for layer in layers for name in layer.names))
    for layer in layers:
        check_weight(layer)
    in_use = uses(model, layers, example_inputs)
    choices = choose_layers(layers, pattern, selection, in_use)
    pruned = [choice.layer for choice in choices if choice.reason is None]
    if not pruned:
        raise PruneError(nothing_to_prune(choices))

    scores = scores_of(score_of, model, pruned, calibration)
    scored = [Scored(layer.shape, partial(scores, layer), layer.name) for layer in pruned]
    curves: list[Curve] = []
    if limit is not None or measured:
        of_loss = isinstance(score_of, DataScore) and score_of.of_loss
        curves = (loss_curves(model, pattern, pruned, scored, calibration) if measured else
                  score_curves(pattern, pruned, scored, of_loss))
    with torch.device("cpu"):  # one place for all to be compared, whatever the model's device or the default one
        if sparsity is None:
            assert limit is not None
            shares = shares_within(limit, (prices or {}).get(limit.kind), model, pruned, curves)
            masks = apart(pattern, scored, shares)
        elif isinstance(sparsity, Mapping):
            masks = apart(pattern, scored, [sparsity_in(sparsity, layer.names) for layer in pruned])
        elif measured:
            masks = apart(pattern, scored, shares_by_weights(pattern.check(sparsity), pruned, curves))
        else:
            masks = allocate(pattern, scored, sparsity)
        cuts = {layer: Cut.of(layer, mask, pattern) for layer, mask in zip(pruned, masks, strict=True)}
    rows = tuple(row for choice in choices for row in _rows(choice, cuts.get(choice.layer), pattern))
    warnings = (*_emptied(rows, scope), *_silenced(cuts.get(last_layer(layers, in_use))), *_tied(model, pruned))
    asked = _attained(cuts.values()) if sparsity is None or isinstance(sparsity, Mapping) else float(sparsity)
    report = PruneReport(str(pattern), asked, name_of(score), scope, rows, warnings)
    write(list(cuts.values()))
    return report


def _checked_pattern(pattern: Pattern | str) -> Pattern:
    if isinstance(pattern, str):
        return parse_pattern(pattern)
    if not isinstance(pattern, Pattern):
        raise PruneError(f"A pattern is one of zellige.patterns, or a text such as 'block:8x8'; not {pattern!r}.")
    return pattern


def _check_table(
    table: Mapping[str, float], pattern: Pattern, targets: str | Sequence[str] | None, scope: str
) -> tuple[str, ...]:
    """The names in a table of sparsities, which are the layers to prune."""
    if targets is not None or scope != "layer":
        raise PruneError("A table of sparsities says itself which layers lose how much: leave out targets and scope beside it.")
    for name, share in table.items():
        try:
            pattern.check(share)
        except PruneError as error:
            raise PruneError(f"The table of sparsities has {share!r} for {name!r}. {error}") from None
    return tuple(table)


def _attained(cuts: Collection[Cut]) -> float:
    """The share of blocks that go."""
    return sum(cut.removed for cut in cuts) / sum(cut.blocks for cut in cuts)


def _checked_budget(
    budget: Mapping[str, float], prices: Mapping[str, Price], sparsity: float | Mapping[str, float] | None, scope: str
) -> Budget:
    """A budget decides by itself how much goes from each layer."""
    limit = Budget.of(budget, prices)
    if sparsity is not None or scope not in ("layer", SENSITIVITY):
        raise PruneError("A budget says itself how much of each layer goes: give no sparsity beside it, and no scope but "
                         f"'{SENSITIVITY}'.")
    return limit


def _checked_calibration(calibration: Calibration, score: Score | DataScore, measured: bool) -> Calibration:
    """Data that nothing looks at is a mistake, and so is a score without the data that it looks at."""
    if calibration.progress is not None and not callable(calibration.progress):
        raise PruneError(f"progress is a function that takes a text, such as print; not {calibration.progress!r}.")
    if isinstance(score, DataScore) and calibration.data is None:
        raise PruneError(f"Score '{score}' is measured on data: give zl.prune data=… (batches) and loss=… (of model and batch). "
                         "Where there is none, as on the command line, take l1, l2 or variance.")
    if measured and calibration.data is None:
        raise PruneError(f"Scope '{SENSITIVITY}' is measured on data: give zl.prune data=… (batches) and loss=… (of model and "
                         "batch). Where there is none, as on the command line, take another scope.")
    if measured and isinstance(score, DataScore):  # who both go through the data
        return calibration.held()
    if not measured and not isinstance(score, DataScore) and (calibration.data is not None or calibration.loss is not None):
        raise PruneError("data and loss are for scores and scopes that are measured on them, such as 'taylor'; these look at none.")
    return calibration


def check_weight(layer: Layer) -> None:
    """Refuses weights that can't be ranked or written, in any layer: such a model has a fault to mend first."""
    weight, whose = layer.weight.detach(), f"The weight of layer '{layer.name}'"
    if weight.is_meta:
        raise PruneError(f"{whose} is on the meta device, which holds no numbers; load the weights first.")
    if weight.is_inference():
        raise PruneError(f"{whose} was made in inference mode and can't be written to; make the model outside of it.")
    if layer.plain and not bool(torch.isfinite(torch.stack(torch.aminmax(weight))).all()):
        raise PruneError(f"{whose} holds NaN or infinite values, and blocks can't be ranked by them; mend it first.")


def nothing_to_prune(choices: Sequence[Choice]) -> str:
    if not choices:
        return "The model has no convolution or linear layer to prune."
    reasons = "; ".join(f"'{choice.layer.name}' ({choice.reason})" for choice in choices[:5])
    more = f"; and {len(choices) - 5} more" if len(choices) > 5 else ""
    return f"No layer is left to prune: {reasons}{more}. Name a layer in full in targets to prune it against a default."


def _rows(choice: Choice, cut: Cut | None, pattern: Pattern) -> Iterator[LayerReport]:
    """The report on a layer, then on the other names that its weight goes by."""
    layer, shape = choice.layer, choice.layer.shape
    amounts = measure(layer, cut)
    name = str(pattern) if cut else None
    yield LayerReport(layer.name, layer.kind, shape.dims, shape.groups, name, amounts, choice.reason)
    for alias in layer.aliases:
        reason = f"shares its weight with {layer.name}"
        yield LayerReport(alias, layer.kind, shape.dims, shape.groups, None, Amounts(), reason)


def _emptied(rows: Sequence[LayerReport], scope: str) -> Iterator[str]:
    """Under one threshold, a layer may come out far sparser than what was asked."""
    for row in rows:
        if scope not in ("layer", TABLE) and row.pruned and row.sparsity > NEARLY_EMPTY:
            yield f"layer '{row.name}' is {row.sparsity:.2%} zero; to spare it, name it in ignore or take scope 'layer'"


def _silenced(cut: Cut | None) -> Iterator[str]:
    """Outputs of the network itself, classes say, may be among the rows that went."""
    if cut and (gone := int((~cut.mask.flatten(1).any(1)).sum())):
        yield (f"{gone} of {len(cut.mask)} outputs of layer '{cut.layer.name}', the last one, don't depend on the input any more; "
               "to spare them, name it in ignore")


def _tied(model: nn.Module, pruned: Sequence[Layer]) -> Iterator[str]:
    """A weight may also serve where no layer is in sight, as an output projection tied to its embedding does."""
    owners = {place(layer.weight): layer for layer in pruned}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer = owners.get(place(parameter))
        if layer and name.rpartition(".")[0] not in layer.names:
            yield f"'{name}' is the weight of layer '{layer.name}': its values changed, too"
