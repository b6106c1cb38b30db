"""The whole demonstration, shortened: a stand-in engine, one pass over the images, one round beside PyTorch."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from stand_in import StandInEngine

import zellige as zl
from zellige.bench.compare import compare
from zellige.demo import story
from zellige.demo.digits import Split, load_digits
from zellige.errors import ZelligeError
from zellige.train import OptimizerOptions, Recipe


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[StandInEngine] = []

    def compile_it(model, inputs, **settings):
        made.append(StandInEngine(model))
        return made[-1]

    monkeypatch.setitem(vars(zl), "compile", compile_it)
    monkeypatch.setitem(vars(zl), "load", lambda path, threads=None: made[-1])
    monkeypatch.setitem(vars(zl), "verify", lambda *_: SimpleNamespace(max_relative_error=1e-7))
    few = tuple(Split(split.images[:40], split.labels[:40]) for split in load_digits())
    monkeypatch.setattr(story, "load_digits", lambda: few)
    monkeypatch.setattr(story, "TRAINING", Recipe(scheme="dense", epochs=2, batch=20))
    monkeypatch.setattr(story, "FINE_TUNING", Recipe(epochs=2, batch=20, optimizer=OptimizerOptions(learning_rate=1e-4)))
    monkeypatch.setattr(story, "LARGE_MODEL", "torchvision:squeezenet1_1")
    monkeypatch.setattr(story, "compare", functools.partial(compare, against=["torch"], rounds=1))


def test_the_story_is_told_and_its_figures_are_kept(
    shortened: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = story.tell(tmp_path / "out", threads=1)
    json.dumps(figures)
    assert set(figures["accuracy"]) == {"dense", "one_shot", "fine_tuned", "compiled"}
    assert all(0 <= share <= 1 for share in figures["accuracy"].values())
    assert figures["accuracy"]["compiled"] == figures["accuracy"]["fine_tuned"]
    assert figures["digits"]["sparsity"] == figures["resnet50"]["sparsity"] == 0.5
    weight = load_file(tmp_path / "out" / "digits.safetensors")["stages.2.second.weight"]
    assert float((weight == 0).float().mean()) == 0.5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "digits.safetensors", "digits.zlg", "digits-bench.json", "resnet50-bench.json",
    }  # fmt: skip
    printed = capsys.readouterr().out
    for expected in ("right after pruning", "after fine-tuning", "saved to", "random (seed 0)", "fastest dense engine"):
        assert expected in printed


def test_a_place_that_cant_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZelligeError, match="can't be made"):
        story.tell(tmp_path / "file" / "out")
