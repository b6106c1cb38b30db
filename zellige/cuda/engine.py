"""A network compiled for an NVIDIA GPU: ``zl.compile(model, inputs, target="cuda")``.

All steps are in ``network/``: the model is traced in bfloat16 or float16 (``trace.py``), its layers are found and joined
(``rewrite.py``), what they take is measured (``prices.py``), orders and ways are decided over all of it (``layouts.py``), the
module that comes of it (``network.py``) is timed against the network left dense (``whole.py``), and the faster is captured in
a CUDA graph.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import fx

from zellige.cuda.network.capture import Captured, Direct
from zellige.cuda.network.layouts import Decision, Prices, decide, dense_in_tokens, in_tokens
from zellige.cuda.network.network import LayerPlan, layer_plans
from zellige.cuda.network.prices import MeasuredPrices
from zellige.cuda.network.profile import Profile, profile_steps, random_inputs
from zellige.cuda.network.rewrite import rewrite
from zellige.cuda.network.steps import CapturedSteps, DirectSteps
from zellige.cuda.network.trace import DTYPES, Program, static_inputs, trace
from zellige.cuda.network.whole import fastest_whole
from zellige.cuda.operators.product import OLDEST
from zellige.errors import CompileError, InputError, UnsavedEngineError, UnsupportedModelError, ZelligeError, in_one_line
from zellige.graph.trees import flatten, unflatten

Result = TypeVar("Result")
Runner = type[Captured] | type[Direct]
STEPS: dict[Runner, type[CapturedSteps] | type[DirectSteps]] = {Captured: CapturedSteps, Direct: DirectSteps}
"""What times the steps of a network that runs so."""


class CudaEngine:
    """A network compiled for fixed shapes on one GPU, in bfloat16 or float16.

    Calls from several threads are served one after another; ``clone()`` gives an engine that runs by itself, with memory of its own
    for activations, and the same weights.
    """

    def __init__(self, program: Program, lowered: fx.GraphModule, module: Callable[..., Sequence[torch.Tensor]],
                 layers: Sequence[LayerPlan], form: str, device: torch.device, runner: Runner, compile_seconds: float) -> None:
        self.layers = list(layers)
        self.form = form
        self.device, self.dtype = device, program.dtype
        self.compile_seconds = compile_seconds
        self._program, self._lowered, self._module, self._runner = program, lowered, module, runner
        self._places = [node for node in program.graph.nodes if node.op == "placeholder"]
        self._lock = threading.Lock()
        self._running = runner(module, static_inputs(program, device))

    def __call__(self, *inputs: Any) -> Any:
        """Run the network. Arguments and results nest as the model's do.

        Tensors on the GPU give tensors there, in the element type that was compiled for, without waiting for the GPU; tensors on
        the CPU and arrays are copied there and back, and give float32. Floating-point arguments may be float32 or of the
        compiled type, others must be of the model's. Raises ``InputError`` for other shapes, types or devices, ``ZelligeError``
        where memory runs out.
        """
        found = flatten(self._program.input_tree, tuple(inputs), "the arguments")
        values = [found[index] for index in range(len(self._places))]
        taken = [self._taken(value, place) for value, place in zip(values, self._places, strict=True)]
        on_cpu = any(not tensor.is_cuda for tensor in taken)

        def run() -> list[torch.Tensor]:
            results = self._running.run(taken)
            return [_on_cpu(result) for result in results] if on_cpu else results

        with self._lock:
            results: list[Any] = within_memory(run, f"on {self.device} for the results of {self._program.name}", ZelligeError,
                                    "Let go of earlier ones")
        if not any(isinstance(value, torch.Tensor) for value in values):
            results = [result.numpy() for result in results]
        return unflatten(self._program.output_tree, results)

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        return [tuple(place.meta["val"].shape) for place in self._places]

    def clone(self) -> CudaEngine:
        """An engine with the same weights, and a graph and activations of its own. ``ZelligeError`` where memory runs out."""
        def made() -> CudaEngine:
            return CudaEngine(self._program, self._lowered, self._module, self.layers, self.form, self.device, self._runner, 0.0)

        return within_memory(made, f"on {self.device} for one more engine of {self._program.name}", ZelligeError,
                             "Share one: calls are served one after another")

    def save(self, path: str | os.PathLike[str]) -> NoReturn:
        """Engines for GPUs live in memory alone: ``ZelligeError``."""
        raise UnsavedEngineError(path)

    def profile(self, rounds: int = 20) -> Profile:
        """Time every layer, and every operator between layers, in its place: medians over ``rounds``. Inputs are random, or zeros
        where they are whole numbers.

        Where the engine runs chains of operators fused, the profile has them one by one all the same: that is what can be told
        apart. Raises ``InputError`` unless ``rounds`` is an integer of at least 1, ``ZelligeError`` where memory runs out: steps
        need memory of their own for activations while they are timed.
        """
        if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
            raise InputError(f"rounds must be an integer of at least 1, got {rounds!r}")
        inputs = random_inputs(static_inputs(self._program, self.device))
        named = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)

        def timed() -> Profile:
            steps = STEPS[self._runner](self._lowered, inputs)
            rows = profile_steps(self._lowered, self.layers, steps.replay, rounds)
            for place, value in zip(self._running.inputs, inputs, strict=True):
                place.copy_(value)
            return Profile(rows, 1e6 * self._running.seconds(rounds), self.form, named)

        with self._lock:
            return within_memory(timed, f"on {self.device} to time {self._program.name} step by step", ZelligeError,
                                 "Let go of other engines")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise ZelligeError("an engine can't be copied or pickled: clone() gives another one")

    def _taken(self, value: Any, place: fx.Node) -> torch.Tensor:
        """An argument as a tensor, if it is what the network was compiled for."""
        expected: torch.Tensor = place.meta["val"]
        if isinstance(value, np.ndarray):
            try:
                value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
            except (TypeError, ValueError) as error:  # words, objects, bytes in another order
                raise InputError(f"input {place.name} must be {expected.dtype} of shape {list(expected.shape)}, got an array of "
                                 f"{value.dtype.str}, which no tensor holds") from error
        if not isinstance(value, torch.Tensor):
            raise InputError(f"input {place.name} must be a tensor or an array, got {type(value).__name__}")
        kinds = {torch.float32, self.dtype} if expected.is_floating_point() else {expected.dtype}
        if tuple(value.shape) != tuple(expected.shape) or value.dtype not in kinds or value.layout != torch.strided:
            raise InputError(f"input {place.name} must be {' or '.join(sorted(map(str, kinds)))} of shape {list(expected.shape)}, "
                             f"got {value.dtype} of shape {list(value.shape)}, {value.layout}")
        if value.device.type != "cpu" and value.device != self.device:
            raise InputError(f"input {place.name} is on {value.device}, the network on {self.device}; move it there, or to the CPU")
        return value.detach()


def compile_network(model: Any, example_inputs: Sequence[Any], dtype: str = "bf16", started: float | None = None) -> CudaEngine:
    """Compile a model for the current GPU. Raises ``CompileError`` where there is none that can, or not enough memory on it, or
    where an operator of the model fails there."""
    started = time.perf_counter() if started is None else started
    kind = element_type(dtype)
    device = find_gpu()
    program = prepare(model, example_inputs, kind)

    def built() -> CudaEngine:
        with torch.cuda.device(device):
            return build(program, device, MeasuredPrices(device, kind), Captured, started)

    try:
        return within_memory(built, f"on {device} for {program.name}", CompileError, "Use a smaller batch or input")
    except RuntimeError as error:
        raise CompileError(f"{program.name} can't run on {device} in {kind}: {in_one_line(error)}. Some operator lacks that type, "
                           "is given several, or waits for the GPU; compile the part without it") from error


def within_memory(work: Callable[[], Result], what: str, error: type[ZelligeError], advice: str) -> Result:
    """What the work gives. Where memory runs out, all of it that can be is given back, and the error is one of Zellige's."""
    try:
        return work()
    except torch.OutOfMemoryError as full:
        reason = str(full).split(". ")[0]
    torch.cuda.empty_cache()  # here, where the frames that hold tensors are gone
    raise error(f"not enough memory {what}: {reason}. {advice}")


