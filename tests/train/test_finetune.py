"""The loop: it learns, keeps zeros, can be interrupted anywhere, and stops where it should."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import pytest
import torch
from small_runs import SAMPLES, TEST, Perceptron, batch, network, quiet, recipe, same
from torch import nn

import zellige as zl
from zellige.errors import TrainingError
from zellige.train import Data, Distillation, OptimizerOptions, SparseTraining
from zellige.train.data.samples import DatasetSamples
from zellige.train.distillation import logits_loss, square_head
from zellige.train.log import Moment
from zellige.train.precision import Precision
from zellige.train.schemes import Gradual, Regrow, Scheme, Stages, Ste


def test_a_network_learns_and_its_zeros_stay() -> None:
    model = network()
    zl.prune(model, "block:4x4", 0.5)
    zeros = {name: parameter == 0 for name, parameter in model.named_parameters() if parameter.dim() > 1}
    seen: list[Moment] = []

    def watch(moment: Moment) -> None:
        seen.append(moment)
        for name, parameter in model.named_parameters():
            if name in zeros:
                assert torch.equal(parameter == 0, zeros[name])

    result = zl.finetune(model, recipe(pattern=None, sparsity=None, steps=60), (SAMPLES, TEST), progress=watch)
    assert [moment.step for moment in seen] == list(range(1, 61)) and not model.training
    assert result.sparsity == 0.5 and (result.accuracy or 0) > 0.5
    first, last = result.history[0], result.history[-1]
    assert (last.loss or 9) < (first.loss or 0) and last.step == 60 and last.epoch == 10
    with torch.no_grad():
        x, y = batch(1, samples=40)
        assert result.accuracy == float((model(x).argmax(1) == y).double().mean())
        assert abs((result.loss or 0) - float(nn.functional.cross_entropy(model(x), y))) < 1e-5
    json.dumps(result.as_dict(), allow_nan=False)
    assert "after 60 steps" in str(result)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("scheme, killed_at", [
    (Gradual(shape="rest", until=0.7), 2), (Gradual(shape="rest", until=0.7), 13), (Regrow(every=3), 10), (Ste(), 5),
    (Stages(floor=0.1, mini=3, patience=2), 9), ("penalty", 7), ("lasso", 13),
])
def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path, scheme: Scheme | str, killed_at: int) -> None:
    """After a step, between two checkpoints or before the first one: with averages, dropout, accumulation, and a teacher."""
    precision = "f16" if killed_at == 13 else "f32"
    options = recipe(scheme, average=0.8, accumulate=2, label_smoothing=0.1, distillation=Distillation(), precision=precision)
    whole, file = network(), tmp_path / "run.checkpoint"
    told = zl.finetune(whole, options, (SAMPLES, TEST), progress=quiet, log=tmp_path / "whole.csv")

    def kill(moment: Moment) -> None:
        if moment.step == killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        zl.finetune(network(), options, (SAMPLES, TEST), progress=kill, checkpoint=file, log=tmp_path / "run.csv")
    again = network()
    torch.manual_seed(killed_at)  # what else happened in the process has no say
    result = zl.finetune(again, options, (SAMPLES, TEST), progress=quiet, checkpoint=file, resume=file.exists(),
                         log=tmp_path / "run.csv")
    assert file.exists() and same(whole, again)
    figures = [[row.as_dict() | {"seconds": 0} for row in rows] for rows in (told.history, result.history)]
    assert figures[0] == figures[1]
    tables = [list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("whole", "run")]
    assert [row | {"seconds": ""} for row in tables[0]] == [row | {"seconds": ""} for row in tables[1]]


def test_the_average_is_the_result_and_has_the_zeros() -> None:
    model, plain = network(), network()
    zl.finetune(model, recipe(average=0.9), SAMPLES, progress=quiet)
    zl.finetune(plain, recipe(), SAMPLES, progress=quiet)
    assert not same(model, plain)
    for layer in (model.body[0], model.body[4]):
        assert float((layer.weight == 0).double().mean()) == 0.5


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    models = [Perceptron(), Perceptron()]
    models[1].load_state_dict(models[0].state_dict())
    for model, parts in zip(models, (1, 4), strict=True):
        zl.finetune(model, recipe(steps=3, accumulate=parts, optimizer=OptimizerOptions(name="sgd")), SAMPLES, progress=quiet)
    for left, right in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(left, right, rtol=1e-5, atol=1e-7)


def test_bfloat16_autocast_and_clipping() -> None:
    model, kinds = network(), []
    model.body[0].register_forward_hook(lambda module, inputs, output: kinds.append((module.training, output.dtype)))
    zl.finetune(model, recipe(precision="bf16", clip=0.1), SAMPLES, progress=quiet)
    assert {kind for training, kind in kinds if training} == {torch.bfloat16}
    assert model.body[0].weight.dtype == torch.float32 and float((model.body[0].weight == 0).double().mean()) == 0.5


def test_float16_gradients_are_finite_at_every_step_and_none_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs so large that gradients overflow at the first scales: the batch is done again, and the scheme sees numbers alone."""
    samples = [(400 * x, y) for x, y in SAMPLES]
    options = recipe(Regrow(every=3), precision="f16", clip=1.0, steps=8)
    done: list[int] = []
    began = Precision.unscaled

    def unscaled(self: Precision, optimizer: torch.optim.Optimizer) -> bool:
        done.append(began(self, optimizer))
        return bool(done[-1])

    before = Regrow.before_step

    def before_step(self: Regrow, training: SparseTraining) -> None:
        assert all(bool(parameter.grad.isfinite().all()) for parameter in training.model.parameters() if parameter.grad is not None)
        before(self, training)

    monkeypatch.setattr(Precision, "unscaled", unscaled)
    monkeypatch.setattr(Regrow, "before_step", before_step)
    model, kinds = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), set()
    model[0].register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype) if module.training else None)
    file, seen = tmp_path / "run.checkpoint", []
    zl.finetune(model, options, samples, progress=lambda moment: seen.append(moment.step), checkpoint=file)
    assert seen == list(range(1, 9)) and sum(done) == 8 and not all(done) and kinds == {torch.float16}
    assert model[0].weight.dtype == torch.float32 and float((model[0].weight == 0).double().mean()) >= 0.5
    assert torch.load(file, weights_only=True)["precision"]["scale"] == 2.0 ** (16 - done.count(False))


