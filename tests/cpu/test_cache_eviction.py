"""The machine code cache stays below its limit; what was used least recently goes, whoever else is at work."""

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zellige.cpu import toolchain
from zellige.cpu.cache import MachineCodeCache, entry_key
from zellige.cpu.eviction import size_limit
from zellige.cpu.host import host_isa
from zellige.errors import CacheError

ISA = host_isa()
numbers = itertools.count(50_000)


@pytest.fixture(autouse=True)
def small_heap(seeded: None) -> Iterator[None]:
    """``gc.collect`` looks at what a test made, not at PyTorch and all that others left, which takes half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


def texts(count: int) -> list[str]:
    """IR that no other test has compiled, each of a function that returns a number of its own."""
    return [f"define i64 @f() {{ ret i64 {next(numbers)} }}" for _ in range(count)]


def value(text: str, cache: MachineCodeCache) -> int:
    """What ``f`` returns, from a library that is gone afterwards: the next build has to look on the disk."""
    library = cache.build(text, ISA)
    result = ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("f"))()
    del library
    gc.collect()
    return result


def entry(text: str, cache: MachineCodeCache) -> Path:
    return cache.directory / entry_key(text, ISA)


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def kept(tmp_path: Path) -> MachineCodeCache:
    return MachineCodeCache(tmp_path / "cache")


def entry_bytes(cache: MachineCodeCache) -> int:
    """The size of an entry of these tests; they differ by no more than some bytes."""
    (text,) = texts(1)
    value(text, cache)
    size = entry(text, cache).stat().st_size
    entry(text, cache).unlink()
    return size


def test_what_was_used_least_recently_goes(kept: MachineCodeCache) -> None:
    kept.limit = 4 * entry_bytes(kept) + 100
    first, second, third, fourth, fifth, sixth = made = texts(6)
    for position, text in enumerate(made[:4]):
        value(text, kept)
        age(entry(text, kept), 100 - position)
    value(first, kept)  # used again: now the second is the oldest
    value(fifth, kept)
    assert [text for text in made if entry(text, kept).exists()] == [first, third, fourth, fifth]
    value(sixth, kept)
    assert [text for text in made if entry(text, kept).exists()] == [first, fourth, fifth, sixth]
    assert value(second, kept) == int(second.split()[-2])  # compiled anew


def test_never_more_than_the_limit(kept: MachineCodeCache) -> None:
    size = entry_bytes(kept)
    for limit in (0, 1, size - 1, 3 * size + 50, 10**9):
        kept.limit = limit
        for text in texts(6):
            assert value(text, kept) == int(text.split()[-2])
            assert sum(path.stat().st_size for path in kept.directory.iterdir()) <= limit
    assert len(list(kept.directory.iterdir())) == 3 + 6


def test_other_files_are_left_alone(kept: MachineCodeCache) -> None:
    """Whatever else lies there, and what another process is writing; not what a killed one left behind."""
    value(texts(1)[0], kept)
    key = "0" * 64
    others = ["notes", key[:-1], f".{key}.{'1' * 16}", "costs.json"]
    for name in (*others, f".{key}.{'2' * 16}"):
        (kept.directory / name).write_bytes(bytes(1000))
    for name in ("notes", f".{key}.{'2' * 16}"):
        age(kept.directory / name, 10_000)
    kept.limit = 0
    value(texts(1)[0], kept)
    assert sorted(path.name for path in kept.directory.iterdir()) == sorted(others)


@pytest.mark.parametrize("text, limit", [(None, 10**9), ("", 10**9), ("0", 0), ("12345", 12345), ("3K", 3000),
                                         (" 500m ", 5 * 10**8), ("2G", 2 * 10**9)])
def test_the_limit_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, text: str | None, limit: int) -> None:
    if text is None:
        monkeypatch.delenv("ZELLIGE_CACHE_SIZE", raising=False)
    else:
        monkeypatch.setenv("ZELLIGE_CACHE_SIZE", text)
    assert size_limit() == MachineCodeCache().limit == limit


@pytest.mark.parametrize("text", ["-1", "1.5G", "much", "1T", "G", "1 0", "٣", "9" * 16])
def test_no_size(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE_SIZE", text)
    with pytest.raises(CacheError, match=r"ZELLIGE_CACHE_SIZE must be a number of bytes.*such as 500M; got"):
        MachineCodeCache()


def test_an_entry_that_another_process_evicts(kept: MachineCodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list of entries and their removal others may be faster."""
    made = texts(3)
    for text in made[:2]:
        value(text, kept)
    kept.limit = 0
    unlink = os.unlink

    def too_late(path: str, *, dir_fd: int | None = None) -> None:
        unlink(path, dir_fd=dir_fd)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "unlink", too_late)
    assert value(made[2], kept) == int(made[2].split()[-2])
    assert list(kept.directory.iterdir()) == []


def test_a_file_system_that_keeps_no_times(kept: MachineCodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = texts(1)
    value(text, kept)
    compiled: list[str] = []

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(toolchain, "compile_ir", lambda text, *_: compiled.append(text))
    assert value(text, kept) == int(text.split()[-2]) and not compiled


def test_processes_that_evict_at_once(tmp_path: Path) -> None:
    """Four processes compile, load and evict in a cache that has room for a few of thirty entries."""
    script = """
import ctypes, gc, sys
from zellige.cpu.cache import MachineCodeCache
from zellige.cpu.host import host_isa
gc.freeze()  # what is imported goes nowhere: collecting is quicker
cache, total = MachineCodeCache(sys.argv[1]), 0
for number in [*range(30), *range(20)]:
    library = cache.build(f"define i64 @f() {{ ret i64 {number} }}", host_isa())
    total += ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("f"))()
    del library
    gc.collect()
print(total)
"""
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "cache")]
    environment = os.environ | {"ZELLIGE_CACHE_SIZE": "4K"}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
                 for _ in range(4)]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert (output, errors, process.returncode) == ("625\n", "", 0)
    left = list((tmp_path / "cache").iterdir())
    assert left and sum(path.stat().st_size for path in left) <= 4000
