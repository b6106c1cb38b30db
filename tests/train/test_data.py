"""What is learnt from: the order of samples, and every kind of data, on small folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zellige.errors import RecipeError, TrainingError
from zellige.train.data import Data, DatasetSamples, find_data
from zellige.train.data.digits import CLASSES, SHIFT, SIZE, load_digits, shifted
from zellige.train.data.imagefolder import Pictures
from zellige.train.data.samples import numbers_at, part_of, steps_per_epoch
from zellige.train.data.text import Windows


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3), st.integers(1, 4))
def test_every_pass_goes_through_different_samples_in_another_order(samples: int, batch: int, seed: int, parts: int) -> None:
    if samples < batch:
        with pytest.raises(TrainingError, match="lower batch"):
            steps_per_epoch(samples, batch)
        return
    steps = steps_per_epoch(samples, batch)
    passes = [[number for step in range(steps) for number in numbers_at(epoch * steps + step, samples, batch, seed)]
              for epoch in range(2)]
    for numbers in passes:
        assert len(set(numbers)) == len(numbers) == steps * batch and set(numbers) <= set(range(samples))
    assert passes[0] != passes[1] or samples < 6
    if batch % parts == 0:
        numbers = numbers_at(0, samples, batch, seed)
        assert [number for part in range(parts) for number in part_of(numbers, part, parts)] == numbers


def test_digits_are_whole_disjoint_and_the_same_every_time() -> None:
    training, test = load_digits()
    assert (len(training), len(test)) == (1437, 360)
    assert training.images.shape == (1437, 1, SIZE, SIZE)
    assert torch.equal(load_digits()[1].images, test.images)
    everything = torch.cat([training.images, test.images])
    assert abs(everything.mean()) < 1e-4 and abs(everything.std() - 1) < 1e-4
    seen = torch.cat([load_digits(fold)[1].images.flatten(1) for fold in range(5)])
    assert len(seen) == 1797 and torch.allclose(seen.sum(0), everything.flatten(1).sum(0), atol=1e-2)
    for fold in range(5):
        counts = torch.bincount(load_digits(fold)[1].labels, minlength=CLASSES)
        assert counts.min() >= 34 and counts.max() <= 38


def test_shifts_move_and_repeat_the_edge() -> None:
    images = torch.arange(49.0).reshape(1, 1, 7, 7)
    generator = torch.Generator().manual_seed(0)
    seen = {tuple(shifted(images, SHIFT, generator)[0, 0, SHIFT].tolist()) for _ in range(400)}
    assert len(seen) == (2 * SHIFT + 1) ** 2
    assert tuple(images[0, 0, SHIFT].tolist()) in seen
    training, _ = load_digits()
    assert torch.equal(training.batch([3, 1], 5)[0], training.batch([3, 1], 5)[0])
    assert torch.equal(training.batch([3, 1], None)[0], training.images[[3, 1]])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for number in range(40):
        place = tmp_path / "texts" / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.py").write_text(f"# file {number}\n" * 30)
    (tmp_path / "texts" / "again.txt").write_text("# file 7\n" * 30)
    return tmp_path / "texts"


def test_text_is_split_by_what_files_hold(texts: Path, tmp_path: Path) -> None:
    data = find_data(f"text:{texts}", {"context": 16})
    assert data.bits and isinstance(data.training, Windows) and isinstance(data.validation, Windows)
    training, validation = (bytes(part.text.tolist()).decode() for part in (data.training, data.validation))
    numbers = [{line.split()[-1] for line in text.splitlines() if line} for text in (training, validation)]
    assert numbers[0] | numbers[1] == {str(number) for number in range(40)} and not numbers[0] & numbers[1]
    assert 1 <= len(numbers[1]) <= 10 and training.count("# file 7\n") + validation.count("# file 7\n") == 30
    x, y = data.training.batch([0, len(data.training) - 1], 3)
    assert x.shape == y.shape == (2, 16) and torch.equal(x[:, 1:], y[:, :-1]) and x.dtype == torch.long
    plain, _ = data.training.batch([1], None)
    assert bytes(plain[0].tolist()).decode() == training[16:32]
    moved = tmp_path / "moved"
    texts.rename(moved)
    again = find_data(f"text:{moved}/*/*.py:{moved}/again.txt", {"context": 16})
    assert torch.equal(again.training.text, data.training.text)  # type: ignore[attr-defined]


def test_one_file_gives_its_end(tmp_path: Path) -> None:
    (tmp_path / "book").write_bytes(bytes(range(100)) * 10)
    data = find_data(f"text:{tmp_path / 'book'}", {"context": 8})
    assert data.validation.text.tolist() == list(range(100))  # type: ignore[union-attr]


def picture(path: Path, shade: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)


def test_folders_of_pictures(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 1)):
        for label, name in enumerate(("ant", "bee")):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png", 100 * label + number)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no picture")
    data = find_data(f"imagefolder:{tmp_path}", {"size": 8})
    assert len(data.training) == 6 and len(data.validation or ()) == 2
    images, labels = data.training.batch([0, 5], 1)
    assert images.shape == (2, 3, 8, 8) and labels.tolist() == [0, 1]
    red = (torch.tensor([0.0, 102.0]) / 255 - 0.485) / 0.229
    assert torch.allclose(images[:, 0, 4, 4], red, atol=1e-5)
    assert torch.equal(images, data.training.batch([0, 5], 1)[0])


def test_pictures_are_varied_by_the_seed(tmp_path: Path) -> None:
    place = tmp_path / "a" / "x.png"
    place.parent.mkdir()
    Image.linear_gradient("L").resize((40, 24)).save(place)
    pictures = Pictures((place,), (0,), 12)
    plain, varied = pictures.batch([0], None)[0], [pictures.batch([0], seed)[0] for seed in range(4)]
    assert all(not torch.equal(plain, image) for image in varied)
    assert not torch.equal(varied[0], varied[1]) and torch.equal(varied[2], pictures.batch([0], 2)[0])


def test_one_folder_keeps_a_tenth_apart(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        for number in range(40):
            picture(tmp_path / name / f"{number}.png", number)
    data = find_data(f"imagefolder:{tmp_path}")
    assert isinstance(data.training, Pictures) and isinstance(data.validation, Pictures)
    assert len(data.training) + len(data.validation) == 80 and 1 <= len(data.validation) <= 20
    assert not set(data.training.files) & set(data.validation.files)


def test_datasets_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: its way in is not tested")
    rows = {"input_ids": [[1, 2, 3, 4]] * 6, "labels": [[1, 2, 3, 4]] * 6}
    few = {name: column[:2] for name, column in rows.items()}
    parts = {"train": datasets.Dataset.from_dict(rows), "validation": datasets.Dataset.from_dict(few)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "tokens")
    data = find_data(f"hf:{tmp_path / 'tokens'}")
    assert len(data.training) == 6 and len(data.validation or ()) == 2
    assert data.training.batch([0, 3], 1)["input_ids"].tolist() == [[1, 2, 3, 4]] * 2
    for name in ("ant", "bee"):
        for number in range(4):
            picture(tmp_path / "pictures" / "train" / name / f"{number}.png", number)
    pictures = find_data(f"hf:{tmp_path / 'pictures'}", {"size": 8})
    images, labels = pictures.training.batch([0, 7], None)
    assert images.shape == (2, 3, 8, 8) and labels.tolist() == [0, 1]
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1]})}).save_to_disk(tmp_path / "odd")
    with pytest.raises(TrainingError, match="has columns a"):
        find_data(f"hf:{tmp_path / 'odd'}")
    with pytest.raises(TrainingError, match="can't be loaded"):
        find_data(f"hf:{tmp_path / 'nowhere'}")


def test_datasets_of_ones_own() -> None:
    samples = [(torch.full((2,), number), number) for number in range(4)]
    data = find_data((samples, samples[:1]))
    assert isinstance(data.training, DatasetSamples) and len(data.validation or ()) == 1
    x, y = data.training.batch([2, 0], 0)
    assert x.tolist() == [[2, 2], [0, 0]] and y.tolist() == [2, 0]
    assert find_data(data) is data and isinstance(data, Data)


@pytest.mark.parametrize("wanted, options, said", [
    ("letters", {}, "unknown data"), ("digits:somewhere", {}, "come with scikit-learn"), ("digits", {"fold": 9}, "0 to 4"),
    ("text:/no/such/file", {}, "no file /no/such/file"), ("text:", {}, "needs a path"), ("text:x", {"context": 0}, "context"),
    ("imagefolder:/no/such", {}, "no such directory"), ("imagefolder:/proc/self/fd", {}, "no picture"),
    (iter([1]), {}, "give the dataset"), (([1],) * 3, {}, "not 3 of them"), ([1, 2], {"fold": 1}, "no meaning"),
])
def test_data_that_are_refused(wanted: object, options: dict[str, object], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        find_data(wanted, options)


def test_unknown_options_of_data_and_unreadable_pictures(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no option 'folds'"):
        find_data("digits", {"folds": 1})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"x\.png can't be read"):
        Pictures((tmp_path / "a" / "x.png",), (0,), 8).batch([0], None)