def test_gradients_that_overflow_at_any_scale_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Precision, "unscaled", lambda self, optimizer: self._scaler.unscale_(optimizer) or self._scaler.update())
    monkeypatch.setattr(Precision, "spent", property(lambda self: True))
    with pytest.raises(TrainingError, match="step 1: gradients overflow in f16"):
        zl.finetune(network(), recipe(precision="f16"), SAMPLES, progress=quiet)


def test_workers_change_nothing() -> None:
    model, other = network(), network()
    zl.finetune(model, recipe(steps=4), SAMPLES, progress=quiet)
    zl.finetune(other, recipe(steps=4, workers=2), SAMPLES, progress=quiet)
    assert same(model, other)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    samples = [(x, y) for x, y in SAMPLES]
    file = tmp_path / "run.checkpoint"
    model = network()
    poisoned = [(torch.full_like(x, torch.nan), y) for x, y in samples]

    def poison(moment: Moment) -> None:
        if moment.step == 9:
            samples[:] = poisoned

    data = Data("given", DatasetSamples(samples))  # type: ignore[arg-type]
    with pytest.raises(TrainingError) as stopped:
        zl.finetune(model, recipe(), data, progress=poison, checkpoint=file)
    said = str(stopped.value)
    assert said.startswith("step 10: the loss is nan (batch 4 of epoch 2, samples ") and f"last good checkpoint is {file}" in said
    assert torch.load(file, weights_only=True)["training"]["step"] == 8
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    with pytest.raises(TrainingError, match="there is no checkpoint yet"):
        zl.finetune(network(), recipe(), (poisoned,), progress=quiet)


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    model, file = network(), tmp_path / "run.checkpoint"

    def spoil(moment: Moment) -> None:
        if moment.step == 6:
            model.head.bias.data.fill_(torch.inf)  # type: ignore[union-attr, operator]

    with pytest.raises(TrainingError, match="step 7: the loss"):
        zl.finetune(model, recipe(), SAMPLES, progress=spoil, checkpoint=file)
    assert torch.load(file, weights_only=True)["training"]["step"] == 4


def test_stages_go_by_the_accuracy() -> None:
    model = network()
    result = zl.finetune(model, recipe(Stages(floor=0.0, mini=2), evaluate_every=100), (SAMPLES, TEST), progress=quiet)
    assert result.sparsity == 0.5 and [row.step for row in result.history if row.accuracy is not None] == [2, 4, 6, 20]
    with pytest.raises(TrainingError, match="goes by the accuracy"):
        zl.finetune(network(), recipe("stages"), SAMPLES, progress=quiet)
    stubborn = zl.finetune(network(), recipe(Stages(floor=1.0, mini=2, patience=1)), (SAMPLES, TEST), progress=quiet)
    assert stubborn.sparsity == 0.0


