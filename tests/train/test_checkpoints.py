"""Checkpoints: of another run, damaged, or for a disk that is full."""

from __future__ import annotations

import copy
import errno
import os
from pathlib import Path

import pytest
import torch
from small_runs import SAMPLES, Perceptron, network, quiet, recipe, same
from torch import nn

import zellige as zl
from zellige.errors import TrainingError, ZelligeError
from zellige.pack import atomic
from zellige.train import Distillation
from zellige.train.log import Moment


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.checkpoint"
    write = atomic._write
    filled: list[int] = []

    def run_full(moment: Moment) -> None:
        if moment.step == 5:
            filled.append(moment.step)

    def fill(path: str, chunks: object) -> None:
        if filled:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, chunks)  # type: ignore[arg-type]

    monkeypatch.setattr(atomic, "_write", fill)
    with pytest.raises(ZelligeError, match="No space left on device; what was there before is unchanged"):
        zl.finetune(network(), recipe(), SAMPLES, progress=run_full, checkpoint=file)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["run.checkpoint"]
    whole, again = network(), network()
    zl.finetune(whole, recipe(), SAMPLES, progress=quiet)
    zl.finetune(again, recipe(), SAMPLES, progress=quiet, checkpoint=file, resume=True)
    assert same(whole, again)


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.checkpoint"
    options = {"progress": quiet, "checkpoint": file}
    zl.finetune(network(), recipe(), SAMPLES, **options)
    zl.finetune(network(), recipe(checkpoint_every=2), SAMPLES, **options, resume=True)  # how often is of no consequence
    with pytest.raises(TrainingError, match="another recipe: sparsity, seed changed"):
        zl.finetune(network(), recipe(sparsity=0.25, seed=1), SAMPLES, **options, resume=True)
    with pytest.raises(TrainingError, match="another model"):
        zl.finetune(Perceptron(), recipe(), SAMPLES, **options, resume=True)
    taught = recipe(distillation=Distillation())
    zl.finetune(network(), taught, SAMPLES, **options)
    other = network()
    other.head.bias.data.add_(1)  # type: ignore[union-attr, operator]
    with pytest.raises(TrainingError, match="learns from another dense model"):
        zl.finetune(other, taught, SAMPLES, **options, resume=True)
    file.write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="can't be read"):
        zl.finetune(network(), recipe(), SAMPLES, **options, resume=True)
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        zl.finetune(network(), recipe(), SAMPLES, progress=quiet, checkpoint=tmp_path / "other", resume=True)


def test_a_checkpoint_that_does_not_fit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    file, whole = tmp_path / "run.checkpoint", recipe(steps=6, distillation=Distillation(features=1.0, layers=["body"]))
    zl.finetune(network(), whole, SAMPLES, progress=quiet, checkpoint=file, teacher=network())
    state = torch.load(file, weights_only=True)

    def refused(model: nn.Module, **changes: object) -> str:
        torch.save({**state, **changes}, file)
        before = copy.deepcopy(model)
        with pytest.raises(TrainingError) as refusal:
            zl.finetune(model, whole, SAMPLES, progress=quiet, checkpoint=file, resume=True, teacher=network())
        assert same(model, before)
        assert not any(module._forward_hooks for module in model.modules())  # a recipe that distils has listeners
        return str(refusal.value)

    wider = network()
    wider.head = nn.Linear(32, 5)  # what comes before it fits, and may have been loaded
    assert "another model, or is damaged: RuntimeError: size mismatch for head.bias" in refused(wider)
    other = network()
    other.head.weight.data.neg_()  # type: ignore[union-attr, operator]
    for damaged in ({"optimizer": {}}, {"history": [{}]}, {"training": {**state["training"], "masks": {}, "step": "x"}},
                    {"training": {**state["training"], "scheme": None}}):
        assert "is damaged" in refused(other, **damaged)
    assert "no checkpoint of a run" in refused(other, recipe=3)
    assert "of this version" in refused(other, version=torch.zeros(3))
    torch.save({"version": state["version"]}, file)
    with pytest.raises(TrainingError, match="parts are missing"):
        zl.finetune(other, whole, SAMPLES, progress=quiet, checkpoint=file, resume=True, teacher=network())


def test_a_bit_that_flipped_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """PyTorch's reader compares no checksums."""
    file, model = tmp_path / "run.checkpoint", network()
    zl.finetune(network(), recipe(), SAMPLES, progress=quiet, checkpoint=file)
    content = bytearray(file.read_bytes())
    weight = torch.load(file, weights_only=True)["model"]["head.weight"]
    content[content.index(weight.numpy().tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(TrainingError, match=r"was damaged after it was written: .* go on from a copy"):
        zl.finetune(model, recipe(), SAMPLES, progress=quiet, checkpoint=file, resume=True)
    assert same(model, network())
