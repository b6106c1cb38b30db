"""The public functions that take PyTorch models: prune them, with the compiler's times where a budget asks for those; compile and
export them; check what was compiled against float64; and estimate what they would take on AI Engines.
"""

from __future__ import annotations

import copy
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch

from zellige.cpu.calls import Plan
from zellige.cpu.compiler import find_isa, plan_for
from zellige.cpu.debug import GRAPH, debug
from zellige.cpu.lower.lowering import Options
from zellige.cpu.object import build_object
from zellige.engine import MOST_THREADS, Engine, build_engine, check_threads, check_winograd
from zellige.errors import FAILURES, CompileError, InputError, PruneError, UnsupportedModelError, in_one_line
from zellige.graph.from_torch import from_torch
from zellige.graph.ir import Graph
from zellige.latency import latency_price
from zellige.pack.atomic import write_atomically
from zellige.pack.path import checked_path
from zellige.passes.pipeline import optimize
from zellige.patterns import Pattern, parse_pattern
from zellige.prune import Price, PruneReport
from zellige.prune import prune as prune_by_scores
from zellige.prune.layers import find_layers
from zellige.prune.undisturbed import undisturbed

if TYPE_CHECKING:
    from zellige.aie2.estimate.network import NetworkTime
    from zellige.cuda.engine import CudaEngine
    from zellige.graph.quantized import QuantizedGraph

DTYPES = ("f32",)
CUDA = "cuda"
LATENCY = "latency"  # the kind of cost that the compiler's model knows


@dataclass(frozen=True)
class Verification:
    """The largest error of an engine against PyTorch in float64 on the same weights and inputs.

    ``max_relative_error`` is max|y − reference| ÷ max|reference|.
    """

    max_absolute_error: float
    max_relative_error: float

    def __str__(self) -> str:
        return f"largest error {self.max_absolute_error:.3g}, relative to the largest output {self.max_relative_error:.3g}"


@overload
def compile(model: Any, example_inputs: Sequence[Any], *, target: Literal["cuda"], dtype: str | None = None,
            threads: int | None = None, winograd: bool = True, tune: str = "model") -> CudaEngine: ...


@overload
def compile(model: Any, example_inputs: Sequence[Any], *, target: str = "cpu", dtype: str | None = None,
            threads: int | None = None, winograd: bool = True, tune: str = "model") -> Engine: ...


def compile(model: Any, example_inputs: Sequence[Any], *, target: str = "cpu", dtype: str | None = None,
            threads: int | None = None, winograd: bool = True, tune: str = "model") -> Engine | CudaEngine:
    """Compile a model in evaluation mode for the shapes of its example inputs.

    ``target`` is ``cpu`` (the best that this machine runs), ``cpu:NAME``, or ``cuda`` (the current NVIDIA GPU); ``dtype`` is what
    it computes in: ``f32`` on CPUs, on GPUs ``bf16`` (the default there) or ``f16``. ``threads`` is the number of threads
    (default: the CPUs that this process may use); ``winograd=False`` turns Winograd convolutions off, which are faster and round a
    little more; ``tune="measure"`` times the possible paths of each layer where the default has a model of them. These three are
    for CPUs; on a GPU all is timed, and what was chosen is kept in the cache.

    Raises ``UnsupportedModelError`` if the model can't be brought into a graph, ``CompileError`` for options that can't be
    had here. The model is not changed.
    """
    started = time.perf_counter()
    if target == CUDA:
        return _compile_for_gpu(model, example_inputs, dtype, threads, winograd, tune, started)
    check_dtype(dtype or DTYPES[0])
    check_winograd(winograd)
    find_isa(target)
    check_threads(threads)
    graph = optimized_graph(model, example_inputs)
    return build_engine(graph, Options(winograd=winograd, tune=tune), target, threads, started)


def _compile_for_gpu(model: Any, example_inputs: Sequence[Any], dtype: str | None, threads: int | None, winograd: bool, tune: str,
                     started: float) -> CudaEngine:
    arguments = _arguments(example_inputs, "example_inputs")
    check_gpu(dtype, threads, winograd, tune)
    from zellige.cuda.engine import compile_network

    return compile_network(model, arguments, dtype or "bf16", started)


