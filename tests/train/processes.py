"""What a rank of ``test_processes.py`` does: gloo on the CPU, started by torchrun with the directory for its findings."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from small_runs import OPTIMIZERS, Perceptron, batch, half_masks
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from zellige.patterns import Block, Unstructured
from zellige.train import OptimizerOptions, Recipe, Sparsifier, finetune
from zellige.train.choice import Choice, Wish
from zellige.train.schemes import Gradual, Regrow, Scheme, Stages, Ste
from zellige.train.sparsifier import zero_masks
from zellige.train.training import SparseTraining

SAMPLES, STEPS = 8, 12


def loss_of(model: nn.Module, step: int, rank: int = 0, ranks: int = 1) -> torch.Tensor:
    x, y = batch(step, SAMPLES)
    own = slice(rank * SAMPLES // ranks, (rank + 1) * SAMPLES // ranks)
    return nn.functional.cross_entropy(model(x[own]), y[own])


def replicated(scheme: Scheme, rank: int, ranks: int) -> dict[str, object]:
    """A run under a scheme, wrapped for data parallelism if there is more than one rank."""
    torch.manual_seed(0)
    model = Perceptron()
    wrapped = DistributedDataParallel(model) if ranks > 1 else model
    choice = Choice(wrapped, Wish(Block(4, 4), 0.5))
    training = SparseTraining(wrapped, scheme, choice, OPTIMIZERS["adamw"](model.parameters()), STEPS)
    training.begin()
    losses = []
    for step in range(STEPS):
        training.optimizer.zero_grad()
        loss = loss_of(wrapped, step, rank, ranks)
        loss.backward()
        training.before_step()
        training.optimizer.step()
        training.after_step()
        if ranks > 1:
            torch.distributed.all_reduce(loss.detach())
        losses.append(float(loss.detach()) / ranks)
    assert training.finish() is model
    return {"losses": losses, "masks": training.sparsifier.masks, "weights": dict(model.state_dict())}


def sharded(rank: int, ranks: int) -> dict[str, object]:
    """Fully sharded parameters, masks that stay and masks that are chosen while sharded."""
    torch.manual_seed(0)
    model = Perceptron()
    choice = Choice(model, Wish(Unstructured(), 0.5))
    masks = half_masks(model)
    for layer in (model.body[0], model.body[3], model.head, model):
        fully_shard(layer)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    assert isinstance(model.head.weight, DTensor)
    sparsifier = Sparsifier(model, masks, optimizer)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, step, rank, ranks).backward()
        optimizer.step()
        sparsifier.step()
        for name, mask in masks.items():
            assert bool((model.get_parameter(name).full_tensor()[~mask] == 0).all()), name
    training = SparseTraining(model, Gradual(until=0.5, cuts=3), choice, optimizer, 6)
    training.begin()
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, step, rank, ranks).backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    training.finish()
    return {"masks": training.sparsifier.masks, "weights": {name: p.full_tensor() for name, p in model.named_parameters()}}


def finetuned() -> dict[str, object]:
    """The loop, on as many processes as there are; with scores that look at data, and an accuracy that the scheme goes by."""
    torch.manual_seed(0)
    model = Perceptron()
    samples, validation = (list(zip(*batch(seed, samples=count), strict=True)) for seed, count in ((0, 96), (1, 37)))
    recipe = Recipe(pattern="block:4x4", sparsity=0.5, scheme=Stages(floor=0.3, mini=3, patience=2), score="taylor", steps=24,
                    batch=16, accumulate=2, evaluate_every=8, clip=1.0, optimizer=OptimizerOptions(learning_rate=1e-2))
    result = finetune(model, recipe, (samples, validation), progress=lambda moment: None)
    return {"masks": zero_masks(model), "weights": dict(model.state_dict()), "accuracy": result.accuracy,
            "losses": [row.loss for row in result.history], "validation": result.loss, "sparsity": result.sparsity}


def main(directory: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = {
        "gradual": replicated(Gradual(until=0.5, cuts=4), rank, ranks),
        "regrow": replicated(Regrow(every=3), rank, ranks),
        "ste": replicated(Ste(every=2), rank, ranks),
        "sharded": sharded(rank, ranks),
        "finetune": finetuned(),
    }
    torch.save(found, directory / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
