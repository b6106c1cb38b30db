"""From a verb's arguments to a network, pruned if asked, and to its engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zellige.cli.arguments import both_or_neither, parse_shape
from zellige.errors import ZelligeError
from zellige.terminal import working

if TYPE_CHECKING:
    from zellige.models import NamedModel

COMPILED, OBJECT = ".zlg", ".o"


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

    @property
    def is_compiled(self) -> bool:
        return Path(self.name).suffix == COMPILED

    def load(self) -> NamedModel:
        """The network as named, not pruned yet."""
        from zellige.models import resolve

        if self.is_compiled:
            raise ZelligeError(f"{self.name} is compiled already; this verb needs the model that it was made from")
        shape = parse_shape(self.shape)
        with working("loading the model"):
            return resolve(self.name, self.weights, self.batch, shape)

    def prune(self, named: NamedModel) -> Any:
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
    """How to compile: target, type, threads, and what the planner may do."""

    target: str = "cpu"
    dtype: str = "f32"
    threads: int | None = None
    winograd: bool = True
    tune: str = "model"

    def compile(self, named: NamedModel) -> Any:
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

        if (self.dtype, self.tune) != ("f32", "model"):
            raise ZelligeError(f"an object file is made in f32 and planned by the cost model, not in {self.dtype} by {self.tune}")
        with working("compiling"):
            return zl.export(named.model, named.example_inputs, path, target=self.target, threads=self.threads or 1,
                             winograd=self.winograd)

    def engine(self, network: NetworkChoice) -> Any:
        """The engine of a network: loaded from a .zlg file, or resolved, pruned and compiled."""
        import zellige as zl

        if network.is_compiled:
            if network.pattern is not None or network.weights is not None:
                raise ZelligeError(f"{network.name} is compiled already: --pattern and --weights have no effect on it")
            with working("loading"):
                return zl.load(network.name, threads=self.threads)
        named = network.load()
        network.prune(named)
        return self.compile(named)
