"""CUDA C++ is compiled once for all that its code depends on, several kernels at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from zellige.cuda.kernels import cubins
from zellige.cuda.kernels.cubins import Request, compile_together, cubin
from zellige.cuda.kernels.nvrtc import MachineCode

SOURCE = "block_product.cu"


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What was compiled, by a compiler that only says what it was asked for."""
    done: list[Request] = []

    def machine_code(*asked: object) -> MachineCode:
        done.append(Request(*asked))  # type: ignore[arg-type]
        return MachineCode(repr(asked).encode(), "")

    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path))
    monkeypatch.setattr(cubins, "machine_code", machine_code)
    cubin.cache_clear()
    yield done
    cubin.cache_clear()


def test_kept_between_processes(compiled: list[Request]) -> None:
    request = Request(SOURCE, "sm_90a", (("TOKENS", 128),))
    first = cubin(request)
    cubin.cache_clear()  # as in another process
    assert cubin(request) == first and compiled == [request]


def test_all_that_code_depends_on_is_in_the_key(compiled: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(SOURCE, "sm_90a", (("TOKENS", 128),))
    others = [Request(SOURCE, "sm_90", request.defines), Request(SOURCE, "sm_90a", (("TOKENS", 256),)),
              Request("tile_vector_wise_mma.cu", "sm_90a", request.defines)]
    assert len({request.key, *(other.key for other in others)}) == 4
    before = request.key
    monkeypatch.setattr(cubins, "sources", lambda source: ((source, "another text"),))
    assert request.key != before
    monkeypatch.undo()
    monkeypatch.setattr(cubins, "compiler_version", lambda: "another compiler")
    assert request.key != before


def test_compiled_side_by_side(compiled: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two waits for the other to begin; a request that comes twice is compiled once."""
    meeting = threading.Barrier(2, timeout=20)
    plain = cubins.machine_code
    monkeypatch.setattr(cubins, "machine_code", lambda *asked: (meeting.wait(), plain(*asked))[1])
    monkeypatch.setattr(cubins.os, "cpu_count", lambda: 2)
    one, other = Request(SOURCE, "sm_90a", (("TOKENS", 128),)), Request(SOURCE, "sm_90a", (("TOKENS", 192),))
    compile_together([one, other, one])
    assert sorted(compiled, key=repr) == [one, other]