def check_gpu(dtype: str | None = None, threads: int | None = None, winograd: bool = True, tune: str = "model",
              ) -> tuple[torch.device, torch.dtype]:
    """The GPU and the type that ``compile`` takes for target cuda. Raises the ``CompileError`` that it would, before any work."""
    given = {"threads": threads is not None, "winograd": winograd is not True, "tune": tune != "model"}
    if idle := [name for name, changed in given.items() if changed]:
        raise CompileError(f"{idle[0]} is an option of CPUs; leave it out for target cuda, where every layer is timed")
    try:
        from zellige.cuda import engine
    except ImportError as error:
        raise CompileError(f"target cuda needs Triton, which comes with PyTorch's CUDA builds: {error}") from error
    kind = engine.element_type(dtype or "bf16")
    return engine.find_gpu(), kind


@wraps(prune_by_scores)
def prune(model: Any, pattern: Pattern | str, sparsity: float | Mapping[str, float] | None = None, example_inputs: Any = None, *,
          budget: Mapping[str, float] | None = None, prices: Mapping[str, Price] | None = None, **options: Any) -> PruneReport:
    """As ``zellige.prune.prune``, which knows no compiler: here a budget may also be of ``latency``."""
    known = {} if prices is None else prices
    if isinstance(budget, Mapping) and LATENCY in budget and isinstance(known, Mapping) and LATENCY not in known:
        prices = {**known, LATENCY: _latency_price(model, pattern, example_inputs)}
    return prune_by_scores(model, pattern, sparsity, example_inputs, budget=budget, prices=prices, **options)


def _latency_price(model: Any, pattern: Pattern | str, example_inputs: Any) -> Price:
    """What the layers take on this CPU, by the compiler's model; the model is left in the modes that it was in."""
    if not isinstance(model, torch.nn.Module) or example_inputs is None:
        raise PruneError("A budget of latency needs the model and example_inputs: what a layer takes depends on their shapes.")
    inputs = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    find_layers(model)  # a model that can't be pruned is refused as such, before it is compiled
    with undisturbed(model):
        graph = optimized_graph(model, tuple(inputs))
    return latency_price(graph, parse_pattern(pattern) if isinstance(pattern, str) else pattern, find_isa("cpu"))


def export(model: Any, example_inputs: Sequence[Any], path: str | os.PathLike[str], *, target: str = "cpu", threads: int = 1,
           winograd: bool = True) -> Path:
    """Compile a model to an object file with a C interface, for any machine of the target's instruction set.

    Beside ``path``, which must end in ``.o``, a header of the same name declares ``NAME_run(inputs…, outputs…)``, where NAME is
    that of the file; returns the header's path. The code runs on ``threads`` threads, of which the caller starts all but one.
    Nothing of this machine goes into the file: ``target="cpu:aarch64"`` works everywhere.

    Raises what ``compile`` raises, and ``CompileError`` for a path that ends otherwise.
    """
    image = Path(checked_path(path))
    if image.suffix != ".o":
        raise CompileError(f"an object file's name must end in .o, got {image}")
    check_winograd(winograd)
    if threads is None:
        raise CompileError(f"threads must be an integer from 1 to {MOST_THREADS}: code for any machine can't count this one's CPUs")
    threads = check_threads(threads)
    isa = find_isa(target)
    name = re.sub(r"^(?=\d)", "_", re.sub(r"\W", "_", image.stem, flags=re.ASCII))
    code = build_object(optimized_graph(model, example_inputs), isa, name, Options(winograd=winograd), threads)
    write_atomically(image, [code.image])
    declarations = image.with_suffix(".h")
    write_atomically(declarations, [code.header.encode()])
    return declarations


def plan(model: Any, example_inputs: Sequence[Any], *, target: str = "cpu", dtype: str = "f32", threads: int | None = None,
         winograd: bool = True, tune: str = "model") -> tuple[Graph, Plan]:
    """What ``compile`` would run, for any target whether this machine runs it or not: the optimised graph and its plan."""
    check_dtype(dtype)
    check_winograd(winograd)
    isa, threads = find_isa(target), check_threads(threads)
    graph = optimized_graph(model, example_inputs)
    return graph, plan_for(graph, isa, Options(winograd=winograd, tune=tune, threads=threads))


def check_dtype(dtype: str) -> None:
    """Raise ``CompileError`` for a type that no kernel computes in."""
    if dtype not in DTYPES:
        raise CompileError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")


def optimized_graph(model: Any, example_inputs: Sequence[Any]) -> Graph:
    """The model as a graph after all passes; ``ZELLIGE_DEBUG=2`` prints it after each."""
    graph = from_torch(model, _arguments(example_inputs, "example_inputs"))
    debug(GRAPH, "graph from PyTorch", lambda: str(graph))
    return optimize(graph, observe=lambda name, changed: debug(GRAPH, f"graph after {name}", lambda: str(changed)))


