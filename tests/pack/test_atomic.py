"""A save that fails, or is killed, leaves the old file whole."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zellige.errors import ZelligeError
from zellige.pack.atomic import check_place, write_atomically

OLD, NEW = b"old" * 1000, b"new" * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "model.zlg").write_bytes(OLD)
    return tmp_path / "model.zlg"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_replaces(path: Path) -> None:
    write_atomically(path, [NEW[:10], memoryview(NEW)[10:]])
    assert path.read_bytes() == NEW
    assert names(path.parent) == ["model.zlg"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    for mask in (0o022, 0o077, 0o002):
        before = os.umask(mask)
        try:
            write_atomically(tmp_path / f"{mask}", [NEW])
        finally:
            os.umask(before)
        assert (tmp_path / f"{mask}").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_is_followed(path: Path) -> None:
    link = path.parent / "latest"
    link.symlink_to("model.zlg")
    write_atomically(link, [NEW])
    assert link.is_symlink() and path.read_bytes() == NEW


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), [NEW])
    assert (tmp_path / ("n" * 255)).read_bytes() == NEW


def full_disk_while_writing() -> Iterator[bytes]:
    yield NEW
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk(path: Path) -> None:
    with pytest.raises(ZelligeError, match=r"can't save to .*model\.zlg: No space left on device; what was there"):
        write_atomically(path, full_disk_while_writing())
    assert path.read_bytes() == OLD
    assert names(path.parent) == ["model.zlg"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fills_late(path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ZelligeError, match="quota"):
        write_atomically(path, [NEW])
    assert path.read_bytes() == OLD
    assert names(path.parent) == ["model.zlg"]


def test_a_write_that_the_system_refuses(tmp_path: Path) -> None:
    """The system itself refuses the write in the middle: the process may write no file above 64 KiB."""
    script = f"""
import resource, signal
from zellige.errors import ZelligeError
from zellige.pack.atomic import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write_atomically({str(tmp_path / "model.zlg")!r}, [b"x" * 40_000] * 4)
except ZelligeError as error:
    print(error)
"""
    write_atomically(tmp_path / "model.zlg", [OLD])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert (tmp_path / "model.zlg").read_bytes() == OLD
    assert names(tmp_path) == ["model.zlg"]


def test_a_kill(path: Path) -> None:
    """The process is killed when half of the new bytes are in the temporary file."""
    script = f"""
import sys, time
from zellige.pack.atomic import write_atomically
def chunks():
    yield b"n" * 1_000_000
    print("half", flush=True)
    time.sleep(60)
write_atomically({str(path)!r}, chunks())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    write_atomically(path, [NEW])
    assert path.read_bytes() == NEW


def test_an_interrupt_removes_the_temporary(path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield NEW
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, chunks())
    assert path.read_bytes() == OLD
    assert names(path.parent) == ["model.zlg"]


def test_bad_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    before = names(tmp_path)
    for name, reason in [("missing/model.zlg", "No such file or directory"), ("directory", "not a file"),
                         ("pipe", "not a file"), ("loop", "not a file"), ("file/model.zlg", "Not a directory"),
                         ("n" * 300, "File name too long"), ("null\0byte", "null"), ("/sys/model.zlg", "can't save")]:
        with pytest.raises(ZelligeError, match=reason):
            write_atomically(tmp_path / name, [NEW])
    assert names(tmp_path) == before
    with pytest.raises(ZelligeError, match="not a file"):
        write_atomically("/dev/full", [NEW])


def test_a_place_is_refused_before_the_work_as_after_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "directory").mkdir()
    (path.parent / "loop").symlink_to("loop")
    for name, reason in [("missing/model.zlg", "there is no directory .*missing"), ("directory", "not a file"),
                         ("loop", "not a file"), ("model.zlg/model.zlg", "no directory"), ("null\0byte", "null")]:
        with pytest.raises(ZelligeError, match=f"can't save to .*{reason}"):
            check_place(path.parent / name)
    with pytest.raises(ZelligeError, match="expected the path of a file"):
        check_place(5)  # type: ignore[arg-type]
    monkeypatch.chdir(path.parent)
    for good in (path, "model.zlg", "new.zlg"):
        check_place(good)
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(ZelligeError, match="can't be written to"):
        check_place(path)
    assert path.read_bytes() == OLD and names(path.parent) == ["directory", "loop", "model.zlg"]