def prepare(model: Any, example_inputs: Sequence[Any], dtype: torch.dtype) -> Program:
    """The program of a model with its layers found and joined."""
    program = trace(model, example_inputs, dtype)
    if all(node.op != "placeholder" for node in program.graph.nodes):
        raise UnsupportedModelError(f"{program.name} takes no input, so its result is always the same: call it once and keep that")
    rewrite(program)
    return program


def build(program: Program, device: torch.device, prices: Prices, runner: Runner, started: float) -> CudaEngine:
    """Decide, lower, compare with the network in PyTorch's own order and left dense, and capture."""
    def others() -> dict[str, dict[fx.Node, Decision]]:
        return {"in tokens × features": in_tokens(program.graph, prices),
                "dense": dense_in_tokens(program.graph, prices)}

    whole = fastest_whole(program, decide(program.graph, prices), others, runner, device)
    plans = layer_plans(program, whole.decisions)
    engine = CudaEngine(program, whole.lowered, whole.module, plans, whole.form, device, runner, 0.0)
    engine.compile_seconds = time.perf_counter() - started
    return engine


def element_type(dtype: str) -> torch.dtype:
    """``CompileError`` for a type that tensor cores don't multiply in full."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CompileError(f"for target cuda dtype must be one of {', '.join(DTYPES)}, got {dtype!r}: these are what tensor cores "
                           "multiply at full speed; float32 they would round before")
    return DTYPES[dtype]


def find_gpu() -> torch.device:
    """The current GPU. ``CompileError`` if there is none, or if it is too old."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        raise CompileError(f"target cuda needs an NVIDIA GPU and PyTorch built for CUDA; torch {torch.__version__} finds none. "
                           "Compile on a machine that has one, or with target cpu")
    device = torch.device("cuda", torch.cuda.current_device())
    major, minor = torch.cuda.get_device_capability(device)
    if 10 * major + minor < OLDEST:
        raise CompileError(f"target cuda needs compute capability {OLDEST / 10} or later; {torch.cuda.get_device_name(device)} has "
                           f"{major}.{minor}. Compile with target cpu")
    return device


def _on_cpu(result: torch.Tensor) -> torch.Tensor:
    return (result.float() if result.is_floating_point() else result).cpu()
