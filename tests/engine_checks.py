"""What every engine must hold to, checked on guarded and poisoned memory: right results, the same bits however it is run.

Arrays of the caller lie beside pages that can't be touched. Before every run all memory of the program is filled with NaN, so that
a result changes if anything is read that the run did not write: a margin that nobody cleared, or a buffer taken too early.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

import numpy as np
import pytest

from zellige.cpu import program
from zellige.cpu.calls import Call
from zellige.cpu.host import runs_here
from zellige.cpu.isa import ISAS
from zellige.cpu.layout import LINE, round_up
from zellige.cpu.lower.lowering import Options
from zellige.cpu.memory import Arena, lifetimes
from zellige.engine import Engine, build_engine
from zellige.graph.ir import Graph
from zellige.graph.reference import run_reference
from zellige.passes.pipeline import optimize

TOLERANCE = 1e-5
"""Of the largest output: sums of at most some hundred terms of magnitude one, a dozen layers deep."""
THREADS = (1, 2, 3, 4)
GAP = 1024
"""Elements between buffers when writes outside of them are looked for: more than a vector, and than most rows."""
TARGETS = [f"cpu:{isa.name}" for isa in ISAS.values() if runs_here(isa)]
"""The targets whose code this machine runs."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """A copy of an array that ends, or else begins, at a page that can't be touched."""

    def __init__(self, array: np.ndarray, at_end: bool) -> None:
        page = mmap.PAGESIZE
        pages = -(-array.nbytes // page) * page
        whole = np.frombuffer(mmap.mmap(-1, pages + 2 * page), np.uint8)
        for guard in (whole.ctypes.data, whole.ctypes.data + page + pages):
            assert _libc.mprotect(guard, page, 0) == 0, "mprotect failed"
        start = page + pages - array.nbytes if at_end else page
        self.array = whole[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.address = self.array.ctypes.data


def compiled(graph: Graph, threads: int = 1, target: str = "cpu", **options: object) -> Engine:
    """An optimised graph's engine that shares out every call, however small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "SMALL_CALL", 0)
        return build_engine(optimize(graph), Options(**options), target, threads)  # type: ignore[arg-type]


def with_threads(engine: Engine, threads: int) -> Engine:
    """The same plan for another number of threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "SMALL_CALL", 0)
        return Engine(engine.graph, engine._compiled, engine._options, threads, 0.0)


def random_inputs(graph: Graph, seed: int = 1) -> list[np.ndarray]:
    numbers = np.random.default_rng(seed)
    return [numbers.standard_normal(kind.shape).astype(np.float32) for kind in graph.inputs.values()]


def poison(engine: Engine) -> None:
    """Fill the arena, its slack and the scratch memory with NaN."""
    for memory in (engine._program.arena, engine._program.scratch):
        memory.bytes.fill(0xFF)


def run_guarded(engine: Engine, inputs: Sequence[np.ndarray], at_end: bool) -> list[np.ndarray]:
    """The outputs of one run on poisoned memory; arrays end, or else begin, at a page that can't be touched."""
    guarded = [Guarded(array, at_end) for array in inputs]
    results = [Guarded(np.full(port.shape, np.nan, np.float32), at_end) for port in engine._outputs]
    poison(engine)
    with engine._lock:
        engine._bind([(each, each.address) for each in (*guarded, *results)])
        engine._program.run()
    for array, each in zip(inputs, guarded, strict=True):
        np.testing.assert_array_equal(each.array, array, err_msg="an input was written")
    return [each.array.copy() for each in results]


def assert_same_bits(engine: Engine, inputs: Sequence[np.ndarray], threads: Sequence[int] = THREADS) -> list[np.ndarray]:
    """The outputs, which must be the same bits for any number of threads, at every call, on any memory."""
    first = run_guarded(engine, inputs, at_end=True)
    for count in threads:
        other = with_threads(engine, count)
        for at_end in (True, False):
            for name, ours, right in zip(engine.graph.outputs, run_guarded(other, inputs, at_end), first, strict=True):
                np.testing.assert_array_equal(ours, right, err_msg=f"{name} with {count} threads in\n{engine.graph}")
        other._program.pool.close()
    return first


def apart(calls: list[Call], sizes: dict[str, int]) -> Arena:
    """Memory in which no buffer uses the place of another, and wide gaps lie between them."""
    offsets, end = {}, GAP
    for name in lifetimes(calls):
        offsets[name], end = end, round_up(end + sizes[name], LINE) + GAP
    return Arena(offsets, end, end)


def assert_writes_inside(graph: Graph, threads: int = 2, target: str = "cpu", **options: object) -> None:
    """Nothing is written outside of any buffer in the arena; the outputs are those of the packed arena."""
    inputs = random_inputs(graph)
    expected = run_guarded(compiled(graph, target=target, **options), inputs, at_end=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "plan_memory", apart)
        engine = compiled(graph, threads, target, **options)
    for ours, right in zip(run_guarded(engine, inputs, at_end=False), expected, strict=True):
        np.testing.assert_array_equal(ours, right)
    ready = engine._program
    outside = np.ones(ready.arena.bytes.nbytes // 4, bool)
    for name, offset in ready._offsets.items():
        outside[program.SLACK // 4 + offset:][:ready.plan.buffers[name]] = False
    touched = np.flatnonzero(ready.arena.bytes.view(np.uint32)[outside] != 0xFFFFFFFF)
    assert not touched.size, f"wrote {touched.size} elements outside of all buffers in\n{engine.graph}"
    ready.pool.close()


def assert_close(graph: Graph, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], tolerance: float = TOLERANCE) -> None:
    """Outputs are what the reference gives in float64."""
    expected = run_reference(graph, inputs)
    assert [array.shape for array in outputs] == [array.shape for array in expected]
    for name, ours, right in zip(graph.outputs, outputs, expected, strict=True):
        error = float(np.abs(ours - right).max()) / max(float(np.abs(right).max()), 1e-2)
        assert error <= tolerance, f"{name} is off by {error:.2g} of its largest value in\n{graph}"


def assert_holds(graph: Graph, target: str = "cpu", tolerance: float = TOLERANCE, **options: object) -> Engine:
    """Everything above for one graph; its engine."""
    engine, inputs = compiled(graph, target=target, **options), random_inputs(graph)
    assert_close(graph, inputs, assert_same_bits(engine, inputs), tolerance)
    return engine
