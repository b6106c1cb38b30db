"""The GPU benchmark as a whole, with sections that need no GPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gpu
import pytest
from gpu_jobs import begin, job, keep, unable
from gpu_record import Record
from gpu_run import Run

CONDITIONS = {"gpu": "NVIDIA H100 80GB", "torch": "2", "triton": "3", "cuda": "13"}


def asked(work: Any, *jobs: Any) -> Any:
    """A section of these jobs, and what it finds."""
    def section(run: Run) -> object:
        return [found or reason for _, found, reason in run.each(work, jobs, 5)]

    return section


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu, "begin_process", begin)
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: gpu.argparse.Namespace(stdout="a GPU"))
    monkeypatch.setattr(gpu.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(gpu, "RIGHT", {"right": asked(job, 1, "fail", "prepared"), "kept": asked(keep, "early")})
    monkeypatch.setattr(gpu, "FAST", {"fast": (asked(keep, "late"), 5.0), "one": (asked(job, "process", "prepared"), 5.0),
                                      "same": (asked(job, "process"), 5.0)})
    monkeypatch.setattr(gpu, "RIGHT_SECONDS", 60.0)


def run(directory: Path, *only: str, join: bool = False) -> dict[str, Any]:
    record = Record(directory, CONDITIONS, join)
    gpu.run(record, set(only) or gpu.RIGHT.keys() | gpu.FAST.keys(), time.monotonic(), 75.0, gpu.FORKED)
    found: dict[str, Any] = json.loads(record.file.read_text())
    return found


def test_both_phases(tmp_path: Path) -> None:
    """Machine code of the first is there in the second, choices are not; what is timed has one process, which has all cores."""
    found = run(tmp_path)
    assert found["right"] == [2, "ValueError: it fell", "1"]
    assert found["kept"] == [["choices/early", "inductor/early", "triton/early"]]
    assert found["fast"] == [["choices/late", "inductor/late", "triton/early", "triton/late"]]
    assert found["one"][1] == "None" and found["one"][0] == found["same"][0]
    joined = run(tmp_path, "fast", join=True)
    assert joined["fast"] == found["fast"] and joined["right"] == found["right"]


def test_one_phase_alone(tmp_path: Path) -> None:
    assert set(run(tmp_path / "a", "one")) == {"conditions", "layers", "one"}
    assert set(run(tmp_path / "b", "right")) == {"conditions", "layers", "right"}


def test_processes_that_can_not_begin_end_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "begin_process", unable)
    with pytest.raises(SystemExit, match=r"could not begin: RuntimeError: no GPU; --processes spawn"):
        run(tmp_path, "one")
