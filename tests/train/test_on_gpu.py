"""The loop on a GPU, where there is one: zeros at every step in every precision, and masks that a CPU chooses too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import zellige as zl
from zellige.train import OptimizerOptions, Recipe
from zellige.train.log import Moment

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(96, 3, 12, 12, generator=GENERATOR)
LABELS = (IMAGES.mean((1, 2, 3)) > 0).long()
SAMPLES = list(zip(IMAGES, LABELS, strict=True))
SCHEMES = ("fixed", "gradual", "regrow", "penalty", "lasso", {"name": "ste", "every": 2})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 16), nn.Dropout(0.1), nn.Linear(16, 2))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().cpu() for name, parameter in model.named_parameters() if parameter.dim() > 1}


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_zeros_stay_and_the_network_learns(scheme: object, precision: str) -> None:
    model = network()
    zeros: list[float] = []

    def watch(moment: Moment) -> None:
        layers = [weight for name, weight in weights(model).items() if name != "0.weight"]
        zeros.append(sum(int((weight == 0).sum()) for weight in layers) / sum(weight.numel() for weight in layers))

    recipe = Recipe(pattern="block:4x4", sparsity=0.5, scheme=scheme, ignore="0", steps=60, batch=16, average=0.5, accumulate=2,
                    precision=precision, clip=1.0, optimizer=OptimizerOptions(learning_rate=5e-3))
    result = zl.finetune(model, recipe, (SAMPLES, SAMPLES), progress=watch)
    assert next(model.parameters()).is_cuda and zeros[-1] > 0.49 and (scheme != "fixed" or min(zeros) > 0.49)
    assert (result.accuracy or 0) > 0.65 and all(bool(weight.isfinite().all()) for weight in weights(model).values())


def test_masks_are_those_that_a_cpu_chooses() -> None:
    trained, pruned = network(), network()
    zl.finetune(trained, Recipe(pattern="block:4x4", sparsity=0.5, steps=3, batch=16), SAMPLES, progress=lambda moment: None)
    zl.prune(pruned, "block:4x4", 0.5)
    for name, weight in weights(pruned).items():
        assert torch.equal(weights(trained)[name] == 0, weight == 0), name


def test_a_run_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    """Kernels add in any order on a GPU, so weights are close instead of equal; masks are equal."""
    options = Recipe(pattern="block:4x4", sparsity=0.5, scheme="gradual", steps=12, batch=16, checkpoint_every=4, precision="f16")
    whole, killed = network(), network()
    zl.finetune(whole, options, SAMPLES, progress=lambda moment: None)
    file = tmp_path / "run.checkpoint"

    def kill(moment: Moment) -> None:
        if moment.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zl.finetune(killed, options, SAMPLES, progress=kill, checkpoint=file)
    again = network()
    zl.finetune(again, options, SAMPLES, progress=lambda moment: None, checkpoint=file, resume=True)
    for name, weight in weights(whole).items():
        assert torch.allclose(weights(again)[name], weight, rtol=1e-2, atol=1e-4), name
        assert torch.equal(weights(again)[name] == 0, weight == 0), name
