"""The compiled network: call it, save it, load it, clone it, look where its time goes.

Needs numpy, llvmlite and safetensors. PyTorch's tensors are taken and given where PyTorch is loaded already; it is never imported here.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from zellige.cpu.compiler import Compiled, compile_graph
from zellige.cpu.host import usable_cpus
from zellige.cpu.isa import ISAS
from zellige.cpu.lower.lowering import Options
from zellige.cpu.calls import LayerPlan
from zellige.cpu.fork import ForkLock
from zellige.cpu.program import Program
from zellige.cpu.pool import Pool
from zellige.errors import CompileError, FileFormatError, InputError
from zellige.graph.ir import Graph
from zellige.graph.trees import flatten, unflatten
from zellige.pack.file import load_graph, save_graph
from zellige.profile import Profile, profile_program

MOST_THREADS = 256


@dataclass(frozen=True)
class Port:
    """One input or output: its name and shape, and the slots of the program that take its address."""

    name: str
    shape: tuple[int, ...]
    slots: tuple[int, ...]


class Engine:
    """A network compiled for fixed shapes. Made by ``zl.compile`` and ``zl.load``.

    Calls from several threads are served one after another; ``clone()`` gives an engine that shares weights and code but runs
    by itself. A forked child may use an engine made before the fork.
    """

    def __init__(self, graph: Graph, compiled: Compiled, options: Options, threads: int, compile_seconds: float) -> None:
        self.graph = graph
        self.threads = threads
        self.compile_seconds = compile_seconds
        self._compiled, self._options = compiled, options
        self._lock = ForkLock()
        self._program = Program(compiled.plan, compiled.tables, compiled.code, Pool(threads))
        self._inputs = [Port(name, kind.shape, self._program.patches("input", index))
                        for index, (name, kind) in enumerate(graph.inputs.items())]
        self._outputs = [Port(name, graph.type_of(name).shape, self._program.patches("output", index))
                         for index, name in enumerate(graph.outputs)]
        self._plain = len(self._inputs) == 1 and graph.input_tree in (None, {"tuple": [0]})
        self._single = len(self._outputs) == 1 and graph.output_tree in (None, 0)

    def __call__(self, *inputs: Any) -> Any:
        """Run the network. Arguments and results nest as the model's do; torch tensors give torch tensors, arrays give arrays.

        Raises ``InputError`` for other shapes or element types than compiled for.
        """
        if self._plain and len(inputs) == 1:
            values = inputs
        else:
            values = self._flat(inputs)
        arrays = [_contiguous(value, port) for value, port in zip(values, self._inputs, strict=True)]
        torch = _torch_of(values)
        results = [torch.empty(port.shape, dtype=torch.float32) if torch else np.empty(port.shape, np.float32) for port in self._outputs]
        with self._lock:
            program = self._program
            for port, (_, address) in zip(self._inputs, arrays, strict=True):
                program.bind(port.slots, address)
            for port, result in zip(self._outputs, results, strict=True):
                program.bind(port.slots, result.data_ptr() if torch else result.ctypes.data)
            program.run()
        return results[0] if self._single else unflatten(self.graph.output_tree, results)

    @property
    def layers(self) -> list[LayerPlan]:
        """What was decided for every layer, and why."""
        return self._compiled.plan.layers

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        return [port.shape for port in self._inputs]

    def clone(self) -> Engine:
        """An engine with the same weights and code, and memory and threads of its own."""
        return Engine(self.graph, self._compiled, self._options, self.threads, 0.0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network as one ``.zlg`` file, whole or not at all. The file is bound to no CPU."""
        save_graph(self.graph, path, {"winograd": self._options.winograd})

    def profile(self, rounds: int = 20) -> Profile:
        """Time every layer, in the order in which they run. Inputs are random."""
        generator = np.random.default_rng(0)
        inputs = [generator.standard_normal(port.shape, dtype=np.float32) for port in self._inputs]
        outputs = [np.empty(port.shape, np.float32) for port in self._outputs]
        with self._lock:
            for port, array in zip(self._inputs + self._outputs, inputs + outputs, strict=True):
                self._program.bind(port.slots, array.ctypes.data)
            return profile_program(self._program, self._compiled.isa, rounds)

    def _flat(self, inputs: tuple[Any, ...]) -> list[Any]:
        if self.graph.input_tree is None:
            if len(inputs) != len(self._inputs):
                raise InputError(f"expected {len(self._inputs)} inputs ({', '.join(self.graph.inputs)}), got {len(inputs)}")
            return list(inputs)
        found = flatten(self.graph.input_tree, tuple(inputs), "the arguments")
        return [found[index] for index in range(len(self._inputs))]


def build_engine(graph: Graph, options: Options, target: str = "cpu", threads: int | None = None, started: float | None = None) -> Engine:
    """Plan and compile an optimised graph for this machine."""
    started = time.perf_counter() if started is None else started
    count = check_threads(threads)
    compiled = compile_graph(graph, target, options)
    return Engine(graph, compiled, options, count, time.perf_counter() - started)


def load(path: str | os.PathLike[str], *, target: str = "cpu", threads: int | None = None, tune: str = "model") -> Engine:
    """Read a ``.zlg`` file and plan it for this machine.

    Raises ``FileFormatError`` for a file that is truncated, altered, inconsistent or of a newer version.
    """
    started = time.perf_counter()
    graph, extra = load_graph(path)
    if not isinstance(extra.get("winograd"), bool):
        raise FileFormatError(f"{os.fspath(path)}: expected the option 'winograd' to be true or false, got {extra.get('winograd')!r}")
    return build_engine(graph, Options(winograd=extra["winograd"], tune=tune), target, threads, started)


def check_threads(threads: int | None) -> int:
    """The number of threads to use: by default, the CPUs that this process may use."""
    if threads is None:
        return usable_cpus()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise CompileError(f"threads must be an integer from 1 to {MOST_THREADS}, or None for all usable CPUs; got {threads!r}")
    return threads


def target_names() -> list[str]:
    return ["cpu", *(f"cpu:{name}" for name in ISAS)]


def _torch_of(values: Any) -> Any:
    """The torch module if the values are its tensors, else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and any(isinstance(value, torch.Tensor) for value in values) else None


def _contiguous(value: Any, port: Port) -> tuple[Any, int]:
    """The value in row-major order, and its address. A copy is made only of other layouts."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.device.type != "cpu" or value.layout != torch.strided:
            raise InputError(f"input {port.name}: expected a dense tensor on the CPU, got one on {value.device} ({value.layout}): use .cpu().to_dense()")
        if tuple(value.shape) != port.shape or value.dtype != torch.float32:
            raise _mismatch(port, tuple(value.shape), value.dtype)
        value = value.detach().resolve_conj().resolve_neg().contiguous()
        return value, value.data_ptr()
    if not isinstance(value, np.ndarray):
        raise InputError(f"input {port.name}: expected a numpy array or a torch tensor, got {type(value).__name__}")
    if value.shape != port.shape or value.dtype != np.float32:
        raise _mismatch(port, value.shape, value.dtype)
    value = np.ascontiguousarray(value)
    return value, value.ctypes.data


def _mismatch(port: Port, shape: tuple[int, ...], dtype: Any) -> InputError:
    return InputError(f"input {port.name}: expected float32 of shape {list(port.shape)}, for which the engine was compiled; "
                      f"got {str(dtype).removeprefix('torch.')} of shape {list(shape)}. Convert the input, or compile for this shape")
