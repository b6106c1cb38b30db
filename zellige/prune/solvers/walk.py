"""What layers are called on, one layer after another in the order in which the model runs them, weights being rewritten on the way.

To run the whole model for every layer would take layers / 2 times as long as to run it once. So modules are entered: the
arguments of a module are kept, for all batches, and what is in it is run from there, until the layer in question has been
called for the last time. In it the same holds for its own modules. That needs no knowledge of how modules are connected: a
residual block is run as a whole, from its beginning. Held at any time are the arguments of the modules that are being visited,
one inside the other.

A module is entered if a run calls it once, and no layer in it is called anywhere else; layers that are called several times are
looked at from outside, all calls together. The first batch shows the structure. Modules are taken for functions of their
arguments, and arguments are copied before each run: some write into them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.prune.calibration import Calibration
from zellige.prune.data_score import refuse_idle
from zellige.prune.layers import Layer
from zellige.prune.windows import input_of

Run = Callable[[], None]
"""Runs a module, or the whole model, on one batch."""
See = Callable[[int, nn.Module, torch.Tensor], None]
"""Is told, of every call of a layer, the number of the batch, the module and its input."""
Sight = tuple[Layer, Callable[[See], None]]
"""A layer, and what shows all that it is called on."""
Users = Mapping[Layer, Sequence[nn.Module]]
"""The modules that a layer's weight belongs to."""


class _Seen(BaseException):
    """Ends a run early: what it was for has been seen."""


@dataclass(eq=False)
class Visit:
    """A call of a module, and the calls of layers and of what holds layers inside it."""

    module: nn.Module
    layer: Layer | None = None
    inside: list[Visit] = field(default_factory=list)

    def calls(self) -> Counter[Layer]:
        """How often each layer is called in it."""
        own = Counter([self.layer] if self.layer is not None else [])
        return sum((visit.calls() for visit in self.inside), own)


@dataclass(frozen=True, eq=False)
class Look:
    """A layer to look at, and how often it is called in a run."""

    layer: Layer
    times: int


@dataclass(frozen=True, eq=False)
class Entry:
    """A module to enter, and what to do in it."""

    module: nn.Module
    steps: list[Look | Entry]


def walk(
    purpose: str, model: nn.Module, layers: Sequence[Layer], calibration: Calibration, batches: Sequence[Any]
) -> Iterator[Sight]:
    """The layers in the order of their first call, each with a function that shows all that it is called on.

    That function must be called before the next layer is asked for; the layer's weight may be changed in between. To be used
    where the model is ``undisturbed``.

    Raises:
        PruneError: the model can't run on a batch, never calls a layer, or goes another way on a batch than on the first one.
    """
    def whole(batch: Any) -> Run:
        return lambda: calibration.run(purpose, model, _copied(batch))

    users = {layer: list({id(user): user for user in map(model.get_submodule, layer.names)}.values()) for layer in layers}
    runs = [whole(batch) for batch in batches]
    visited = _visited(model, users, runs[0])
    called = visited.calls()
    refuse_idle([layer for layer in layers if layer not in called], purpose, "the model never calls")
    yield from _follow(purpose, users, runs, planned(visited, called))


def planned(visit: Visit, called: Counter[Layer]) -> list[Look | Entry]:
    """What to do in a visit. ``called``: how often layers are called in the whole run. A module with one step in it isn't worth
    entering, the step is taken from outside; nor is the model, with which a run begins."""
    times = Counter(id(inner.module) for inner in visit.inside)
    steps: list[Look | Entry] = []
    looked: set[Layer] = set()
    for inner in visit.inside:
        calls = inner.calls()
        complete = times[id(inner.module)] == 1 and all(called[layer] == count for layer, count in calls.items())
        if inner.layer is None and complete:
            within = planned(inner, called)
            steps += within if len(within) < 2 or inner.module is visit.module else [Entry(inner.module, within)]
            continue
        fresh = [layer for layer in calls if layer not in looked]
        looked.update(fresh)
        steps += [Look(layer, called[layer]) for layer in fresh]
    return steps


def _follow(purpose: str, users: Users, runs: Sequence[Run], steps: Sequence[Look | Entry]) -> Iterator[Sight]:
    for step in steps:
        if isinstance(step, Look):
            yield step.layer, _looking(purpose, users[step.layer], runs, step)
        else:
            yield from _follow(purpose, users, [_entered(purpose, run, step.module) for run in runs], step.steps)


def _looking(purpose: str, users: Sequence[nn.Module], runs: Sequence[Run], step: Look) -> Callable[[See], None]:
    def look(see: See) -> None:
        for number, run in enumerate(runs):
            count = _watch(run, users, step.times, lambda module, *given, at=number: see(at, module, input_of(*given)))
            if count != step.times:
                raise PruneError(f"{purpose}: layer '{step.layer.name}' is called {step.times} times on the first batch, and "
                                 f"{count} times on another; all batches must go the same way through the model.")
    return look


def _entered(purpose: str, run: Run, module: nn.Module) -> Run:
    """What runs the module alone, on what it is called on in a run."""
    kept: list[tuple[Any, Any]] = []
    if not _watch(run, [module], 1, lambda _, *given: kept.append(given), first=True):
        raise PruneError(f"{purpose}: a {type(module).__name__} is called on the first batch, and not on another; all batches must "
                         "go the same way through the model.")
    arguments, named = kept[0]

    def alone() -> None:
        try:
            module(*_copied(arguments), **_copied(named))
        except FAILURES as error:
            raise PruneError(f"{purpose}: the model can't run on a batch, from a {type(module).__name__} in it onwards: "
                             f"{in_one_line(error)}") from error
    return alone


def _watch(run: Run, modules: Sequence[nn.Module], times: int, see: Callable[..., object], first: bool = False) -> int:
    """Runs, shows the calls of some modules (module, arguments, named ones), and ends the run at the last one expected. Returns
    how many there were. ``first``: as the module is called, before hooks of its own change that."""
    count = 0

    def called(module: nn.Module, arguments: Any, named: Any) -> None:
        nonlocal count
        see(module, arguments, named)
        count += 1
        if count == times:
            raise _Seen

    handles = [module.register_forward_pre_hook(called, prepend=first, with_kwargs=True) for module in modules]
    try:
        run()
    except _Seen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return count


def _visited(model: nn.Module, users: Users, run: Run) -> Visit:
    """One run, watched: which layers and modules around them are called, in which order, one inside the other."""
    owners = {id(user): layer for layer, owned in users.items() for user in owned}
    around = [module for module in model.modules() if any(id(part) in owners for part in module.modules())]
    top = Visit(model)  # stands for the run, in which the model may be called several times, or be a layer itself
    under_way = [top]

    def enter(module: nn.Module, arguments: Any, named: Any) -> None:
        visit = Visit(module, owners.get(id(module)))
        under_way[-1].inside.append(visit)
        under_way.append(visit)

    def leave(module: nn.Module, arguments: Any, results: Any) -> None:
        under_way.pop()

    handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in around]
    handles += [module.register_forward_hook(leave) for module in around]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return top


def _copied(value: Any) -> Any:
    """Arguments whose tensors are copies."""
    return tree_map_only(torch.Tensor, torch.clone, value)
