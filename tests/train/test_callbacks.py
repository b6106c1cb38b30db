"""Callbacks in the real Trainers of transformers and Lightning: zeros, sparsity, and runs that are taken up again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Perceptron, batch
from torch import nn

from zellige.errors import PruneError, RecipeError, TrainingError
from zellige.train.callbacks.pruning import Pruning
from zellige.train.schemes import Gradual, Ste

SAMPLES = [{"pixels": x, "labels": y} for x, y in zip(*batch(0, samples=64), strict=True)]


class Classifier(Perceptron):
    """As transformers' models answer."""

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:  # type: ignore[override]
        logits = super().forward(pixels)
        return {"logits": logits} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def sparsity(model: nn.Module) -> float:
    zeros = [parameter == 0 for name, parameter in model.named_parameters() if parameter.dim() > 1]
    return float(torch.cat([zero.flatten() for zero in zeros]).double().mean())


def hugging_face(directory: Path, scheme: Any, resume: bool = False, **settings: Any) -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: its callback is not tested")
    from zellige.train.callbacks.transformers import SparseCallback

    torch.manual_seed(0)
    model = Classifier()
    options = {"max_steps": 12, "save_steps": 5, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "seed": 0,
               "learning_rate": 1e-2, "report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_steps": 100,
               "save_safetensors": True} | settings
    known = transformers.TrainingArguments.__dataclass_fields__
    arguments = transformers.TrainingArguments(str(directory), **{name: value for name, value in options.items() if name in known})
    callback = SparseCallback(Pruning("block:4x4", 0.5, scheme))

    def judge(prediction: Any) -> dict[str, float]:
        return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}

    trainer = transformers.Trainer(model, arguments, train_dataset=SAMPLES, eval_dataset=SAMPLES[:16], callbacks=[callback],
                                   compute_metrics=judge)
    trainer.train(resume_from_checkpoint=str(directory / "checkpoint-5") if resume else None)
    return model, callback


@pytest.mark.parametrize("scheme", ["fixed", Gradual(cuts=4), Ste(every=2)])
def test_the_trainer_of_transformers(tmp_path: Path, scheme: Any) -> None:
    model, callback = hugging_face(tmp_path, scheme)
    assert sparsity(model) == 0.5 and callback.training.step == 12
    shutil.rmtree(tmp_path / "checkpoint-10")
    again, _ = hugging_face(tmp_path, scheme, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_stages_ask_the_trainer_for_evaluations(tmp_path: Path) -> None:
    scheme = {"name": "stages", "floor": 0.0, "mini": 2, "stages": [0.25]}
    model, callback = hugging_face(tmp_path, scheme, save_strategy="no")
    assert sparsity(model) == 0.5 and callback.training.scheme.at == 2
    with pytest.raises(TrainingError, match=r"zellige\.checkpoint to go on from"):
        model, _ = hugging_face(tmp_path / "other", "fixed")
        (tmp_path / "other" / "checkpoint-5" / "zellige.checkpoint").unlink()
        hugging_face(tmp_path / "other", "fixed", resume=True)


def with_lightning(directory: Path, scheme: Any, resume: Path | None = None, steps: int = 12, **settings: Any) -> tuple[Any, Any]:
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed: its callback is not tested")
    from zellige.train.callbacks.lightning import SparseCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Perceptron()

        def training_step(self, pair: Any, number: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.model(pair[0]), pair[1])

        def validation_step(self, pair: Any, number: int) -> None:
            self.log("val_accuracy", (self.model(pair[0]).argmax(1) == pair[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    pairs = [(sample["pixels"], sample["labels"]) for sample in SAMPLES]
    loader = torch.utils.data.DataLoader(pairs, batch_size=8)  # type: ignore[arg-type, var-annotated]
    torch.manual_seed(0)
    module, callback = Module(), SparseCallback(Pruning("block:4x4", 0.5, scheme))
    saving = lightning.callbacks.ModelCheckpoint(directory, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    options = {"max_steps": 12, "accumulate_grad_batches": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
               "enable_model_summary": False, "devices": 1} | settings
    trainer = lightning.Trainer(callbacks=[callback, saving], **options)
    trainer.fit(module, loader, loader, ckpt_path=resume, weights_only=True)
    return module, callback


@pytest.mark.parametrize("scheme", ["fixed", Gradual(cuts=4), Ste(every=2)])
def test_the_trainer_of_lightning(tmp_path: Path, scheme: Any) -> None:
    module, callback = with_lightning(tmp_path, scheme)
    assert sparsity(module) == 0.5 and callback.training.step == 12
    again, _ = with_lightning(tmp_path / "again", scheme, resume=tmp_path / "step=4.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_stages_hear_of_lightnings_validations(tmp_path: Path) -> None:
    scheme = {"name": "stages", "floor": 0.0, "mini": 1, "stages": [0.25]}
    module, callback = with_lightning(tmp_path, scheme, val_check_interval=2, num_sanity_val_steps=2)
    assert sparsity(module) == 0.5 and callback.training.scheme.at == 2


def test_what_callbacks_refuse() -> None:
    with pytest.raises(RecipeError, match="less than 1"):
        Pruning("block:4x4", 1.0)
    with pytest.raises(RecipeError, match="scheme must be one of"):
        Pruning("block:4x4", 0.5, "sudden")
    model = Perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="one optimiser, and there are 2"):
        Pruning("block:4x4", 0.5).training(model, [optimizer, optimizer], 10)
    with pytest.raises(TrainingError, match="how many steps"):
        Pruning("block:4x4", 0.5).training(model, optimizer, float("inf"))
    with pytest.raises(PruneError, match="legs"):
        Pruning("block:4x4", 0.5, targets=["legs"]).training(model, optimizer, 10)
