"""Recipes: what they resolve to, and what is refused, with the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from small_runs import Perceptron, batch

import zellige as zl
from zellige.errors import RecipeError
from zellige.train import Distillation, OptimizerOptions, Recipe
from zellige.train.schemes import SCHEMES, Gradual

FULL = """\
# three quarters, little by little
pattern: block:8x8
sparsity: 0.75
scheme:
  name: gradual
  shape: rest
  rate: 0.1
epochs: 8
optimizer: {name: sgd, learning_rate: 1e-3}
distillation:
  logits: 0.5
  features: 2
  layers: ["re:body"]
ignore: [head]
data:
  fold: 2
"""


def read(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(text)
    return Recipe.read(tmp_path / "recipe.yaml")


def test_files_and_python_mean_the_same(tmp_path: Path) -> None:
    expected = Recipe(pattern=zl.Block(8, 8), sparsity=0.75, scheme=Gradual(shape="rest", rate=0.1), epochs=8, ignore=["head"],
                      optimizer=OptimizerOptions(name="sgd", learning_rate=1e-3), data={"fold": 2},
                      distillation=Distillation(logits=0.5, features=2.0, layers=["re:body"]))
    assert read(tmp_path, FULL) == expected
    assert Recipe(**yaml.safe_load(FULL)) == expected  # the same keys in Python, mappings for what has keys of its own
    for wrong, said in (({"optimizer": {"nam": "sgd"}}, "did you mean 'name'"), ({"optimizer": "sgd"}, "optimizer must be keys"),
                        ({"distillation": 3}, "distillation must be"), ({"data": ["fold"]}, "data must be")):
        with pytest.raises(RecipeError, match=said):
            Recipe(steps=1, **wrong)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """As of ``np.linspace`` and ``np.logspace``: they can be printed, and a checkpoint of them read."""
    options = {"pattern": "block:4x4", "steps": 4, "batch": 8, "checkpoint_every": 2}
    expected = Recipe(sparsity=0.5, scheme=Gradual(until=0.75), optimizer=OptimizerOptions(learning_rate=0.25), clip=0.5, seed=3,
                      **options)
    recipe = Recipe(sparsity=np.float32(0.5), scheme=Gradual(until=np.float64(0.75)), clip=np.float16(0.5), seed=np.int64(3),
                    optimizer=OptimizerOptions(learning_rate=np.float64(0.25)), **options | {"batch": np.int32(8)})
    assert recipe == expected and str(recipe) == str(expected)
    assert str(Recipe(sparsity={"head": np.float64(0.5)}, pattern="block:4x4", steps=1)).count("numpy") == 0
    file, samples = tmp_path / "run.checkpoint", [(x, y) for x, y in zip(*batch(0, samples=16), strict=True)]
    for resume in (False, True):
        zl.finetune(Perceptron(), recipe, samples, checkpoint=file, resume=resume, progress=lambda moment: None)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_printed_is_a_recipe_again(tmp_path: Path, scheme: str) -> None:
    dense = {} if scheme == "dense" else {"pattern": "block:4x4", "sparsity": 0.5}
    recipe = Recipe(scheme=scheme, steps=10, **dense)  # type: ignore[arg-type]
    printed = str(recipe)
    assert read(tmp_path, printed) == recipe == Recipe.of(recipe.as_dict()) and str(read(tmp_path, printed)) == printed
    assert yaml.safe_load(printed)["scheme"]["name"] == scheme


@pytest.mark.parametrize("change, line, said", [
    (("pattern: block:8x8", "patern: block:8x8"), 2, "no key 'patern'; did you mean 'pattern'"),
    (("pattern: block:8x8", "pattern: round:8"), 2, "Unknown pattern"),
    (("sparsity: 0.75", "sparsity: 1"), 3, "less than 1"),
    (("sparsity: 0.75", "sparsity: most"), 3, "sparsity must be a number"),
    (("sparsity: 0.75\n", ""), 2, "pattern needs sparsity"),
    (("name: gradual", "name: sudden"), 4, "scheme must be one of"),
    (("  shape: rest", "  shape: square"), 6, "shape must be one of"),
    (("  rate: 0.1", "  ratio: 0.1"), 7, "no key 'ratio'"),
    (("  rate: 0.1", "  rate: 7"), 7, "rate must be a number from 0 to 1"),
    (("epochs: 8", "epochs: 0"), 8, "at least 1"),
    (("epochs: 8", "epochs: 8\nsteps: 9"), 9, "one of epochs and steps"),
    (("epochs: 8", "epochs: yes"), 8, "epochs must be a whole number"),
    (("learning_rate: 1e-3", "learning_rate: fast"), 9, "learning_rate must be a number"),
    (("{name: sgd,", "{name: newton,"), 9, "optimizer's name"),
    (("  features: 2\n", ""), 10, "give both, or neither"),
    (("  logits: 0.5", "  temperature: 0"), 11, "temperature"),
    (("ignore: [head]", "ignore: {head: 1}"), 14, "ignore must be"),
    (("ignore: [head]", "ignore: [head"), 15, "no YAML"),
    (("ignore: [head]", "sparsity: 0.5"), 14, "there twice"),
    (("ignore: [head]", "ignore: 2026-01-01"), 14, "expected a number or a text"),
    (("ignore: [head]", "ignore: !!python/name:os.system x"), 14, "can't be read"),
    (("ignore: [head]", "ignore: &again [*again]"), 14, "contains itself"),
])
def test_what_is_refused_and_where(tmp_path: Path, change: tuple[str, str], line: int, said: str) -> None:
    assert change[0] in FULL
    with pytest.raises(RecipeError) as refused:
        read(tmp_path, FULL.replace(*change))
    message = str(refused.value)
    assert said in message and message.startswith(f"recipe.yaml, line {line}: "), message


@pytest.mark.parametrize("change, line, said", [
    (("ignore: [head]", "ignore: [tail]"), 14, "ignore entry 'tail' matches no"),
    (("ignore: [head]", "targets: [tail]"), 14, "targets entry 'tail' matches no"),
    (("ignore: [head]", "targets:\n- body.0\n- tail"), 16, "targets entry 'tail' matches no"),
    (('layers: ["re:body"]', "layers: [legs]"), 13, "'legs'"),
    (("  fold: 2", "  folds: 2"), 16, "no option 'folds'"),
    (("pattern: block:8x8", "pattern: block:64x64"), None, "No layer is left to prune"),
])
def test_what_does_not_fit_the_model_is_refused_before_training(
    tmp_path: Path, change: tuple[str, str], line: int | None, said: str
) -> None:
    model = Perceptron(32, 32)
    before = [parameter.clone() for parameter in model.parameters()]
    recipe = read(tmp_path, FULL.replace(*change).replace("  fold: 2", "  fold: 2" if "fold" in change[0] else "").rstrip()
                  if "fold" in change[0] else FULL.replace(*change).replace("data:\n  fold: 2\n", ""))
    with pytest.raises(RecipeError) as refused:
        zl.finetune(model, recipe, "digits", progress=_never)
    assert said in str(refused.value) and (line is None or f"recipe.yaml, line {line}: " in str(refused.value)), str(refused.value)
    assert all(bool((a == b).all()) for a, b in zip(before, model.parameters(), strict=True))


def _never(moment: object) -> None:
    raise AssertionError("a step was taken")


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't be read"):
        Recipe.read(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match="expected keys with values"):
        read(tmp_path, "- a\n- b\n")
    with pytest.raises(RecipeError, match="one of epochs and steps"):
        read(tmp_path, "")