def input_arrays(inputs: Sequence[Any]) -> list[np.ndarray]:
    """The tensors of a call's arguments in their order, as f32."""
    return [np.asarray(torch.as_tensor(leaf).detach().cpu(), np.float32) for leaf in torch.utils._pytree.tree_leaves(tuple(inputs))]


def quantized_graph(model: Any, example_inputs: Sequence[Any], batches: Iterable[Sequence[Any]] | None = None,
                    calibration: str = "minmax") -> QuantizedGraph:
    """The model in int8 as AI Engines take it: scales are powers of two, shared by eight rows of a weight.

    ``batches`` of inputs calibrate it; without them, the example inputs do. Raises ``QuantizationError`` for what has no int8 form.
    """
    from zellige.passes.quantize import quantize
    from zellige.passes.scales import Scheme

    graph = optimized_graph(model, example_inputs)
    seen = map(input_arrays, [example_inputs] if batches is None else batches)
    return quantize(graph, seen, Scheme(calibration, powers_of_two=True, rows=8))


def estimate(model: Any, example_inputs: Sequence[Any], *, target: str = "aie2:4x4", device: str = "ve2802",
             batches: Iterable[Sequence[Any]] | None = None, dense: bool = False) -> NetworkTime:
    """What a model should take on an array of AI Engines in int8, phase by phase: an estimate, from a model of the array.

    ``device`` is ``paper``, ``ve2802``, ``ve2302``, ``npu1`` or ``npu2``. ``dense``: with a kernel that loads no offsets, for
    weights without blocks of zeros. ``batches`` of inputs calibrate scales; without them, the example inputs do.

    Raises ``CompileError`` if the device has no such overlay, or naming the first node that can't be placed, or, if ``dense``, one
    with a block of 8 × 8 zeros; and what ``quantized_graph`` raises. The model is not changed.
    """
    from zellige.aie2.estimate.network import network_time
    from zellige.aie2.overlay import overlay_of

    on = overlay_of(target, device)
    return network_time(quantized_graph(model, example_inputs, batches), on, dense)


def verify(model: Any, engine: Engine | CudaEngine, inputs: Sequence[Any]) -> Verification:
    """Compare an engine with its model, run by PyTorch in float64. A number that is NaN or infinite in one of them alone makes
    the errors so.

    Raises ``InputError`` if the inputs don't fit, or the engine was compiled from another model, ``UnsupportedModelError`` for
    what is no model.
    """
    arguments = _arguments(inputs, "inputs")
    if not callable(engine):
        raise InputError(f"expected an engine, as zl.compile and zl.load give it, got {type(engine).__name__}")
    module = model.module() if isinstance(model, torch.export.ExportedProgram) else model
    if not isinstance(module, torch.nn.Module):
        raise UnsupportedModelError(
            f"expected a torch.nn.Module or a torch.export.ExportedProgram, got {type(model).__name__}")
    got = [output.double() for output in _tensors(engine(*arguments))]
    expected = _tensors(_run_in_double(module, arguments))
    if [output.shape for output in expected] != [output.shape for output in got]:
        raise InputError("the engine's outputs are shaped otherwise than the model's: it was compiled from another model")
    absolute = float(torch.stack([_largest_difference(*pair) for pair in zip(expected, got, strict=True)]).max())
    largest = max(float(output.nan_to_num(0.0, 0.0, 0.0).abs().max()) for output in expected)
    return Verification(absolute, absolute / largest if largest else absolute)


def _arguments(inputs: Any, name: str) -> tuple[Any, ...]:
    """The arguments of a call, which come as one tuple (or list)."""
    if isinstance(inputs, torch.Tensor | str) or not isinstance(inputs, Sequence):
        raise InputError(f"{name} must be a tuple of the model's arguments, got {type(inputs).__name__}: write (x,)")
    return tuple(inputs)


def _run_in_double(module: torch.nn.Module, inputs: tuple[Any, ...]) -> Any:
    reference = copy.deepcopy(module).double().eval()
    try:
        with torch.no_grad():
            return reference(*_double(inputs))
    except FAILURES as error:
        raise InputError(f"{type(module).__name__} itself fails on these inputs in float64: {in_one_line(error)}") from error


def _largest_difference(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    same = (left == right) | (left.isnan() & right.isnan())  # two infinities too
    return torch.where(same, 0.0, (left - right).abs()).max()


def _double(value: Any) -> Any:
    return torch.utils._pytree.tree_map(
        lambda leaf: torch.as_tensor(leaf).double() if hasattr(leaf, "dtype") else leaf, value)


def _tensors(value: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [torch.as_tensor(leaf) for leaf in leaves if leaf is not None]
