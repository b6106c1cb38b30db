"""One-shot pruning: every layer is given a mask and new weights such that its outputs on calibration data change least.

Layers are taken in the order in which the model runs them. In sequence, a layer sees what the pruned layers before it make of the
data; their weights are in the model meanwhile, and all are put back at the end: who asked for this writes new ones, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import nn

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.patterns import Pattern, Scored
from zellige.prune.allocation import apart
from zellige.prune.calibration import Calibration
from zellige.prune.data_score import doubled
from zellige.prune.layers import Layer
from zellige.prune.on_cpu import on_cpu
from zellige.prune.report import OutputErrors
from zellige.prune.solvers.layer_hessian import LayerHessian
from zellige.prune.solvers.problem import Problem, Solution, Solver, as_rows, damped, output_energy
from zellige.prune.solvers.walk import walk
from zellige.prune.undisturbed import undisturbed


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a solver made of a layer: mask and weight (of the layer's type, on the CPU), and the output errors of both ways."""

    mask: torch.Tensor
    weight: torch.Tensor
    errors: OutputErrors


@dataclass(frozen=True, eq=False)
class Task:
    """Solve these layers of a model to these sparsities, on calibration data; measure errors on ``held_out`` batches, or on the
    same data if there are none. ``sequential``: layers see the pruned layers before them."""

    model: nn.Module
    solver: Solver
    pattern: Pattern
    layers: Sequence[Layer]
    shares: Sequence[float | Fraction]
    calibration: Calibration
    held_out: Any = None
    sequential: bool = True


def reconstruct(task: Task) -> dict[Layer, Reconstruction]:
    """Solves all layers. The model is left as it was.

    Raises:
        PruneError: the data doesn't fit, or doesn't reach a layer; a layer can't be solved.
    """
    scored = [Scored(layer.shape, partial(_magnitudes, layer), layer.name) for layer in task.layers]
    with on_cpu():
        plain = dict(zip(task.layers, apart(task.pattern, scored, task.shares), strict=True))
    shares = dict(zip(task.layers, (task.pattern.check(share) for share in task.shares), strict=True))  # type: ignore[arg-type]
    purpose, device = f"Solver '{task.solver}'", task.layers[0].weight.device
    found: dict[Layer, Reconstruction] = {}
    kept: dict[Layer, torch.Tensor] = {}
    with undisturbed(task.model):
        batches = list(task.calibration.batches(purpose, device))
        calibrating = len(batches)
        if task.held_out is not None:
            held = Calibration(task.held_out, task.calibration.loss, task.calibration.progress)
            batches += held.batches(f"{purpose}, on held-out data", device)
        try:
            for layer, look in walk(purpose, task.model, task.layers, task.calibration, batches):
                task.calibration.tell(f"{purpose}: layer {len(found) + 1} of {len(task.layers)}, {layer.name}")
                seen = [LayerHessian(layer.shape) for _ in range(1 + (task.held_out is not None))]
                look(lambda number, module, inputs, into=seen: into[number >= calibrating].add(module, inputs))  # type: ignore[misc]
                with on_cpu():
                    found[layer] = _solved(task, layer, shares[layer], plain[layer], [part.matrix() for part in seen])
                if task.sequential:
                    kept[layer] = layer.weight.detach().clone()
                    layer.weight.copy_(found[layer].weight)
        finally:
            for layer, weight in kept.items():
                layer.weight.copy_(weight)
    return found


def _solved(
    task: Task, layer: Layer, share: Fraction, plain: torch.Tensor, hessians: Sequence[torch.Tensor]
) -> Reconstruction:
    """A layer by the Hessian of the calibration data, measured on the last one."""
    purpose, weight = f"Solver '{task.solver}': layer '{layer.name}'", doubled(layer.weight)
    for hessian in hessians:
        if not bool(torch.isfinite(hessian).all()):
            raise PruneError(f"{purpose} is called on NaN or infinite inputs; the data, or the model, has a fault to mend first.")
        if not output_energy(as_rows(weight, layer.shape), hessian):
            raise PruneError(f"{purpose} makes nothing but zeros of the data, so nothing tells which weights matter; give other "
                             "data, or name the layer in ignore.")
    problem = Problem(layer.name, task.pattern, share, layer.shape, weight, damped(hessians[0], task.solver.damping))
    try:
        solution = task.solver.solve(problem)
    except FAILURES as error:
        raise PruneError(f"{purpose} can't be solved: {in_one_line(error)} A higher damping than {task.solver.damping:g} may help."
                         ) from error
    new = solution.weight.to(layer.weight.dtype)
    if not bool(torch.isfinite(new).all()):
        raise PruneError(f"{purpose} would get weights that are beyond {layer.weight.dtype}; take a higher damping than "
                         f"{task.solver.damping:g}.")
    by_magnitude = relative_error(problem, Solution(plain, weight * plain), hessians[-1])
    return Reconstruction(solution.mask, new, OutputErrors(relative_error(problem, Solution(solution.mask, new), hessians[-1]),
                                                           by_magnitude))


def relative_error(problem: Problem, solution: Solution, hessian: torch.Tensor) -> float:
    """‖(W − Ŵ)X‖² ÷ ‖WX‖² by XXᵀ."""
    change = as_rows(solution.weight.double(), problem.shape) - problem.rows
    return output_energy(change, hessian) / output_energy(problem.rows, hessian)


def _magnitudes(layer: Layer) -> torch.Tensor:
    return layer.weight.detach().cpu().abs()
