"""The comparison: compile, check, time in turn, tell.

Zellige runs the pruned network, and the dense one too (``zellige-dense``); every rival runs the dense network at its
best settings on as many threads. No time counts before the answer was held to PyTorch in float64.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zellige.bench.accuracy import Reference, largest_relative_error
from zellige.bench.clock import LEAST_ROUNDS, Turn, ratio, run_rounds
from zellige.bench.comparison import OURS, OURS_DENSE, Comparison, Contestant, LayerRow
from zellige.bench.conditions import processor, versions
from zellige.bench.rivals import RIVALS, Rival, UnavailableRivalError
from zellige.bench.rivals.rival import contiguous_arrays
from zellige.bench.subject import Subject
from zellige.cpu.host import usable_cpus
from zellige.errors import BenchmarkError, VerificationError

OUR_TOLERANCE, RIVAL_TOLERANCE = 1e-4, 1e-3
"""Errors allowed in any case, as shares of the largest output; engines that fell back to bf16 miss both by far."""

Progress = Callable[[str], None]


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
    import zellige as zl

    threads = threads or usable_cpus()
    names = _rival_names(against)
    if rounds < 1:
        raise BenchmarkError(f"expected at least one round, got {rounds}")
    settings: dict[str, Any] = {"target": target, "dtype": dtype, "threads": threads, "winograd": winograd, "tune": tune}
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        progress("compiling")
        engine = zl.compile(subject.pruned, subject.inputs, **settings)
        engines = {OURS: engine}
        references = {OURS: Reference.of(subject.pruned, subject.inputs)}
        dense_reference = references[OURS]
        if subject.dense is not subject.pruned:
            engines[OURS_DENSE] = zl.compile(subject.dense, subject.inputs, **settings)
            dense_reference = references[OURS_DENSE] = Reference.of(subject.dense, subject.inputs)
        ready = {name: _ours(name, one, subject, settings) for name, one in engines.items()}
        errors = {name: _checked(ready[name], references[name]) for name in ready}
        unavailable: dict[str, str] = {}
        for name in names:
            progress(f"preparing {name}")
            try:
                rival = RIVALS[name](subject.dense, subject.inputs, threads)
                errors[name] = _rival_error(rival, dense_reference)
                ready[name] = rival
            except UnavailableRivalError as error:
                if against is not None:
                    raise BenchmarkError(f"{name} can't take part: {error}") from error
                unavailable[name] = str(error)
        timings = run_rounds(
            {name: one.call for name, one in ready.items()},
            rounds,
            after_round=lambda done: progress(f"round {done} of {rounds}"),
        )
        profile = engine.profile()
    finally:
        torch.set_num_threads(torch_threads)
    contestants = {
        name: Contestant(name, one.version, one.settings, errors[name], timings[name]) for name, one in ready.items()
    }
    rivals = [timings[name] for name in ready if name not in engines]
    return Comparison(
        model=subject.name,
        pattern=subject.pattern,
        sparsity=subject.sparsity,
        dtype=dtype,
        batch=subject.batch,
        threads=threads,
        contestants=contestants,
        unavailable=unavailable,
        speedups={name: ratio([timings[name]], timings[OURS]) for name in ready if name != OURS},
        over_fastest=ratio(rivals, timings[OURS]) if rivals else None,
        torch_error=references[OURS].torch_error,
        compile_seconds=engine.compile_seconds,
        file_bytes=_file_bytes(engine),
        dense_bytes=subject.dense_bytes,
        layers=_layers(profile),
        conditions={**_conditions(subject, threads, dtype, rounds), "peak_gflops": profile.peak_gflops},
    )


def _rival_names(against: Iterable[str] | None) -> list[str]:
    names = list(RIVALS) if against is None else list(dict.fromkeys(against))
    unknown = [name for name in names if name not in RIVALS]
    if unknown:
        raise BenchmarkError(f"unknown rivals: {', '.join(unknown)}; known are {', '.join(RIVALS)}")
    return names


def _ours(name: str, engine: Any, subject: Subject, settings: dict[str, Any]) -> Rival:
    """Our engine bound to its inputs, in the same form as the others."""
    import zellige as zl

    arrays = contiguous_arrays(subject.inputs)
    return Rival(name, zl.__version__, lambda: engine(*arrays), _flat_arrays, settings)


def _flat_arrays(answer: Any) -> tuple[np.ndarray, ...]:
    leaves = torch.utils._pytree.tree_leaves(answer)
    return tuple(np.asarray(leaf) for leaf in leaves)


def _checked(ours: Rival, reference: Reference) -> float:
    error, allowed = largest_relative_error(ours.answer(), reference.answer), reference.allowed(OUR_TOLERANCE)
    if not error <= allowed:
        raise VerificationError(
            f"{ours.name} is off by {error:.1e} of the largest output against PyTorch in float64; allowed are "
            f"{allowed:.1e} (PyTorch itself in f32: {reference.torch_error:.1e}). Nothing was timed"
        )
    return error


def _rival_error(rival: Rival, reference: Reference) -> float:
    error, allowed = largest_relative_error(rival.answer(), reference.answer), reference.allowed(RIVAL_TOLERANCE)
    if not error <= allowed:
        raise UnavailableRivalError(
            f"its answer is off by {error:.1e} of the largest output; allowed are {allowed:.1e}"
        )
    return error


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
