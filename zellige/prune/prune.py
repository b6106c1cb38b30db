"""Pruning, from request to zeros: everything is checked and computed first, then written in one go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import nn

from zellige.errors import PruneError
from zellige.patterns import Pattern, Scored
from zellige.prune.allocation import ALLOCATIONS, GLOBAL, SENSITIVITY, apart, attained, check_scope
from zellige.prune.budget import Budget, Price, shares_by_weights, shares_within
from zellige.prune.calibration import Calibration, Loss
from zellige.prune.curves import Curve, score_curves
from zellige.prune.cut import Cut, measure, write
from zellige.prune.data_score import DataScore
from zellige.prune.layers import Choice, Layer, last_layer
from zellige.prune.report import Amounts, LayerReport, PruneReport
from zellige.prune.request import check_solver, checked_calibration, checked_pattern, layers_to_prune
from zellige.prune.scores import Score, name_of, score_named, scores_of
from zellige.prune.sensitivity import loss_curves
from zellige.prune.solvers import Reconstruction, Solver, Task, reconstruct, solver_named
from zellige.prune.table import sparsity_in
from zellige.prune.usage import place

NEARLY_EMPTY = 0.95
TABLE = "table"  # the scope of a report, where every layer has a sparsity of its own
CALIBRATION, HELD_OUT = "the calibration data itself", "held-out batches"  # what output errors are measured on


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
    solver: str | Solver | None = None,
    held_out: Iterable[Any] | None = None,
    sequential: bool = True,
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
        solver: ``"obs"``, ``"fixed-order"`` or ``"admm"``, or one of ``zellige.prune.solvers`` with settings of its own: it chooses
            what goes of each layer, and gives new values to what stays, such that outputs on ``data`` change least. The scope
            still says how much goes; a score has a say in that alone. Without a loss, a batch holds the model's arguments.
        held_out: batches on which the report's output errors are measured; without them, ``data``.
        sequential: whether a solver shows layers what the pruned layers before them make of the data.

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
    pattern = checked_pattern(pattern)
    score_of, measured = score_named(score), scope == SENSITIVITY
    solver_of = None if solver is None else solver_named(solver)
    check_scope(scope)
    limit = None if budget is None else _checked_budget(budget, {} if prices is None else prices, sparsity, scope)
    if limit is not None:
        scope = f"{limit}, by {SENSITIVITY}" if measured else str(limit)
    elif isinstance(sparsity, Mapping):
        targets, scope = _check_table(sparsity, pattern, targets, scope), TABLE
    elif sparsity is None:
        raise PruneError("Sparsity is missing: give a share such as 0.5, a table of them by layer, or a budget.")
    else:
        pattern.check(sparsity)
    by_scores = solver_of is None or limit is not None or scope in (GLOBAL, SENSITIVITY)
    check_solver(solver_of, pattern, held_out, sequential, score_counts=by_scores or score == "l1")
    calibration = checked_calibration(Calibration(data, loss, progress), score_of, measured, solver_of)
    asked = layers_to_prune(model, pattern, targets, ignore, example_inputs)
    choices, pruned = asked.choices, asked.pruned

    scored = _scored(score_of, model, pruned, calibration) if by_scores else []
    curves: list[Curve] = []
    if limit is not None or measured:
        of_loss = isinstance(score_of, DataScore) and score_of.of_loss
        curves = (loss_curves(model, pattern, pruned, scored, calibration)[1] if measured else
                  score_curves(pattern, pruned, scored, of_loss))
    shares: Sequence[float | Fraction] | None = None  # of each layer; none where one threshold serves all
    if sparsity is None:
        assert limit is not None
        shares = shares_within(limit, (prices or {}).get(limit.kind), model, pruned, curves)
    elif isinstance(sparsity, Mapping):
        shares = [sparsity_in(sparsity, layer.names) for layer in pruned]
    elif measured:
        shares = shares_by_weights(pattern.check(sparsity), pruned, curves)
    elif scope != GLOBAL:
        shares = ALLOCATIONS[scope]([layer.shape for layer in pruned], pattern.check(sparsity))

    masks: list[torch.Tensor] = []
    with torch.device("cpu"):  # one place for all to be compared, whatever the model's device or the default one
        if shares is None:
            assert sparsity is not None and not isinstance(sparsity, Mapping)
            masks = pattern.masks(scored, sparsity)
            shares = attained(pattern, pruned, masks) if solver_of is not None else None
        elif solver_of is None:
            masks = apart(pattern, scored, shares)
    solved: dict[Layer, Reconstruction] = {}
    if solver_of is not None:
        assert shares is not None
        solved = reconstruct(Task(model, solver_of, pattern, pruned, shares, calibration, held_out, sequential))
        masks = [solved[layer].mask for layer in pruned]
    with torch.device("cpu"):
        cuts = {layer: Cut.of(layer, mask, pattern, solved[layer].weight if solved else None)
                for layer, mask in zip(pruned, masks, strict=True)}
    rows = tuple(row for choice in choices for row in _rows(choice, cuts.get(choice.layer), pattern, solved.get(choice.layer)))
    warnings = (*_emptied(rows, scope), *_silenced(cuts.get(last_layer(asked.layers, asked.in_use))), *_tied(model, pruned))
    share = _attained(cuts.values()) if sparsity is None or isinstance(sparsity, Mapping) else float(sparsity)
    report = PruneReport(str(pattern), share, name_of(score), scope, rows, warnings)
    if solver_of is not None:
        report = replace(report, solver=str(solver_of), measured_on=CALIBRATION if held_out is None else HELD_OUT)
    write(list(cuts.values()))
    return report


def _scored(
    score: Score | DataScore, model: nn.Module, layers: Sequence[Layer], calibration: Calibration
) -> list[Scored]:
    """The layers with their scores, which are computed when they are asked for; the model has run by then."""
    scores = scores_of(score, model, layers, calibration)
    return [Scored(layer.shape, partial(scores, layer), layer.name) for layer in layers]


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


def _rows(choice: Choice, cut: Cut | None, pattern: Pattern, solved: Reconstruction | None) -> Iterator[LayerReport]:
    """The report on a layer, then on the other names that its weight goes by."""
    layer, shape = choice.layer, choice.layer.shape
    amounts = measure(layer, cut)
    name = str(pattern) if cut else None
    yield LayerReport(layer.name, layer.kind, shape.dims, shape.groups, name, amounts, choice.reason,
                      None if solved is None else solved.errors)
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
