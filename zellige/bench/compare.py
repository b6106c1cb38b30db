"""The comparison: compile, check, time in turn, tell.

Zellige runs the pruned network, and the dense one too (``zellige-dense``); every rival runs the dense network at its
best settings on as many threads. No time counts before the answer was held to PyTorch in float64. Several prunings of
one network share the rivals and the rounds (``compare_all``), which saves time and makes them comparable with one another.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from zellige.bench.clock import LEAST_ROUNDS, Timing, Turn, ratio, run_rounds
from zellige.bench.comparison import OURS, OURS_DENSE, Comparison, Contestant, LayerRow
from zellige.bench.conditions import processor, versions
from zellige.bench.entrants import Entrant, OurEntrant, Progress, enter_ours, enter_rivals, rival_names
from zellige.bench.subject import Subject
from zellige.cpu.host import usable_cpus
from zellige.errors import BenchmarkError


def compare(
    subject: Subject,
    threads: int | None = None,
    dtype: str = "f32",
    against: Iterable[str] | None = None,
    rounds: int = LEAST_ROUNDS,
    winograd: bool = True,
    tune: str = "model",
    target: str = "cpu",
    progress: Progress = lambda message: None,
) -> Comparison:
    """Time Zellige beside its rivals on one subject.

    ``against`` names the rivals, each of which must take part. ``None`` takes all that can, and tells why others can't.
    Raises :class:`VerificationError` if Zellige's answer is off, :class:`BenchmarkError` for unknown
    or missing rivals.
    """
    return compare_all([subject], threads, dtype, against, rounds, winograd, tune, target, progress)[0]


def compare_all(
    subjects: Iterable[Subject],
    threads: int | None = None,
    dtype: str = "f32",
    against: Iterable[str] | None = None,
    rounds: int = LEAST_ROUNDS,
    winograd: bool = True,
    tune: str = "model",
    target: str = "cpu",
    progress: Progress = lambda message: None,
) -> list[Comparison]:
    """Time Zellige on several prunings of one network beside the rivals on the dense one, all in the same rounds.

    Subjects are taken one by one, and their pruned modules let go once compiled. They must share the dense module and
    the inputs, else :class:`BenchmarkError` is raised.
    """
    threads = threads or usable_cpus()
    names = rival_names(against)
    if rounds < 1:
        raise BenchmarkError(f"expected at least one round, got {rounds}")
    settings: dict[str, Any] = {"target": target, "dtype": dtype, "threads": threads, "winograd": winograd, "tune": tune}
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        taken, dense = _enter_subjects(subjects, settings, progress)
        common = taken[0][0]
        rivals, unavailable = enter_rivals(
            names, common.dense, common.inputs, threads, dense.reference, against is not None, progress
        )
        ours = {f"{OURS} {index}": one for index, (_, one) in enumerate(taken)}
        dense_name = next((name for name, one in ours.items() if one is dense), OURS_DENSE)
        ready = {**ours, dense_name: dense, **rivals}
        timings = run_rounds(
            {name: one.runner.call for name, one in ready.items()},
            rounds,
            after_round=lambda done: progress(f"round {done} of {rounds}"),
        )
        contestants = {name: _contestant(one, timings[name]) for name, one in ready.items()}
        conditions = _conditions(common, threads, dtype, rounds)
        found = []
        for name, (subject, one) in zip(ours, taken, strict=True):
            beside = {} if one is dense else {OURS_DENSE: replace(contestants[dense_name], name=OURS_DENSE)}
            part = {OURS: contestants[name], **beside, **{rival: contestants[rival] for rival in rivals}}
            found.append(_comparison(subject, one, part, list(rivals), unavailable, conditions))
        return found
    finally:
        torch.set_num_threads(torch_threads)


def _enter_subjects(
    subjects: Iterable[Subject], settings: dict[str, Any], progress: Progress
) -> tuple[list[tuple[Subject, OurEntrant]], OurEntrant]:
    """Compile and check what is asked for, and the dense network; the subjects come back without their pruned modules."""
    taken: list[tuple[Subject, OurEntrant]] = []
    dense: OurEntrant | None = None
    for subject in subjects:
        if taken and (subject.dense is not taken[0][0].dense or subject.inputs is not taken[0][0].inputs):
            raise BenchmarkError(f"{subject.name}: what is compared together must be one network with the same inputs")
        progress(f"compiling {subject.name} at {subject.sparsity:.0%}")
        if subject.pruned is subject.dense:
            dense = one = dense or enter_ours(OURS, subject.dense, subject.inputs, settings)
        else:
            one = enter_ours(OURS, subject.pruned, subject.inputs, settings)
        taken.append((replace(subject, pruned=subject.dense), one))
    if not taken:
        raise BenchmarkError("expected at least one network to compare, got none")
    return taken, dense or enter_ours(OURS_DENSE, taken[0][0].dense, taken[0][0].inputs, settings)


def _contestant(one: Entrant, timing: Timing) -> Contestant:
    runner = one.runner
    return Contestant(runner.name, runner.version, runner.settings, one.relative_error, timing)


def _comparison(
    subject: Subject,
    ours: OurEntrant,
    contestants: dict[str, Contestant],
    rivals: list[str],
    unavailable: dict[str, str],
    conditions: dict[str, object],
) -> Comparison:
    timings = {name: one.timing for name, one in contestants.items()}
    profile = ours.engine.profile()
    return Comparison(
        model=subject.name,
        pattern=subject.pattern,
        sparsity=subject.sparsity,
        dtype=str(conditions["dtype"]),
        batch=subject.batch,
        threads=int(str(conditions["threads"])),
        contestants=contestants,
        unavailable=unavailable,
        speedups={name: ratio([timing], timings[OURS]) for name, timing in timings.items() if name != OURS},
        over_fastest=ratio([timings[name] for name in rivals], timings[OURS]) if rivals else None,
        torch_error=ours.reference.torch_error,
        compile_seconds=ours.engine.compile_seconds,
        file_bytes=_file_bytes(ours.engine),
        dense_bytes=subject.dense_bytes,
        layers=_layers(profile),
        conditions={**conditions, "peak_gflops": profile.peak_gflops},
    )


def _layers(profile: Any) -> tuple[LayerRow, ...]:
    return tuple(
        LayerRow(
            name=row.name,
            op=row.op,
            pattern=row.pattern,
            density=row.density,
            path=row.path,
            reason=row.reason,
            us=row.microseconds,
            gflops=row.gflops,
            peak_share=row.peak_share,
        )
        for row in profile.rows
    )


def _file_bytes(engine: Any) -> int:
    with tempfile.TemporaryDirectory(prefix="zellige-bench-") as directory:
        path = Path(directory, "model.zlg")
        engine.save(path)
        return path.stat().st_size


def _conditions(subject: Subject, threads: int, dtype: str, rounds: int) -> dict[str, object]:
    machine = processor()
    shapes = [list(tensor.shape) for tensor in subject.inputs]
    sizes = ", ".join("×".join(map(str, shape)) for shape in shapes)
    where = f"{machine['name']} ({machine['llvm_name']}), {threads} thread{'s' * (threads > 1)}"
    return {
        "summary": f"{where}, {dtype}, inputs {sizes}, {rounds} rounds",
        "cpu": machine,
        "threads": threads,
        "dtype": dtype,
        "batch": subject.batch,
        "inputs": shapes,
        "weights": subject.weights,
        "rounds": rounds,
        "turn": asdict(Turn()),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
