"""The machine code cache: what it keeps, what it refuses, what it survives."""

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from zellige.cpu import cache as cache_module
from zellige.cpu import toolchain
from zellige.cpu.cache import MachineCodeCache, entry_key
from zellige.cpu.host import host_isa, runs_here
from zellige.cpu.isa import AVX2, AVX512, ISAS
from zellige.errors import CacheError, CompileError

ISA = host_isa()
numbers = itertools.count(1000)


@pytest.fixture(autouse=True)
def small_heap(seeded: None) -> Iterator[None]:
    """``gc.collect`` looks at what a test made, not at PyTorch and all that others left, which takes half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def text() -> str:
    """IR that no other test has compiled: ``f`` returns a number of its own."""
    return f"define i64 @f() {{ ret i64 {next(numbers)} }}"


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The texts that were compiled so far."""
    texts: list[str] = []
    compile_ir = toolchain.compile_ir

    def count(text, isa, native=True):
        texts.append(text)
        return compile_ir(text, isa, native)

    monkeypatch.setattr(toolchain, "compile_ir", count)
    return texts


@pytest.fixture
def kept(tmp_path) -> MachineCodeCache:
    return MachineCodeCache(tmp_path / "cache")


def value(text: str, cache: MachineCodeCache) -> int:
    """What ``f`` returns, from a library that is gone afterwards: the next build has to look on the disk."""
    library = cache.build(text, ISA)
    result = ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("f"))()
    del library
    gc.collect()
    return result


def number(text: str) -> int:
    return int(text.split()[-2])


def entry(text: str, cache: MachineCodeCache) -> Path:
    return cache.directory / entry_key(text, ISA)


def test_compiles_once_and_loads_ever_after(text, kept, compiled):
    for _ in range(3):
        assert value(text, kept) == number(text)
    assert value(text, MachineCodeCache(kept.directory)) == number(text)
    assert compiled == [text]
    assert [path.name for path in kept.directory.iterdir()] == [entry_key(text, ISA)]


def test_is_its_owners_alone(text, kept):
    mask = os.umask(0)
    try:
        value(text, kept)
    finally:
        os.umask(mask)
    assert kept.directory.stat().st_mode & 0o777 == 0o700
    assert entry(text, kept).stat().st_mode & 0o777 == 0o600


def test_one_library_while_anyone_holds_it(text, kept, tmp_path, compiled):
    first = kept.build(text, ISA)
    assert MachineCodeCache(tmp_path / "another").build(text, ISA) is first
    assert not (tmp_path / "another").exists()
    assert compiled == [text]


def test_key_depends_on_everything(text, monkeypatch):
    keys = {entry_key(text, ISA), entry_key(text + " ", ISA), entry_key(text, ISA, native=False)}
    keys |= {entry_key(text, isa, native=False) for isa in ISAS.values()}
    assert len(keys) == 3 + len(ISAS) - 1  # the host's own, not native, is in there twice
    for module, name, replacement in [(cache_module.llvmlite, "__version__", "0"), (cache_module.llvm, "llvm_version_info", (1, 2)),
                                      (cache_module, "__version__", "0"), (toolchain, "PIPELINE", "another"),
                                      (toolchain.host, "cpu_name", lambda: "another"),
                                      (toolchain.host, "cpu_features", lambda: dict.fromkeys(ISA.needs, True))]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, replacement)
            keys.add(entry_key(text, ISA))
    assert len(keys) == 3 + len(ISAS) - 1 + 6


def test_default_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZELLIGE_CACHE", raising=False)
    assert MachineCodeCache().directory == tmp_path / ".cache" / "zellige"
    monkeypatch.setenv("ZELLIGE_CACHE", "~/elsewhere")
    assert MachineCodeCache().directory == tmp_path / "elsewhere"
    monkeypatch.setenv("ZELLIGE_CACHE", "")
    assert MachineCodeCache().directory == tmp_path / ".cache" / "zellige"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o720, 0o1777])
def test_a_directory_that_others_can_write_is_refused(text, kept, mode, compiled):
    kept.directory.mkdir()
    kept.directory.chmod(mode)
    with pytest.raises(CacheError, match=f"nobody else can write.*mode {mode:04o}.*chmod 700.*ZELLIGE_CACHE"):
        kept.build(text, ISA)
    assert list(kept.directory.iterdir()) == [] and compiled == []
    kept.directory.chmod(0o755)  # others may read
    assert value(text, kept) == number(text)


def test_a_directory_that_became_writable_is_refused_later(text, kept):
    value(text, kept)
    kept.directory.chmod(0o777)
    with pytest.raises(CacheError):
        value(text, kept)


def test_a_linked_directory_is_refused(text, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CacheError, match="symbolic link"):
        MachineCodeCache(tmp_path / "link").build(text, ISA)
    assert list((tmp_path / "real").iterdir()) == []


