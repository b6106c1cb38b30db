"""From a verb's arguments to a network, pruned if asked, and to its engine."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zellige.cli.arguments import both_or_neither, parse_shape
from zellige.errors import ZelligeError
from zellige.terminal import working

if TYPE_CHECKING:
    from zellige.cpu.calls import Plan
    from zellige.cuda.engine import CudaEngine
    from zellige.engine import Engine
    from zellige.graph.ir import Graph
    from zellige.models import NamedModel
    from zellige.prune import PruneReport

COMPILED, OBJECT = ".zlg", ".o"
CUDA = "cuda"
SAVED = ("dtype", "winograd")
"""Options of an engine that are settled in a .zlg file."""

SPELLINGS = {"winograd": "--no-winograd"}


@dataclass(frozen=True)
class NetworkChoice:
    """What a user said about the network: name, weights, inputs, and how to prune it."""

    name: str
    weights: Path | None = None
    batch: int = 1
    shape: str | None = None
    pattern: str | None = None
    sparsity: float | None = None
    scope: str = "layer"
    score: str = "l1"

    def __post_init__(self) -> None:
        both_or_neither(self.pattern, self.sparsity)
        idle = changed(self, "scope", "score")
        if self.pattern is None and idle:
            raise typer.BadParameter(f"{idle[0]} needs --pattern beside it")

    @property
    def is_compiled(self) -> bool:
        return Path(self.name).suffix == COMPILED

    @property
    def changed(self) -> list[str]:
        """All options that were given beside the name."""
        return changed(self, *(field.name for field in fields(self) if field.name != "name"))

    def load(self) -> NamedModel:
        """The network as named, not pruned yet."""
        from zellige.models import resolve

        if self.is_compiled:
            raise ZelligeError(f"{self.name} is compiled already; this verb needs the model that it was made from")
        shape = parse_shape(self.shape)
        with working("loading the model"):
            return resolve(self.name, self.weights, self.batch, shape)

    def prune(self, named: NamedModel) -> PruneReport | None:
        """Prune the network in place where that was asked for; returns the report, or ``None``."""
        if self.pattern is None or self.sparsity is None:
            return None
        import zellige as zl
        from zellige.models import warm_statistics

        with working("pruning"):
            report = zl.prune(
                named.model,
                self.pattern,
                sparsity=self.sparsity,
                example_inputs=named.example_inputs,
                scope=self.scope,
                score=self.score,
            )
            if named.random_weights:
                warm_statistics(named.model, named.example_inputs)
        return report


@dataclass(frozen=True)
class EngineChoice:
    """How to compile: target, type, threads, and what the planner may do.

    A .zlg file says itself in which type and with which algorithms it computes; the rest is chosen when it is loaded.
    """

    target: str = "cpu"
    dtype: str | None = None
    threads: int | None = None
    winograd: bool = True
    tune: str = "model"

    @property
    def is_gpu(self) -> bool:
        return self.target == CUDA

    def check(self) -> None:
        """Refuse a GPU that can't be had, or options that it does not have, before any work is done. CPUs are refused where their
        target is looked up, which comes early too."""
        if self.is_gpu:
            from zellige.api import check_gpu

            check_gpu(self.dtype, self.threads, self.winograd, self.tune)

    def compile(self, named: NamedModel) -> Engine | CudaEngine:
        """Compile the network for its example inputs."""
        import zellige as zl

        with working("compiling"):
            return zl.compile(
                named.model,
                named.example_inputs,
                target=self.target,
                dtype=self.dtype,
                threads=self.threads,
                winograd=self.winograd,
                tune=self.tune,
            )

    def export(self, named: NamedModel, path: Path) -> Path:
        """Write the network as an object file and its header; returns the header's path."""
        import zellige as zl

        if (self.dtype or "f32", self.tune) != ("f32", "model"):
            raise ZelligeError("an object file is made in f32 and planned by the cost model, "
                               f"not in {self.dtype or 'f32'} by {self.tune}")
        with working("compiling"):
            return zl.export(named.model, named.example_inputs, path, target=self.target, threads=self.threads or 1,
                             winograd=self.winograd)

    def load(self, file: str | Path) -> Engine:
        """The engine of a .zlg file."""
        import zellige as zl

        refuse_for_file(file, changed(self, *SAVED))
        if self.is_gpu:
            raise ZelligeError(f"{file} is compiled for CPUs; target cuda needs the model that it was made from")
        with working("loading"):
            return zl.load(file, target=self.target, threads=self.threads, tune=self.tune)

    def engine(self, network: NetworkChoice) -> Engine | CudaEngine:
        """The engine of a network: loaded from a .zlg file, or resolved, pruned and compiled."""
        if network.is_compiled:
            refuse_for_file(network.name, network.changed)
            return self.load(network.name)
        self.check()
        named = network.load()
        network.prune(named)
        return self.compile(named)

    def plan(self, network: NetworkChoice) -> tuple[Graph, Plan, bool]:
        """A network's optimised graph, the plan for the target, which need not run here, and whether Winograd is allowed."""
        if network.is_compiled:
            return self._plan_file(network)
        from zellige.api import plan

        named = network.load()
        network.prune(named)
        with working("planning"):
            graph, planned = plan(named.model, named.example_inputs, target=self.target, dtype=self.dtype or "f32",
                                  threads=self.threads, winograd=self.winograd, tune=self.tune)
        return graph, planned, self.winograd

    def _plan_file(self, network: NetworkChoice) -> tuple[Graph, Plan, bool]:
        from zellige.cpu.compiler import find_isa, plan_for
        from zellige.engine import check_threads, read_network

        refuse_for_file(network.name, [*network.changed, *changed(self, *SAVED)])
        isa, threads = find_isa(self.target), check_threads(self.threads)
        with working("planning"):
            graph, options = read_network(network.name)
            options = replace(options, tune=self.tune, threads=threads)
            return graph, plan_for(graph, isa, options), options.winograd


def changed(choice: NetworkChoice | EngineChoice, *names: str) -> list[str]:
    """Those of the options that differ from their defaults, as they are written on the command line."""
    defaults = {field.name: field.default for field in fields(choice)}
    return [SPELLINGS.get(name, f"--{name}") for name in names if getattr(choice, name) != defaults[name]]


def refuse_for_file(file: str | Path, options: list[str]) -> None:
    """A compiled network was pruned, shaped and typed when it was made."""
    if options:
        raise ZelligeError(f"{file} is compiled already: {' and '.join(options)} would have no effect on it")
