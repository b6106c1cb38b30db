"""The comparison: compile, check, time in turn, tell.

Zellige runs the pruned network, and the dense one too (``zellige-dense``); every rival runs the dense network at its
best settings on as many threads, or on the same GPU in the same type (``place.py``). No time counts before the answer was held
to PyTorch in float64. Several prunings of one network share the rivals and the rounds (``compare_all``), which saves time and
makes them comparable with one another.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import torch

from zellige.api import CUDA
from zellige.bench.clock import LEAST_ROUNDS, Timing, ratio, run_rounds
from zellige.bench.comparison import OURS, OURS_DENSE, Comparison, Contestant, LayerRow
from zellige.bench.conditions import versions
from zellige.bench.entrants import Entrant, OurEntrant, Progress, enter_ours, enter_rivals, rival_names
from zellige.bench.on_cpu import OnCpu
from zellige.bench.on_gpu import OnGpu
from zellige.bench.place import Place
from zellige.bench.subject import Subject
from zellige.errors import BenchmarkError


def compare(
    subject: Subject,
    threads: int | None = None,
    dtype: str | None = None,
    against: Iterable[str] | None = None,
    rounds: int = LEAST_ROUNDS,
    winograd: bool = True,
    tune: str = "model",
    target: str = "cpu",
    progress: Progress = lambda message: None,
) -> Comparison:
    """Time Zellige beside its rivals on one subject.

    ``target``, ``dtype``, ``threads``, ``winograd`` and ``tune`` are as for ``zl.compile``. ``against`` names the rivals, each of
    which must take part. ``None`` takes all that can, and tells why others can't. Raises :class:`VerificationError` if Zellige's
    answer is off, :class:`BenchmarkError` for unknown or missing rivals, :class:`CompileError` where the target can't be had.
    """
    return compare_all([subject], threads, dtype, against, rounds, winograd, tune, target, progress)[0]


def compare_all(
    subjects: Iterable[Subject],
    threads: int | None = None,
    dtype: str | None = None,
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
    place = find_place(threads, dtype, winograd, tune, target)
    names = rival_names(against, place.rivals)
    if rounds < 1:
        raise BenchmarkError(f"expected at least one round, got {rounds}")
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(place.threads or torch_threads)
    try:
        taken, dense = _enter_subjects(subjects, place, progress)
        common = taken[0][0]
        rivals, unavailable = enter_rivals(
            names, common.dense, common.inputs, place, dense.reference, against is not None, progress
        )
        ours = {f"{OURS} {index}": one for index, (_, one) in enumerate(taken)}
        dense_name = next((name for name, one in ours.items() if one is dense), OURS_DENSE)
        ready = {**ours, dense_name: dense, **rivals}
        timings = run_rounds(
            {name: one.runner.call for name, one in ready.items()},
            rounds,
            place.turn,
            lambda done: progress(f"round {done} of {rounds}"),
            place.lap,
        )
        contestants = {name: _contestant(one, timings[name]) for name, one in ready.items()}
        conditions = _conditions(common, place, rounds)
        found = []
        for name, (subject, one) in zip(ours, taken, strict=True):
            beside = {} if one is dense else {OURS_DENSE: replace(contestants[dense_name], name=OURS_DENSE)}
            part = {OURS: contestants[name], **beside, **{rival: contestants[rival] for rival in rivals}}
            found.append(_comparison(subject, one, part, list(rivals), unavailable, conditions, place))
        return found
    finally:
        torch.set_num_threads(torch_threads)


def find_place(threads: int | None, dtype: str | None, winograd: bool, tune: str, target: str) -> Place:
    """Where to compare for a target. Raises :class:`CompileError` if it is a GPU that can't be had."""
    return OnGpu(threads, dtype, winograd, tune) if target == CUDA else OnCpu(threads, dtype, winograd, tune, target)


def _enter_subjects(
    subjects: Iterable[Subject], place: Place, progress: Progress
) -> tuple[list[tuple[Subject, OurEntrant]], OurEntrant]:
    """Compile and check what is asked for, and the dense network; the subjects come back without their pruned modules."""
    taken: list[tuple[Subject, OurEntrant]] = []
    dense: OurEntrant | None = None
    for subject in subjects:
        if taken and (subject.dense is not taken[0][0].dense or subject.inputs is not taken[0][0].inputs):
            raise BenchmarkError(f"{subject.name}: what is compared together must be one network with the same inputs")
        progress(f"compiling {subject.name} at {subject.sparsity:.0%}")
        if subject.pruned is subject.dense:
            dense = one = dense or enter_ours(OURS, subject.dense, subject.inputs, place)
        else:
            one = enter_ours(OURS, subject.pruned, subject.inputs, place)
        taken.append((replace(subject, pruned=subject.dense), one))
    if not taken:
        raise BenchmarkError("expected at least one network to compare, got none")
    return taken, dense or enter_ours(OURS_DENSE, taken[0][0].dense, taken[0][0].inputs, place)


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
    place: Place,
) -> Comparison:
    timings = {name: one.timing for name, one in contestants.items()}
    profile = ours.engine.profile()
    return Comparison(
        model=subject.name,
        pattern=subject.pattern,
        sparsity=subject.sparsity,
        dtype=place.dtype,
        batch=subject.batch,
        threads=place.threads,
        contestants=contestants,
        unavailable=unavailable,
        speedups={name: ratio([timing], timings[OURS]) for name, timing in timings.items() if name != OURS},
        over_fastest=ratio([timings[name] for name in rivals], timings[OURS]) if rivals else None,
        torch_error=ours.reference.torch_error,
        compile_seconds=ours.engine.compile_seconds,
        file_bytes=place.file_bytes(ours.engine),
        dense_bytes=subject.dense_bytes,
        layers=_layers(profile),
        conditions={**conditions, **_measured_with(profile)},
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
            peak_share=getattr(row, "peak_share", None),
        )
        for row in profile.rows
    )


def _measured_with(profile: Any) -> dict[str, object]:
    """What a profile knows of the machine, or of how the network runs there."""
    return {name: getattr(profile, name) for name in ("peak_gflops", "form") if hasattr(profile, name)}


def _conditions(subject: Subject, place: Place, rounds: int) -> dict[str, object]:
    found = place.conditions(subject)
    return {
        **found,
        "summary": f"{found['summary']}, {rounds} rounds",
        "rounds": rounds,
        "turn": asdict(place.turn),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
