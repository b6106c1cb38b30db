"""The compiled network: call it, save it, load it, clone it, look where its time goes.

Needs numpy and llvmlite. PyTorch's tensors are taken and given where PyTorch is loaded already; it is never
imported here.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from numbers import Integral
from typing import Any, NoReturn, TypeGuard

import numpy as np

from zellige.cpu.calls import LayerPlan
from zellige.cpu.compiler import Compiled, compile_graph
from zellige.cpu.fork import ForkLock
from zellige.cpu.host import usable_cpus
from zellige.cpu.lower.lowering import Options
from zellige.cpu.pool import Pool
from zellige.cpu.ports import Port, torch_of
from zellige.cpu.program import Program
from zellige.errors import CompileError, FileFormatError, InputError, ZelligeError
from zellige.graph.ir import Graph
from zellige.graph.trees import flatten, unflatten
from zellige.pack.file import load_graph, save_graph
from zellige.profile import Profile, profile_program

MOST_THREADS = 256


class Engine:
    """A network compiled for fixed shapes. Made by ``zl.compile`` and ``zl.load``.

    Calls from several threads are served one after another; ``clone()`` gives an engine that shares weights and code but runs
    by itself. A forked child may use an engine made before the fork.

    Beside packed weights, a loaded engine has no others in memory: ``graph.constants`` are read from its file, which stays
    open, when they are asked for. A compiled one keeps them.
    """

    def __init__(self, graph: Graph, compiled: Compiled, options: Options, threads: int, compile_seconds: float) -> None:
        self.graph = graph
        self.threads = threads
        self.compile_seconds = compile_seconds
        self._compiled, self._options = compiled, options
        self._lock = ForkLock()
        self._program = Program(compiled.plan, compiled.tables, compiled.code, Pool(threads))
        self._inputs = [Port(name, kind.shape, self._program.patches("input", index, 4 * kind.elements))
                        for index, (name, kind) in enumerate(graph.inputs.items())]
        results = [(name, graph.type_of(name)) for name in graph.outputs]
        self._outputs = [Port(name, kind.shape, self._program.patches("output", index, 4 * kind.elements))
                         for index, (name, kind) in enumerate(results)]
        self._plain = graph.input_tree == {"tuple": [0]}
        self._single = len(self._outputs) == 1 and graph.output_tree in (None, 0)

    def __call__(self, *inputs: Any) -> Any:
        """Run the network. Arguments and results nest as the model's do; torch tensors give torch tensors, arrays give arrays.

        A NaN or an infinity spreads as in PyTorch in float64, with five exceptions: weights that were left out stop it; a Winograd
        convolution makes NaN of all of its tiles that read it; linear layers, convolutions of single pixels and interpolated lines
        may make NaN of what would be infinite; ``sigmoid`` of −∞ is not quite 0 (less than 10⁻³⁷), so that ``silu`` of it is less
        than 3·10⁻³⁷ from 0, and no product of the two NaN; and ``lerp`` by a tensor always starts from its first end.

        Raises ``InputError`` for other shapes or element types than compiled for.
        """
        values = inputs if self._plain and len(inputs) == 1 else self._flat(inputs)
        taken = [port.take(value) for port, value in zip(self._inputs, values, strict=True)]
        torch = torch_of(values)
        made = [port.make(torch) for port in self._outputs]
        with self._lock:
            self._bind(taken + made)
            self._program.run()
        if self._single:
            return made[0][0]
        results = tuple(result for result, _ in made)
        return results if self.graph.output_tree is None else unflatten(self.graph.output_tree, results)

    @property
    def layers(self) -> list[LayerPlan]:
        """What was decided for every layer, and why."""
        return self._compiled.plan.layers

    @property
    def batch(self) -> str:
        """How a batch is run, all images at once or some at a time, and why; empty if there is no more than one image, or the
        network mixes them."""
        return self._compiled.plan.batch

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        return [port.shape for port in self._inputs]

    def clone(self) -> Engine:
        """An engine with the same weights and code, and memory and threads of its own."""
        return Engine(self.graph, self._compiled, self._options, self.threads, 0.0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network as one ``.zlg`` file, whole or not at all. The file is bound to no CPU.

        Raises ``FileFormatError`` if the file that the engine was loaded from has been written into since.
        """
        save_graph(self.graph, path, {"winograd": self._options.winograd})

    def profile(self, rounds: int = 20) -> Profile:
        """Time every layer, in the order in which they run: medians over ``rounds``. Inputs are random.

        Raises ``InputError`` unless ``rounds`` is an integer of at least 1.
        """
        if not _is_integer(rounds) or rounds < 1:
            raise InputError(f"rounds must be an integer of at least 1, got {rounds!r}")
        generator = np.random.default_rng(0)
        inputs = [port.take(generator.standard_normal(port.shape, dtype=np.float32)) for port in self._inputs]
        outputs = [port.make(None) for port in self._outputs]
        with self._lock:
            self._bind(inputs + outputs)
            return profile_program(self._program, self._compiled.isa, int(rounds))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise ZelligeError("an engine can't be copied or pickled: clone() gives another one, save(path) a file to load elsewhere")

    def _bind(self, arrays: list[tuple[Any, int]]) -> None:
        """Tell the program where inputs and outputs lie; whoever calls holds them, and the lock."""
        for port, (_, address) in zip(self._inputs + self._outputs, arrays, strict=True):
            self._program.bind(port.slots, address)

    def _flat(self, inputs: tuple[Any, ...]) -> list[Any]:
        """The arguments in the order of the graph's inputs."""
        if self.graph.input_tree is None:
            if len(inputs) != len(self._inputs):
                raise InputError(f"expected {len(self._inputs)} inputs ({', '.join(self.graph.inputs)}), got {len(inputs)}")
            return list(inputs)
        found = flatten(self.graph.input_tree, tuple(inputs), "the arguments")
        return [found[index] for index in range(len(self._inputs))]


