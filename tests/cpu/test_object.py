"""Exported networks: loaded into this process for its own instruction set, linked and emulated for AArch64."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from emulator import build, emulate, needs_emulator
from kernel_harness import NATIVE
from operator_networks import OperatorGenerator

import zellige as zl
from zellige.cpu.isa import NEON, Isa
from zellige.cpu.object import ObjectCode, build_object
from zellige.cpu.toolchain import load_object
from zellige.errors import CompileError
from zellige.graph.ir import Graph
from zellige.graph.reference import run_reference
from zellige.models import warm_statistics
from zellige.passes.pipeline import optimize

TOLERANCE = 4e-5
LEAST = 0.01
"""As of generated networks: errors are relative to the largest value of an output, but no less than this."""

DRIVER = """
#include "net.h"
#include <pthread.h>
#include <stdio.h>

static void *work(void *thread) { net_work((long)thread); return 0; }
static float %(arrays)s;

int main(void)
{
    pthread_t others[NET_THREADS];
    %(reads)s
    for (long thread = 1; thread < NET_THREADS; thread++)
        pthread_create(&others[thread], 0, work, (void *)thread);
    for (int turn = 0; turn < 2; turn++)
        net_run(%(names)s);
    net_stop();
    for (long thread = 1; thread < NET_THREADS; thread++)
        pthread_join(others[thread], 0);
    %(writes)s
    return 0;
}
"""
"""Runs a network twice on inputs from standard input: the second time, memory is not zero any more."""


def shapes_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arguments of the network as a C function."""
    return {f"input{index}": kind.shape for index, kind in enumerate(graph.inputs.values())} | {
        f"output{index}": graph.type_of(name).shape for index, name in enumerate(graph.outputs)}


def split(content: bytes, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    numbers, results = np.frombuffer(content, np.float32), []
    for shape in shapes:
        size = int(np.prod(shape))
        results.append(numbers[:size].reshape(shape))
        numbers = numbers[size:]
    assert not len(numbers)
    return results


def run_emulated(code: ObjectCode, shapes: dict[str, tuple[int, ...]], inputs: list[np.ndarray],
                 directory: Path) -> list[np.ndarray]:
    """Link an object called ``net`` with a driver that sees nothing but its header, and run it."""
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    moves = {word: " ".join(f"{call}({name}, 4, {size}, {stream});" for name, size in sizes.items() if name.startswith(word))
             for word, call, stream in (("input", "fread", "stdin"), ("output", "fwrite", "stdout"))}
    (directory / "main.c").write_text(DRIVER % {
        "arrays": ", ".join(f"{name}[{size}]" for name, size in sizes.items()), "names": ", ".join(sizes),
        "reads": moves["input"], "writes": moves["output"]})
    (directory / "net.h").write_text(code.header)
    (directory / "net.o").write_bytes(code.image)
    program = build(directory / "program", "-static", "-pthread", directory / "main.c", directory / "net.o")
    answer = emulate(program, b"".join(array.tobytes() for array in inputs))
    return split(answer, [shape for name, shape in shapes.items() if name.startswith("output")])


def run_here(code: ObjectCode, shapes: dict[str, tuple[int, ...]], inputs: list[np.ndarray], threads: int) -> list[np.ndarray]:
    """Load an object called ``net`` into this process and run it twice."""
    library = load_object(code.image, "net")
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(shapes))(library.address("net_run"))
    work = ctypes.CFUNCTYPE(None, ctypes.c_long)(library.address("net_work"))
    others = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(1, threads)]
    for thread in others:
        thread.start()
    outputs = [np.full(shape, np.nan, np.float32) for name, shape in shapes.items() if name.startswith("output")]
    for _ in range(2):
        run(*(array.ctypes.data for array in (*inputs, *outputs)))
    ctypes.CFUNCTYPE(None)(library.address("net_stop"))()
    for thread in others:
        thread.join(10)
        assert not thread.is_alive()
    return outputs


def assert_close(got: list[np.ndarray], expected: list[np.ndarray], tolerance: float = TOLERANCE) -> None:
    assert len(got) == len(expected)
    for ours, right in zip(got, expected, strict=True):
        assert ours.shape == right.shape
        assert abs(ours - right).max() <= tolerance * max(abs(right).max(), LEAST)


def generated(seed: int, length: int = 14) -> tuple[Graph, list[np.ndarray], list[np.ndarray]]:
    """A network of many operators, inputs, and what float64 makes of them."""
    graph = OperatorGenerator(seed, channels=(8, 16), sizes=(9, 20)).network(length)
    numbers = np.random.default_rng(1)
    inputs = [numbers.standard_normal(kind.shape).astype(np.float32) for kind in graph.inputs.values()]
    return optimize(graph), inputs, run_reference(graph, inputs)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", NATIVE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("seed", range(3))
