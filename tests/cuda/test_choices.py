"""Choices come back as they were kept, and nothing is believed that others could have written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.errors import CacheError

CHOICE = Choice("groups", Config(256, 8, 3, 16, True), 1e-4, 2e-4)


def test_choices_come_back(tmp_path: Path) -> None:
    cache = ChoiceCache(tmp_path / "choices")
    assert cache.get("a") is None
    for choice in (CHOICE, Choice("dense", None, 2e-4, 2e-4)):
        cache.put("a", choice)
        assert ChoiceCache(tmp_path / "choices").get("a") == choice
    assert cache.get("b") is None


@pytest.mark.parametrize("change", [
    {"key": "b"}, {"way": 3}, {"seconds": -1.0}, {"seconds": "1"}, {"config": {"tokens": 128}}, {"config": 7},
    {"config": CHOICE.to_json()["config"] | {"stages": 2.5}}, {"dense_seconds": None},  # type: ignore[operator]
])
def test_what_is_not_a_choice_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    cache = ChoiceCache(tmp_path / "choices")
    cache.put("a", CHOICE)
    path = next((tmp_path / "choices").iterdir())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert cache.get("a") is None
    path.write_text("{")
    assert cache.get("a") is None


def test_a_directory_or_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    cache = ChoiceCache(tmp_path / "choices")
    cache.put("a", CHOICE)
    path = next((tmp_path / "choices").iterdir())
    path.chmod(0o666)
    assert cache.get("a") is None
    (tmp_path / "choices").chmod(0o777)
    with pytest.raises(CacheError, match="chmod 700"):
        cache.get("a")
    (tmp_path / "link").symlink_to(tmp_path / "choices")
    with pytest.raises(CacheError):
        ChoiceCache(tmp_path / "link").get("a")