def test_distillation_pulls_towards_the_teacher() -> None:
    torch.manual_seed(1)
    teacher = Perceptron().eval()
    distances = {}
    x, _ = batch(1, samples=40)
    for name, wanted in {
        "labels": None,
        "logits": Distillation(labels=0.0),
        "features": Distillation(labels=0.0, logits=0.0, features=1.0, layers=["body", "re:head$"]),
    }.items():
        model = Perceptron()
        model.load_state_dict(teacher.state_dict())
        zl.finetune(model, recipe(distillation=wanted, steps=40), SAMPLES, progress=quiet, teacher=teacher)
        distances[name] = float((model(x) - teacher(x)).square().mean())
        assert not model._forward_hooks and not model.body._forward_hooks  # type: ignore[union-attr]
    assert distances["logits"] < distances["labels"] / 2 and distances["features"] < distances["labels"] / 2
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_losses_of_distillation_against_their_definitions() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7, 3).double(), torch.randn(5, 7, 3).double()
    p, q = torch.softmax(teacher / 3, -1), torch.softmax(student / 3, -1)
    expected = 9 * float((p * (p / q).log()).sum(-1).mean())
    assert abs(float(logits_loss(student, teacher, 3.0)) - expected) < 1e-5
    assert abs(float(square_head(student, teacher)) - float(((student - teacher) ** 2).sum() / (teacher**2).sum())) < 1e-6


def test_losses_of_ones_own_and_dicts() -> None:
    model = nn.Linear(16, 3)
    pairs = [(x, x[:3]) for x, _ in SAMPLES]

    def squared(network: nn.Module, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return nn.functional.mse_loss(network(pair[0]), pair[1])

    result = zl.finetune(model, recipe(steps=60, pattern="unstructured"), (pairs, pairs[:8]), loss=squared, progress=quiet)
    assert result.accuracy is None and (result.loss or 9) < 0.8

    class Classifier(Perceptron):
        def forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> object:  # type: ignore[override]
            logits = super().forward(pixels)
            return type("Output", (), {"logits": logits, "loss": nn.functional.cross_entropy(logits, labels)})

    dicts = [{"pixels": x, "labels": y} for x, y in SAMPLES]
    told = zl.finetune(Classifier(), recipe(), (dicts, dicts), progress=quiet)
    assert told.accuracy is not None and told.accuracy > 0.3


def test_scores_that_look_at_data_get_some() -> None:
    model, reference = Perceptron(), Perceptron()
    reference.load_state_dict(model.state_dict())
    result = zl.finetune(model, recipe(score="taylor", steps=1, calibration=2), SAMPLES, progress=quiet)
    assert result.sparsity == 0.5


def test_text_is_learnt_in_bits_per_byte(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"abcdefgh" * 400)
    model = nn.Sequential(nn.Embedding(256, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 256))
    result = zl.finetune(model, recipe(steps=60, data={"context": 8}), f"text:{tmp_path / 'text'}", progress=quiet)
    assert result.history[-1].bits is not None and result.history[-1].bits < 2 and (result.accuracy or 0) > 0.8
    assert result.sparsity == 0.5


def test_logs(tmp_path: Path) -> None:
    result = zl.finetune(network(), recipe(), (SAMPLES, TEST), progress=quiet, log=tmp_path / "run.json")
    rows = json.loads((tmp_path / "run.json").read_text())
    assert rows == [row.as_dict() for row in result.history] and len(rows) == 20
    assert [row["step"] for row in rows if row["accuracy"] is not None] == [6, 12, 18, 20]


def test_tensorboard_or_a_word_that_it_is_missing(tmp_path: Path) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(TrainingError, match="pip install tensorboard"):
            zl.finetune(network(), recipe(), SAMPLES, progress=quiet, tensorboard=str(tmp_path / "board"))
        return
    zl.finetune(network(), recipe(), SAMPLES, progress=quiet, tensorboard=str(tmp_path / "board"))
    assert list((tmp_path / "board").glob("events*"))


def test_a_recipe_can_be_used_again() -> None:
    options = recipe(Gradual())
    models = [network(), network()]
    for model in models:
        zl.finetune(model, options, SAMPLES, progress=quiet)
    assert same(*models) and options.scheme == Gradual()
    assert copy.deepcopy(options) == options
