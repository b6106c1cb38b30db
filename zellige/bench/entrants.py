"""Who takes part in a comparison: our engines and the rivals, bound to the inputs and held to float64 before a clock runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zellige.bench.accuracy import Reference, largest_relative_error
from zellige.bench.rivals import RIVALS, Rival, UnavailableRivalError
from zellige.bench.rivals.rival import Inputs, contiguous_arrays
from zellige.errors import BenchmarkError, VerificationError

OUR_TOLERANCE, RIVAL_TOLERANCE = 1e-4, 1e-3
"""Errors allowed in any case, as shares of the largest output; engines that fell back to bf16 miss both by far."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Entrant:
    """An engine ready to be timed, and how far off float64 it is."""

    runner: Rival
    relative_error: float


@dataclass(frozen=True)
class OurEntrant(Entrant):
    """Our engine on one network, and what PyTorch made of the same network in float64 and in f32."""

    engine: Any
    reference: Reference


def enter_ours(name: str, model: torch.nn.Module, inputs: Inputs, settings: Mapping[str, Any]) -> OurEntrant:
    """Compile and check; raises :class:`VerificationError` if the answer is off."""
    import zellige as zl

    engine = zl.compile(model, inputs, **settings)
    reference = Reference.of(model, inputs)
    arrays = contiguous_arrays(inputs)
    runner = Rival(name, zl.__version__, lambda: engine(*arrays), _flat_arrays, dict(settings))
    error, allowed = largest_relative_error(runner.answer(), reference.answer), reference.allowed(OUR_TOLERANCE)
    if not error <= allowed:
        raise VerificationError(
            f"{name} is off by {error:.1e} of the largest output against PyTorch in float64; allowed are "
            f"{allowed:.1e} (PyTorch itself in f32: {reference.torch_error:.1e}). Nothing was timed"
        )
    return OurEntrant(runner, error, engine, reference)


def enter_rivals(
    names: Sequence[str],
    model: torch.nn.Module,
    inputs: Inputs,
    threads: int,
    reference: Reference,
    required: bool,
    progress: Progress,
) -> tuple[dict[str, Entrant], dict[str, str]]:
    """Build and check the rivals; gives those that take part, and why the others can't.

    Raises :class:`BenchmarkError` for one that can't where all are ``required``.
    """
    entered: dict[str, Entrant] = {}
    unavailable: dict[str, str] = {}
    for name in names:
        progress(f"preparing {name}")
        try:
            rival = RIVALS[name](model, inputs, threads)
            entered[name] = Entrant(rival, _rival_error(rival, reference))
        except UnavailableRivalError as error:
            if required:
                raise BenchmarkError(f"{name} can't take part: {error}") from error
            unavailable[name] = str(error)
    return entered, unavailable


def rival_names(against: Iterable[str] | None) -> list[str]:
    """The rivals asked for, each once; all for ``None``. Raises :class:`BenchmarkError` for unknown names."""
    names = list(RIVALS) if against is None else list(dict.fromkeys(against))
    unknown = [name for name in names if name not in RIVALS]
    if unknown:
        raise BenchmarkError(f"unknown rivals: {', '.join(unknown)}; known are {', '.join(RIVALS)}")
    return names


def _flat_arrays(answer: Any) -> tuple[np.ndarray, ...]:
    leaves = torch.utils._pytree.tree_leaves(answer)
    return tuple(np.asarray(leaf) for leaf in leaves)


def _rival_error(rival: Rival, reference: Reference) -> float:
    error, allowed = largest_relative_error(rival.answer(), reference.answer), reference.allowed(RIVAL_TOLERANCE)
    if not error <= allowed:
        raise UnavailableRivalError(
            f"its answer is off by {error:.1e} of the largest output; allowed are {allowed:.1e}"
        )
    return error
