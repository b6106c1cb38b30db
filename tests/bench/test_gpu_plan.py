"""The sections of the GPU benchmark: they fit the budget, each gets its share, and they bear it that jobs fail or are left out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gpu_backward
import gpu_block_convolution
import gpu_blocks
import gpu_compiled
import gpu_contestants
import gpu_correctness
import gpu_fp8
import gpu_layers
import gpu_networks
import gpu_preparation
import gpu_vectors
import pytest
import torch
from gpu_contestants import BY_STEPS, TWO_FOUR_BY_STEPS
from gpu_jobs import asleep, job, prepare
from gpu_join import EARLIER
from gpu_plan import BUDGET, FAST, RIGHT, RIGHT_SECONDS
from gpu_record import Record
from gpu_run import Run, ends, one_by_one, side_by_side
from gpu_workers import DIED, TOO_LONG, Workers

CONDITIONS = {"gpu": "NVIDIA H100 80GB", "torch": "2", "triton": "3", "cuda": "13"}


def test_all_sections_fit_the_budget() -> None:
    assert RIGHT_SECONDS + sum(seconds for _, seconds in FAST.values()) <= BUDGET < 8 * 60
    assert not RIGHT.keys() & FAST.keys()


def test_ends() -> None:
    assert ends([10, 30, 20], 100, 60) == [110, 140, 160]
    assert ends([10, 30, 20], 100, 120) == [120, 180, 220]  # in proportion
    assert ends([10, 30, 20], 100, 35) == [110, 135, 135]  # the last ones go short
    assert ends([], 100, 60) == []


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path, CONDITIONS)


def test_side_by_side_one_that_fails_or_waits_takes_no_other_along(record: Record) -> None:
    def broken(run: Run) -> object:
        raise ValueError("this section fell")

    def working(run: Run) -> object:
        return [[what, found, reason] for what, found, reason in run.each(job, [1, "die", "hang", 2], 1.5)]

    def waiting(run: Run) -> object:
        return [found for _, found, _ in run.each(asleep, [60.0] * 2, 60.0)]

    with Workers(3, prepare) as workers:
        list(workers.each(job, [1, 2, 3], 60, time.monotonic() + 60))
        side_by_side(record, workers, {"broken": broken, "working": working, "waiting": waiting}, time.monotonic() + 6)
    written = json.loads(record.file.read_text())
    assert record.file.name == "gpu-h100.json" and written["conditions"] == CONDITIONS
    assert "this section fell" in written["broken"]["error"]
    assert written["working"] == [[1, 2, ""], ["die", None, DIED], ["hang", None, TOO_LONG], [2, 4, ""]]
    assert written["waiting"] == []


def test_one_by_one_in_one_process_and_never_two_at_once(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, list[Any]] = {}

    def section(name: str, jobs: list[Any]) -> Any:
        def work(run: Run) -> object:
            seen[name] = [found for _, found, _ in run.each(job, jobs, 10)]
            return seen[name]
        return work

    sections = {"first": (section("first", ["process"]), 5.0), "hangs": (section("hangs", ["hang", 7]), 1.0),
                "short": (section("short", [8]), 60.0), "next": (section("next", ["process"]), 5.0),
                "last": (section("last", ["process"]), 5.0)}
    with Workers(1, prepare) as workers:
        list(workers.each(job, [1], 60, time.monotonic() + 60))
        now = time.monotonic()
        one_by_one(record, workers, sections, [now + 4, now + 3, now + 4, now + 9, now + 14])
    assert seen["hangs"] == [] and "short" not in seen and "short: left out" in capsys.readouterr().out
    assert seen["first"] != seen["next"] == seen["last"]  # what hung was ended, and the process after it stayed
    assert set(record.facts) == {"layers", "first", "hangs", "next", "last"}


def test_a_later_run_joins(record: Record, tmp_path: Path) -> None:
    record.put("linear", [1])
    record.put("blocks", {"a": 1})
    later = Record(tmp_path, CONDITIONS, join=True)
    later.put("blocks", {"a": 2})
    written = json.loads(later.file.read_text())
    assert (written["linear"], written["blocks"], written["conditions"][EARLIER]) == ([1], {"a": 2}, ["linear"])
    with pytest.raises(ValueError, match="torch 2, now 3"):
        Record(tmp_path, CONDITIONS | {"torch": "3"}, join=True)


class Answers:
    """In place of processes: every job has the same answer, or none."""

    def __init__(self, reason: str | None):
        self.reason, self.jobs = reason, 0

    def each(self, work: Any, jobs: Any, patience: float, end: float, rank: int = 0, heard: Any = None) -> Iterator[Any]:
        for one in jobs:
            self.jobs += 1
            if self.reason is not None:
                yield one, None, self.reason


@pytest.mark.parametrize("reason", [DIED, TOO_LONG, None])
@pytest.mark.parametrize("name", [name for name in (*RIGHT, *FAST) if name not in ("accesses", "ceilings")])
def test_sections_bear_it_that_jobs_fail_or_are_left_out(name: str, reason: str | None, record: Record,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpu_blocks, gpu_block_convolution, gpu_compiled, gpu_fp8, gpu_preparation, gpu_vectors):
        monkeypatch.setattr(module, "hopper", lambda: True)
    for module in (gpu_backward, gpu_correctness, gpu_preparation):
        monkeypatch.setattr(module, "capability", lambda: 90)
    monkeypatch.setattr(gpu_vectors, "architecture", lambda device: "sm_90a")
    record.facts["ceilings"] = {"flop_per_s": 8e14, "bytes_per_s": 2e12}
    answers = Answers(reason)
    section = RIGHT[name] if name in RIGHT else FAST[name][0]
    run = Run(record, answers, time.monotonic() + 100)  # type: ignore[arg-type, unused-ignore]
    if name == "fp8" or (name == "fp8 correctness"):
        with pytest.raises(RuntimeError, match=reason or "out of time"):  # nothing to compare with
            section(run)
    else:
        record.put(name, section(run))
    assert answers.jobs and json.loads(json.dumps(record.facts))


def test_what_took_too_long_is_not_called_wrong(record: Record) -> None:
    run = Run(record, Answers(TOO_LONG), time.monotonic() + 100)  # type: ignore[arg-type, unused-ignore]
    found: Any = gpu_correctness.verdict(run, "products", job, ["one", "two"])
    assert (found["cases"], found["wrong"], found["took too long"], found["jobs left undone"]) == (0, [], ["one", "two"], 0)
    found = gpu_correctness.verdict(Run(record, Answers(None), 0.0), "products", job, ["one"])  # type: ignore[arg-type, unused-ignore]
    assert (found["cases"], found["wrong"], found["jobs left undone"]) == (0, [], 1)
    found = gpu_correctness.verdict(Run(record, Answers(DIED), 0.0), "products", job, ["one"])  # type: ignore[arg-type, unused-ignore]
    assert (found["cases"], found["wrong"]) == (1, [f"nan one: {DIED}"])


def test_products_of_awkward_shapes_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter, which cuts numbers off where it makes bfloat16 of them: in float16. Every cut meets all orders."""
    for module in (gpu_correctness, gpu_contestants):
        monkeypatch.setattr(module, "DEVICE", torch.device("cpu"))
        monkeypatch.setattr(module, "DTYPE", torch.float16)
    monkeypatch.setattr(gpu_correctness, "capability", lambda: 80)
    for kind, many in (("half", 2), ("full", 1), ("empty", 1)):
        found = gpu_correctness.shape_cases(((40, 70, 300), 5, kind))
        assert len(found) == many and all(error <= gpu_correctness.TOLERANCE for _, error in found), found
    for name in ("awkward_weight", "cut_on_device", "case_error"):
        monkeypatch.setattr(gpu_correctness, name, lambda *_: 0.0)
    for number in range(len(gpu_correctness.CUTS)):
        met = {" ".join(case.split()[-2:]) for shape in gpu_correctness.SHAPES for kind in gpu_correctness.KINDS
               for case, _ in gpu_correctness.shape_cases((shape, number, kind))}
        assert met == {"True True", "False False", "True False"}