def test_objects_run_in_this_process(seed: int, isa: Isa, threads: int):
    graph, inputs, expected = generated(seed)
    code = build_object(graph, isa, "net", threads=threads)
    assert_close(run_here(code, shapes_of(graph), inputs, threads), expected)


@needs_emulator
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(10, 16))
def test_generated_networks_on_aarch64(seed: int, threads: int, tmp_path: Path):
    graph, inputs, expected = generated(seed)
    code = build_object(graph, NEON, "net", threads=threads)
    assert_close(run_emulated(code, shapes_of(graph), inputs, tmp_path), expected)


def narrow_residual_network() -> torch.nn.Module:
    """The stem, the pools, the classifier and the first three stages of a ResNet, narrow: all kernels that ResNet-18 needs, but for
    those of its last maps of 2 × 2."""
    from torchvision.models.resnet import BasicBlock

    def stage(before: int, after: int) -> torch.nn.Module:
        shortcut = torch.nn.Sequential(torch.nn.Conv2d(before, after, 1, 2, bias=False), torch.nn.BatchNorm2d(after))
        return BasicBlock(before, after, 2, shortcut)

    return torch.nn.Sequential(torch.nn.Conv2d(3, 16, 7, 2, 3, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
                               torch.nn.MaxPool2d(3, 2, 1), BasicBlock(16, 16), stage(16, 32), stage(32, 64), BasicBlock(64, 64),
                               torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 1000))


def whole_residual_network() -> torch.nn.Module:
    from torchvision.models import resnet18

    return resnet18()


@needs_emulator
@pytest.mark.parametrize("network", [narrow_residual_network, pytest.param(whole_residual_network, marks=pytest.mark.full)])
def test_a_pruned_residual_network_on_aarch64(network: Callable[[], torch.nn.Module], tmp_path: Path):
    """The same network, exported from PyTorch, against float64 and against an engine of this machine."""
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(1, 3, 64, 64)
    zl.prune(model, zl.Block(8, 8), sparsity=0.5, example_inputs=(x,))
    warm_statistics(model, (x,))
    header = zl.export(model, (x,), tmp_path / "net.o", target="cpu:aarch64", threads=2)
    code = ObjectCode((tmp_path / "net.o").read_bytes(), header.read_text())
    got, = run_emulated(code, {"input0": (1, 3, 64, 64), "output0": (1, 1000)}, [x.numpy()], tmp_path)
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
        native = zl.compile(model.float(), (x,))(x.numpy())
    assert_close([got], [expected], tolerance=1e-5)
    assert_close([got], [native], tolerance=1e-5)


def test_the_header_names_what_a_caller_must_know():
    graph, _, _ = generated(0)
    header = build_object(graph, NEON, "small_net", threads=2).header
    assert "void small_net_run(const float *input0, float *output0" in header
    assert re.search(r"input0: \d+ x \d+ x \d+ x \d+", header)
    assert "#define SMALL_NET_THREADS 2" in header and "neon" in header


def test_two_networks_share_no_names():
    """Only the functions of the header can be seen from outside."""
    graph, _, _ = generated(0)
    library = load_object(build_object(graph, NATIVE[0], "first").image, "first")
    assert library.address("first_run")
    for hidden in ("zellige_launch", "zellige.arena"):
        with pytest.raises(CompileError, match="no usable symbol"):
            library.address(hidden)


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a b", "é"])
def test_names_that_are_none_in_c_are_refused(name: str):
    graph, _, _ = generated(0, 1)
    with pytest.raises(CompileError, match="can't begin the name"):
        build_object(graph, NEON, name)


def test_export_takes_the_name_from_the_file(tmp_path: Path):
    model, x = torch.nn.Conv2d(3, 8, 1).eval(), torch.ones(1, 3, 4, 4)
    header = zl.export(model, (x,), tmp_path / "3-layer.net.o", target="cpu:aarch64")
    assert header == tmp_path / "3-layer.net.h" and "void _3_layer_net_run(" in header.read_text()
    with pytest.raises(CompileError, match=r"end in \.o"):
        zl.export(model, (x,), tmp_path / "net.so", target="cpu:aarch64")
    with pytest.raises(CompileError, match="unknown target"):
        zl.export(model, (x,), tmp_path / "net.o", target="cpu:riscv64")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3-layer.net.h", "3-layer.net.o"]
