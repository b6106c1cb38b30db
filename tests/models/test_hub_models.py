"""``hf:`` with a directory that ``save_pretrained`` wrote: nothing is downloaded."""

from pathlib import Path

import pytest
import torch

import zellige as zl
from zellige.errors import ZelligeError
from zellige.models import resolve

transformers = pytest.importorskip("transformers", reason="transformers is not installed: hf: can't be tested")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A residual network of two stages with weights that nobody trained."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=5)
    return transformers.ResNetForImageClassification(config).eval()


@pytest.fixture(scope="module")
def directory(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "resnet"
    network.save_pretrained(path)
    return path


def test_pixels_in_logits_out(network: torch.nn.Module, directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    named = resolve(f"hf:{directory}", batch=2)
    assert capfd.readouterr().err == ""  # bars belong on a terminal
    assert named.example_inputs[0].shape == (2, 3, 224, 224) and not named.random_weights and not named.model.training
    x = resolve(f"hf:{directory}", batch=2, shape=(3, 40, 36)).example_inputs[0]
    assert x.shape == (2, 3, 40, 36)
    with torch.no_grad():
        assert torch.equal(named.model(x), network(pixel_values=x).logits)


def test_it_is_pruned_and_compiled_like_any_other(directory: Path) -> None:
    named = resolve(f"hf:{directory}", shape=(3, 40, 40))
    assert zl.prune(named.model, zl.Block(8, 8), 0.5, example_inputs=named.example_inputs).totals.removed
    engine = zl.compile(named.model, named.example_inputs)
    assert zl.verify(named.model, engine, named.example_inputs).max_relative_error < 1e-5


def test_the_config_says_how_large_images_are(directory: Path, tmp_path: Path) -> None:
    config = transformers.ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    for size, shape in ((48, (1, 1, 48, 48)), ((24, 32), (1, 1, 24, 32))):
        config.image_size = size
        transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
        assert resolve(f"hf:{tmp_path}").example_inputs[0].shape == shape


def test_directories_that_hold_no_model(tmp_path: Path) -> None:
    for content in (None, "no JSON", "{}"):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ZelligeError, match=rf"hf:{tmp_path} can't be loaded, neither as a model of the hub nor as a directory"):
            resolve(f"hf:{tmp_path}")