def test_a_directory_of_another_user_is_refused(text, kept, monkeypatch):
    value(text, kept)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(CacheError, match=f"user {owner + 1} owns.*belongs to user {owner} "):
        value(text, kept)


def replace_by_link(path: Path) -> None:
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: os.truncate(path, 30),
    lambda path: path.write_bytes(path.read_bytes() + b"\0"), lambda path: path.write_bytes(b"\x7fELF" + bytes(5000)),
    replace_by_link, replace_by_pipe, lambda path: path.chmod(0o622), lambda path: path.chmod(0o660),
    *(lambda path, position=position: flip(path, position) for position in (0, 22, 23, 54, 55, 120, 400, -1))])
def test_an_entry_that_is_not_right_is_made_anew(text, kept, compiled, damage):
    value(text, kept)
    whole = entry(text, kept).read_bytes()
    damage(entry(text, kept))
    assert value(text, kept) == number(text)
    assert compiled == [text, text]
    assert entry(text, kept).read_bytes() == whole and entry(text, kept).stat().st_mode & 0o777 == 0o600
    assert value(text, kept) == number(text)
    assert compiled == [text, text]


def test_an_entry_of_another_user_is_made_anew(text, kept, monkeypatch, compiled):
    value(text, kept)
    inode, fstat = entry(text, kept).stat().st_ino, os.fstat

    def as_if_of_another(handle):
        status = fstat(handle)
        return os.stat_result((*status[:4], 12345, *status[5:])) if status.st_ino == inode else status

    monkeypatch.setattr(os, "fstat", as_if_of_another)
    assert value(text, kept) == number(text)
    assert compiled == [text, text]


def test_an_entry_under_the_wrong_key_is_not_run(text, kept, compiled):
    other = text.replace("ret i64 ", "ret i64 9")
    value(other, kept)
    entry(other, kept).rename(entry(text, kept))
    assert value(text, kept) == number(text)


def assert_works_with_one_warning(text: str, directory: Path) -> None:
    cache = MachineCodeCache(directory)
    with pytest.warns(RuntimeWarning, match="compiled anew every time.*ZELLIGE_CACHE"):
        assert value(text, cache) == number(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value(text, cache) == number(text)
        assert value(text, MachineCodeCache(directory)) == number(text)


def test_a_cache_under_a_file(text, tmp_path):
    (tmp_path / "file").write_text("")
    assert_works_with_one_warning(text, tmp_path / "file" / "cache")


def test_a_file_in_place_of_the_cache(text, tmp_path):
    (tmp_path / "file").write_text("")
    assert_works_with_one_warning(text, tmp_path / "file")


def test_a_user_without_a_home(text, monkeypatch, tmp_path):
    monkeypatch.delenv("ZELLIGE_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: os.fspath(path))
    monkeypatch.chdir(tmp_path)
    assert_works_with_one_warning(text, Path("~/.cache/zellige"))
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_cache(text, tmp_path, monkeypatch):
    """As root writes to what is read-only by its mode, the file system is made to refuse instead."""
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_works_with_one_warning(text, tmp_path / "cache")


def test_a_full_disk_leaves_nothing_behind(text, kept, monkeypatch):
    kept.directory.mkdir(mode=0o700)

    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.warns(RuntimeWarning, match="No space left"):
            assert value(text, kept) == number(text)
    assert list(kept.directory.iterdir()) == []
    assert value(text, kept) == number(text)
    assert len(list(kept.directory.iterdir())) == 1


def test_refused_ir_leaves_nothing_behind(kept):
    with pytest.raises(CompileError, match="LLVM refuses"):
        kept.build("define void @f( {", ISA)
    assert not kept.directory.exists() or list(kept.directory.iterdir()) == []


def test_code_that_can_not_run_here_is_not_built(text, kept):
    isa = next(isa for isa in ISAS.values() if not runs_here(isa))
    for native in (True, False):
        with pytest.raises(CompileError, match="can't run here"):
            kept.build(text, isa, native)


@pytest.mark.skipif(not runs_here(AVX512), reason="needs two instruction sets")
def test_instruction_sets_do_not_mix(text, kept):
    assert kept.build(text, AVX512) is not kept.build(text, AVX2)


def test_debug_shows_ir_and_assembly(text, kept, monkeypatch, capsys):
    monkeypatch.setenv("ZELLIGE_DEBUG", "4")
    value(text, kept)
    shown = capsys.readouterr().err
    assert text in shown and ".text" in shown and "ret" in shown


def test_processes_compile_at_once(tmp_path):
    script = """
import ctypes, sys
from zellige.cpu.cache import MachineCodeCache
from zellige.cpu.host import host_isa
cache, total = MachineCodeCache(sys.argv[1]), 0
for number in range(30):
    library = cache.build(f"define i64 @f() {{ ret i64 {number} }}", host_isa())
    total += ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("f"))()
print(total)
"""
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert (output, errors, process.returncode) == ("435\n", "", 0)
    assert len(list((tmp_path / "cache").iterdir())) == 30
