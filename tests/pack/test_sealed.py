"""What is kept is given back as it was; what is damaged, or can't be kept, is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from zellige.errors import CacheError
from zellige.pack.sealed import SealedDirectory, seal, unseal


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SealedDirectory:
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path))
    return SealedDirectory("things", "cache of things", b"thing 1\n")


def refuses() -> bytes:
    raise AssertionError("it is there already")


def test_made_once(kept: SealedDirectory) -> None:
    assert kept.made("a", lambda: b"image") == b"image"
    assert kept.made("a", refuses) == b"image"
    assert kept.made("b", lambda: b"another") == b"another"


def test_any_damage_is_found(kept: SealedDirectory) -> None:
    whole = seal(kept.magic, "a", b"image")
    assert unseal(kept.magic, "a", whole) == b"image"
    for at in range(len(whole)):
        assert unseal(kept.magic, "a", whole[:at]) is None
        assert unseal(kept.magic, "a", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:]) is None
    assert unseal(kept.magic, "b", whole) is None and unseal(b"thing 2\n", "a", whole) is None


def test_damage_is_made_anew(kept: SealedDirectory) -> None:
    kept.made("a", lambda: b"image")
    file = kept.directory / "a"
    file.write_bytes(file.read_bytes()[:-1])
    assert kept.made("a", lambda: b"new") == b"new"
    assert kept.made("a", refuses) == b"new"


def test_where_nothing_can_be_kept_a_warning_says_so(kept: SealedDirectory) -> None:
    kept.directory.parent.joinpath("things").write_text("a file in the way")
    with pytest.warns(RuntimeWarning, match="cache of things .* can't be used"):
        assert kept.made("a", lambda: b"image") == b"image"


def test_what_others_can_write_is_not_believed(kept: SealedDirectory) -> None:
    kept.made("a", lambda: b"image")
    kept.directory.chmod(0o777)
    with pytest.raises(CacheError, match="cache of things"):
        kept.made("a", lambda: b"image")
