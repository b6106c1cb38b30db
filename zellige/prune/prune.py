"""Pruning, from request to zeros: everything is checked and computed first, then written in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from zellige.patterns import Pattern, Scored
from zellige.prune.account import rows_of, warnings_of
from zellige.prune.allocation import apart, attained
from zellige.prune.amount import Amount
from zellige.prune.budget import Price
from zellige.prune.calibration import Calibration, Loss
from zellige.prune.curves import Curve, score_curves
from zellige.prune.cut import Cut, write
from zellige.prune.data_score import DataScore
from zellige.prune.layers import Layer
from zellige.prune.on_cpu import on_cpu
from zellige.prune.report import PruneReport
from zellige.prune.request import check_solver, checked_calibration, checked_pattern, layers_to_prune
from zellige.prune.scores import Score, name_of, score_named, scored_layers
from zellige.prune.sensitivity import loss_curves
from zellige.prune.solvers import Reconstruction, Solver, Task, reconstruct, solver_named

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
    pattern, score_of = checked_pattern(pattern), score_named(score)
    solver_of = None if solver is None else solver_named(solver)
    wanted = Amount.of(pattern, sparsity, scope, budget, prices, targets)
    by_scores = solver_of is None or wanted.by_scores
    check_solver(solver_of, pattern, held_out, sequential, score_counts=by_scores or score == "l1")
    calibration = checked_calibration(Calibration(data, loss, progress), score_of, wanted.measured, solver_of)
    chosen = layers_to_prune(model, pattern, wanted.targets, ignore, example_inputs)
    layers = chosen.pruned

    scored = scored_layers(score_of, model, layers, calibration) if by_scores else []
    shares = wanted.shares(pattern, model, layers, _curves(wanted, pattern, score_of, model, layers, scored, calibration))
    masks = _masks(wanted, pattern, scored, shares) if solver_of is None or shares is None else []
    solved: dict[Layer, Reconstruction] = {}
    if solver_of is not None:
        shares = attained(pattern, layers, masks) if shares is None else shares
        solved = reconstruct(Task(model, solver_of, pattern, layers, shares, calibration, held_out, sequential))
        masks = [solved[layer].mask for layer in layers]
    with on_cpu():
        cuts = {layer: Cut.of(layer, mask, pattern, solved[layer].weight if solved else None)
                for layer, mask in zip(layers, masks, strict=True)}

    rows = rows_of(chosen, cuts, pattern, solved)
    warnings = warnings_of(rows, chosen, cuts, model, wanted.alike)
    report = PruneReport(str(pattern), wanted.reported(cuts.values()), name_of(score), wanted.name, rows, warnings)
    if solver_of is not None:
        report = replace(report, solver=str(solver_of), measured_on=CALIBRATION if held_out is None else HELD_OUT)
    write(list(cuts.values()))
    return report


def _curves(
    wanted: Amount, pattern: Pattern, score: Score | DataScore, model: nn.Module, layers: Sequence[Layer],
    scored: Sequence[Scored], calibration: Calibration,
) -> list[Curve]:  # fmt: skip
    """What layers lose as they get sparser, where that says how much goes of each: measured, or by scores."""
    if wanted.measured:
        return loss_curves(model, pattern, layers, scored, calibration)[1]
    if wanted.limit is not None:
        return score_curves(pattern, layers, scored, isinstance(score, DataScore) and score.of_loss)
    return []


def _masks(
    wanted: Amount, pattern: Pattern, scored: Sequence[Scored], shares: Sequence[float | Fraction] | None
) -> list[torch.Tensor]:
    """What stays by the scores: of each layer by its share or, where there is none, of all by one threshold."""
    with on_cpu():  # one place for all to be compared, whatever the model's device or the default one
        return pattern.masks(scored, wanted.sparsity) if shares is None else apart(pattern, scored, shares)
