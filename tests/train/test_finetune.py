"""The loop: it learns, keeps zeros, can be interrupted anywhere, and stops where it should."""

from __future__ import annotations

import copy
import csv
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from small_runs import Perceptron, batch
from torch import nn

import zellige as zl
from zellige.errors import RecipeError, TrainingError, ZelligeError
from zellige.pack import atomic
from zellige.train import Data, Distillation, OptimizerOptions, Recipe, SparseTraining
from zellige.train.data.samples import DatasetSamples
from zellige.train.distillation import logits_loss, square_head
from zellige.train.log import Moment
from zellige.train.precision import Precision
from zellige.train.schemes import Gradual, Regrow, Scheme, Stages, Ste

SAMPLES = [(x, y) for x, y in zip(*batch(0, samples=96), strict=True)]
TEST = [(x, y) for x, y in zip(*batch(1, samples=40), strict=True)]


class Droopy(Perceptron):
    """With dropout and a batch norm: randomness and buffers that a checkpoint must account for."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 32), nn.ReLU())


def network() -> nn.Module:
    torch.manual_seed(0)
    return Droopy()


def recipe(scheme: Scheme | str = "fixed", **changes: object) -> Recipe:
    options = {"pattern": "block:4x4", "sparsity": 0.5, "steps": 20, "batch": 16, "evaluate_every": 6, "checkpoint_every": 4,
               "optimizer": OptimizerOptions(learning_rate=1e-2)} | changes
    return Recipe(scheme=scheme, **options)  # type: ignore[arg-type]


def quiet(moment: Moment) -> None:
    pass


def same(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


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


@pytest.mark.parametrize("arguments, said", [
    ({"recipe": recipe(batch=200)}, "lower batch"), ({"recipe": recipe(accumulate=3)}, "make batch a multiple of 3"),
    ({"resume": True}, "which checkpoint"), ({"log": "run.txt"}, "ends in .csv or .json"),
    ({"log": "no/such/log.csv"}, "no directory"),
    ({"checkpoint": "no/such/checkpoint"}, "no directory"), ({"model": "resnet"}, "takes a torch.nn.Module"),
    ({"data": [(torch.zeros(16), torch.zeros(2, dtype=torch.long))] * 20}, "logits of shape"),
    ({"data": [torch.zeros(16)] * 20}, "a pair of inputs and labels"),
])
def test_what_does_not_fit_is_refused(arguments: dict[str, object], said: str) -> None:
    whole = {"model": Perceptron(), "recipe": recipe(), "data": SAMPLES, "progress": quiet} | arguments
    with pytest.raises(ZelligeError, match=said):
        zl.finetune(**whole)  # type: ignore[arg-type]


def test_layers_of_distillation_must_be_there() -> None:
    with pytest.raises(RecipeError, match="legs"):
        zl.finetune(network(), recipe(distillation=Distillation(features=1.0, layers=["legs"])), SAMPLES, progress=quiet)


def test_a_recipe_can_be_used_again() -> None:
    options = recipe(Gradual())
    models = [network(), network()]
    for model in models:
        zl.finetune(model, options, SAMPLES, progress=quiet)
    assert same(*models) and options.scheme == Gradual()
    assert copy.deepcopy(options) == options


def _frozen() -> nn.Module:
    return Perceptron().requires_grad_(False)


def _nowhere() -> nn.Module:
    with torch.device("meta"):
        return Perceptron()


def _failing(model: nn.Module, pair: object) -> torch.Tensor:
    raise KeyError("labels")


@pytest.mark.parametrize("arguments, said", [
    ({"data": [(x[:3], y) for x, y in SAMPLES]}, r"can't run on a batch of torch.float32 of \(16, 3\): RuntimeError"),
    ({"data": [(x.double(), y) for x, y in SAMPLES]}, "can't run on a batch of torch.float64"),
    ({"data": [{"pixels": x, "labels": y} for x, y in SAMPLES]}, "a batch of pixels torch.float32 of .*, labels torch.int64 of"),
    ({"data": [(x, y.float()) for x, y in SAMPLES]}, "whole numbers, those of their classes; these are torch.float32"),
    ({"data": [(x, f"class {int(y)}") for x, y in SAMPLES]}, "whole numbers, those of their classes; these are (list|tuple)"),
    ({"data": [(x, y + 4) for x, y in SAMPLES]}, "logits of 4 classes, and labels lie between 4 and 7"),
    ({"data": [(x[:int(y) + 1], y) for x, y in SAMPLES]}, "samples can't be put into a batch"),
    ({"data": type("Torn", (list,), {"__getitem__": lambda self, number: 1 // 0})(SAMPLES)}, "fails to give sample .*ZeroDivision"),
    ({"data": (SAMPLES, [])}, "no samples to validate by"),
    ({"loss": _failing}, "the loss fails on a batch: KeyError: 'labels'"),
    ({"loss": lambda model, pair: model(pair[0])}, r"a tensor of one number.*not torch.float32 of \(16, 4\)"),
    ({"loss": lambda model, pair: 1.0}, "a tensor of one number.*not float"),
    ({"loss": lambda model, pair: model(pair[0]).mean().detach()}, "depends on no weight that is trained"),
    ({"model": _frozen()}, "nothing to train"), ({"model": _nowhere()}, "meta device"),
    ({"model": Perceptron().half()}, "float16, in which an optimiser's steps are lost"),
    ({"recipe": None}, "path of a file"),
])
def test_what_a_user_s_own_code_and_data_get_wrong_is_one_error(arguments: dict[str, object], said: str) -> None:
    whole = {"model": Perceptron(), "recipe": recipe(), "data": SAMPLES, "progress": quiet} | arguments
    with pytest.raises(ZelligeError, match=said):
        zl.finetune(**whole)  # type: ignore[arg-type]


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


def test_a_teacher_that_lacks_a_layer_leaves_no_listener() -> None:
    model, options = network(), recipe(distillation=Distillation(features=1.0, layers=["body"]))
    with pytest.raises(RecipeError, match="body"):
        zl.finetune(model, options, SAMPLES, progress=quiet, teacher=nn.Sequential(nn.Linear(16, 4)))
    assert not any(module._forward_hooks for module in model.modules())
