"""Who takes part in a comparison: our engines and the rivals, bound to the inputs and held to float64 before a clock runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zellige.bench.accuracy import Reference, largest_relative_error
from zellige.bench.place import Place
from zellige.bench.rivals import Inputs, Rival, UnavailableRivalError
from zellige.bench.rivals.torch_eager import arrays_of
from zellige.errors import BenchmarkError, VerificationError

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Entrant:
    """An engine ready to be timed, and how far off float64 it is."""

    runner: Rival
    relative_error: float


@dataclass(frozen=True)
class OurEntrant(Entrant):
    """Our engine on one network, and what PyTorch made of the same network in float64 and in the type of the place."""

    engine: Any
    reference: Reference


def enter_ours(name: str, model: torch.nn.Module, inputs: Inputs, place: Place) -> OurEntrant:
    """Compile and check; raises :class:`VerificationError` if the answer is off."""
    import zellige as zl

    engine = zl.compile(model, inputs, **place.settings)
    reference = place.reference(model, inputs)
    runner = Rival(name, zl.__version__, place.bound(engine, inputs), _flat_arrays, dict(place.settings))
    error = largest_relative_error(runner.answer(), reference.answer)
    allowed = reference.allowed(place.our_tolerance, place.slack)
    if not error <= allowed:
        raise VerificationError(
            f"{name} is off by {error:.1e} of the largest output against PyTorch in float64; allowed are "
            f"{allowed:.1e} (PyTorch itself in {place.dtype}: {reference.torch_error:.1e}). Nothing was timed"
        )
    return OurEntrant(runner, error, engine, reference)


def enter_rivals(
    names: Sequence[str],
    model: torch.nn.Module,
    inputs: Inputs,
    place: Place,
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
            rival = place.rivals[name](model, inputs)
            entered[name] = Entrant(rival, _rival_error(rival, reference, place))
        except UnavailableRivalError as error:
            if required:
                raise BenchmarkError(f"{name} can't take part: {error}") from error
            unavailable[name] = str(error)
    return entered, unavailable


def rival_names(against: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """The rivals asked for, each once; all that are ``known`` for ``None``. Raises :class:`BenchmarkError` for other names."""
    known = list(known)
    names = known if against is None else list(dict.fromkeys(against))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BenchmarkError(f"unknown rivals: {', '.join(unknown)}; known are {', '.join(known)}")
    return names


def _flat_arrays(answer: Any) -> tuple[np.ndarray, ...]:
    leaves = torch.utils._pytree.tree_leaves(answer)
    return tuple(array for leaf in leaves for array in (arrays_of(leaf) if isinstance(leaf, torch.Tensor) else [np.asarray(leaf)]))


def _rival_error(rival: Rival, reference: Reference, place: Place) -> float:
    error = largest_relative_error(rival.answer(), reference.answer)
    allowed = reference.allowed(place.rival_tolerance, place.slack)
    if not error <= allowed:
        raise UnavailableRivalError(
            f"its answer is off by {error:.1e} of the largest output; allowed are {allowed:.1e}"
        )
    return error