def build_engine(graph: Graph, options: Options, target: str = "cpu", threads: int | None = None,
                 started: float | None = None) -> Engine:
    """Plan and compile an optimised graph for this machine. Raises ``CompileError`` if it can't be had here."""
    started = time.perf_counter() if started is None else started
    count = check_threads(threads)
    try:
        compiled = compile_graph(graph, target, replace(options, threads=count))
        return Engine(graph, compiled, options, count, time.perf_counter() - started)
    except MemoryError as error:
        raise CompileError(f"not enough memory for graph {graph.name}: {error}. Use a smaller batch or input") from error


def load(path: str | os.PathLike[str], *, target: str = "cpu", threads: int | None = None, tune: str = "model") -> Engine:
    """Read a ``.zlg`` file and plan it for this machine.

    Raises ``FileFormatError`` for a file that is truncated, altered, inconsistent or of a newer version.
    """
    started = time.perf_counter()
    graph, options = read_network(path)
    return build_engine(graph, replace(options, tune=tune), target, threads, started)


def read_network(path: str | os.PathLike[str]) -> tuple[Graph, Options]:
    """The graph in a ``.zlg`` file, and the options it was saved with. Raises what ``load`` raises of files."""
    graph, extra = load_graph(path)
    if not isinstance(extra.get("winograd"), bool):
        raise FileFormatError(f"{os.fspath(path)}: expected the option 'winograd' to be true or false, "
                              f"got {extra.get('winograd')!r}")
    return graph, Options(winograd=extra["winograd"])


def check_threads(threads: int | None) -> int:
    """The number of threads to use: by default, the CPUs that this process may use."""
    if threads is None:
        return usable_cpus()
    if not _is_integer(threads) or not 1 <= threads <= MOST_THREADS:
        raise CompileError(f"threads must be an integer from 1 to {MOST_THREADS}, or None for all usable CPUs; got {threads!r}")
    return int(threads)


def check_winograd(winograd: object) -> None:
    """``True`` or ``False``: it is stored in files, where a word that means no would be taken as yes."""
    if not isinstance(winograd, bool):
        raise CompileError(f"winograd must be True or False, got {winograd!r}")


def _is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, of Python or of numpy; a truth value is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)
