"""The kernel's C++ under emulation: how it is built, kept and refused. What it computes, ``test_step.py`` compares."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zellige.aie2 import compiled
from zellige.aie2.compiled import KERNELS, compiled_step, kernel_files
from zellige.errors import CompileError

needs_gcc = pytest.mark.skipif(shutil.which("g++") is None,
                               reason="the kernel's C++ is not tested: there is no g++ (Debian: apt-get install g++)")


def test_without_a_compiler_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    compiled._machine.cache_clear()
    with pytest.raises(CompileError, match=r"there is none: install it \(Debian: apt-get install g\+\+\), or run steps with numpy"):
        compiled_step()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A kernel that compiles at once."""
    (tmp_path / "step.cc").write_text('#include <aie_api/aie.hpp>\nextern "C" void step(const uint8 *) {}\n')
    return tmp_path


@needs_gcc
def test_a_kernel_is_compiled_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", str(small / "cache"))
    calls: list[Path] = []
    real = compiled._compile
    monkeypatch.setattr(compiled, "_compile", lambda kernels: (calls.append(kernels), real(kernels))[1])
    compiled_step(small)
    compiled_step(small)
    assert len(calls) == 1
    (entry,) = (path for path in (small / "cache" / "aie2").iterdir())
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    compiled_step(small)
    assert len(calls) == 2
    (small / "step.cc").write_text((small / "step.cc").read_text() + "// changed\n")
    compiled_step(small)
    assert len(calls) == 3


@needs_gcc
def test_source_that_is_wrong_is_refused(small: Path) -> None:
    (small / "step.cc").write_text("void step( {}\n")
    with pytest.raises(CompileError, match=r"g\+\+ refused the kernel's C\+\+: .*step\.cc"):
        compiled_step(small)


def test_the_kernel_uses_nothing_that_cores_do_not_have() -> None:
    """No part of C++'s library that allocates, prints or throws, and only the one header of the AIE API."""
    included = {line.split()[1] for path in kernel_files(KERNELS) for line in path.read_text(encoding="utf-8").splitlines()
                if line.startswith("#include")}
    assert included == {"<aie_api/aie.hpp>", '"packet.h"', '"tiles.h"', '"rescale.h"', '"sums.h"', '"moves.h"'}