def test_tiles_of_all_layers_that_are_timed_are_compiled_before(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or need no code of Triton's, or that of another mask."""
    layers: list[Any] = []
    record.facts["ceilings"] = {"flop_per_s": 8e14, "bytes_per_s": 2e12}
    monkeypatch.setattr(Answers, "each", lambda self, work, jobs, *_: iter(layers.extend(jobs) or ()))
    for section in (gpu_layers.large, gpu_layers.vectors, gpu_layers.two_four, gpu_layers.blocks, gpu_layers.paired,
                    gpu_layers.others, gpu_layers.small, gpu_layers.uneven):
        section(Run(record, Answers(None), time.monotonic() + 100))  # type: ignore[arg-type, unused-ignore]
    elsewhere = {BY_STEPS, TWO_FOUR_BY_STEPS, "unstructured", "tw2-128 uneven"}
    assert {layer.mask for layer in layers} - elsewhere == set(gpu_preparation.REPRESENTATIVES)


@pytest.mark.parametrize("mask", gpu_preparation.REPRESENTATIVES)
def test_all_configurations_of_a_mask_are_compiled_before(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_contestants, "DEVICE", torch.device("cpu"))
    for module in (gpu_contestants, gpu_preparation):
        monkeypatch.setattr(module, "capability", lambda: 90)
    problem = gpu_contestants.Problem(gpu_contestants.Layer("", 256, 128, mask, 0.75))
    for features in (True, False):
        assert gpu_preparation.count(mask, features) == len(gpu_contestants.tiles(problem, features))
    assert gpu_preparation.count(mask, True) >= 3


@pytest.mark.parametrize("key", gpu_networks.NETWORKS)
def test_contestants_of_a_network(key: str) -> None:
    found = list(gpu_networks.contestants(key, torch.nn.Identity(), torch.zeros(1), {}))
    assert set(gpu_preparation.REHEARSED[key]) < set(found)
    assert found[:3] == ["eager", "ours block:128x64 50%", "ours block:128x64 75%"]
    assert found.index("max-autotune") == (3 if key == "bert-base" else len(found) - 1)
    assert {f"ours {name}" for name in gpu_networks.NETWORKS[key].prunings} < set(found)


def test_a_network_is_raced_contestant_after_contestant(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is told, what there is no time for is left out, and speedups are over the fastest dense one."""
    seconds = {"eager": 4.0, "ours a": 1.0, "ours b": 2.0, "max-autotune": 3.0}

    def prepare(name: str) -> Any:
        if name == "ours b":
            raise ValueError("no such way")
        return lambda: name

    network = gpu_networks.Network(lambda: (torch.nn.Identity(), torch.zeros(2, 3)), {}, tuning=50.0)
    monkeypatch.setattr(gpu_networks, "NETWORKS", {"small": network})
    monkeypatch.setattr(gpu_networks, "contestants", lambda *_: {name: partial(prepare, name) for name in seconds})
    monkeypatch.setattr(gpu_networks, "device_lap", lambda call: 1e3 * seconds[call()])
    steps = list(gpu_networks.race(("small", time.monotonic() + 100)))
    ready = ["eager", "ours a", "max-autotune"]
    assert [list(step["seconds"]) for step in steps] == [ready[:1], ready[:2], ready, ready]
    assert [step["speedup"] for step in steps] == [{}, {"ours a": 4.0}, {"ours a": 3.0}, {"ours a": 3.0}]
    assert steps[-1]["shape"] == [2, 3] and "no such way" in steps[-1]["failed"]["ours b"]
    assert list(gpu_networks.race(("small", time.monotonic() + 40)))[-1]["speedup"] == {"ours a": 4.0}
