"""Whole networks on every instruction set of this machine, and code that keeps to the one it was made for."""

from __future__ import annotations

import gc
import re
from dataclasses import replace

import llvmlite.ir as ir
import numpy as np
import pytest
import torch
from kernel_harness import NATIVE
from operator_networks import OperatorGenerator

import zellige as zl
from zellige.cpu.isa import AVX2, AVX512, NEON, Isa
from zellige.cpu.kernels.band import BandKernel, Tile
from zellige.cpu.kernels.epilogue import activation
from zellige.cpu.kernels.kernel import Kernel, emit_module
from zellige.cpu.kernels.winograd import WinogradGroup, WinogradStrip
from zellige.cpu.kernels.winograd_runs import Tiling
from zellige.cpu.lower.lowering import Options
from zellige.cpu.plan import plan_graph
from zellige.cpu.toolchain import assembly
from zellige.engine import build_engine
from zellige.graph.reference import run_reference
from zellige.models import warm_statistics
from zellige.passes.pipeline import optimize

TOLERANCE = 4e-5  # of the largest value of an output, as of generated networks; whole networks of PyTorch stay far below
LEAST = 0.01
RISCV = Isa("riscv64", "riscv64-unknown-linux-gnu", lanes=4, masks=False, registers=32, band=(8, 3), cpu="generic-rv64",
            features="+m,+a,+f,+d,+c,+v,+zvl128b", needs=("v",))


@pytest.mark.parametrize("isa", NATIVE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("seed", range(20, 26))
def test_generated_networks(seed: int, isa: Isa):
    graph = OperatorGenerator(seed, channels=(8, 24), sizes=(9, 20)).network(10)
    numbers = np.random.default_rng(1)
    inputs = [numbers.standard_normal(kind.shape).astype(np.float32) for kind in graph.inputs.values()]
    expected = run_reference(graph, inputs)
    got = build_engine(optimize(graph), Options(), target=f"cpu:{isa.name}", threads=2)(*inputs)
    for ours, right in zip(got, expected, strict=True):
        assert abs(ours - right).max() <= TOLERANCE * max(abs(right).max(), LEAST)


@pytest.mark.skipif(AVX2 not in NATIVE, reason="networks on AVX2 are NOT TESTED: this machine's CPU lacks it")
@pytest.mark.parametrize("name", ["resnet18", *(
    pytest.param(name, marks=pytest.mark.full) for name in ("efficientnet_b0", "mobilenet_v2", "densenet121"))])
def test_networks_of_torchvision_on_avx2(name: str):
    import torchvision

    torch.manual_seed(0)
    model, x = torchvision.models.get_model(name).eval(), torch.randn(1, 3, 64, 64)
    zl.prune(model, zl.Block(8, 8), sparsity=0.5, example_inputs=(x,))
    warm_statistics(model, (x,))
    engine = zl.compile(model, (x,), target="cpu:x86-64-v3", threads=2)
    assert zl.verify(model, engine, (x,)).max_relative_error <= 2e-5


KERNELS = (BandKernel(4, (Tile(3), Tile(2)), (activation("relu"),)), WinogradStrip(4, 3, Tiling(4, 4)),
           WinogradGroup(4, 3, Tiling(4, 4)), WinogradGroup(4, 3, Tiling(2, 2)))


@pytest.mark.skipif(AVX2 not in NATIVE, reason="code for AVX2 is NOT TESTED: this machine's CPU lacks it")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_code_tuned_for_this_machine_keeps_to_avx2(kernel: Kernel):
    """No register, mask or instruction of AVX-512, on a machine that has it."""
    text = assembly(emit_module([kernel], AVX2), AVX2, native=True)
    assert "%ymm15" in text
    assert not re.search(r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|2\d|3[01])\b", text)


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON], ids=lambda isa: isa.name)
def test_plans_can_be_made_for_machines_that_are_elsewhere(isa: Isa):
    graph = optimize(OperatorGenerator(3).network(8))
    assert plan_graph(graph, isa).isa == isa.name


@pytest.mark.parametrize("isa", [RISCV, replace(AVX512, name="256 bits", lanes=8)], ids=lambda isa: isa.name)
def test_a_row_of_the_table_is_all_that_kernels_need(isa: Isa):
    """Instruction sets that no kernel ever heard of: sums stay in registers there too."""
    rows, vectors = isa.band
    text = assembly(emit_module([BandKernel(rows, (Tile(vectors),))], isa), isa, native=False)
    multiplying = r"\bvfmacc|\bvfmadd"
    loop, = (part for part in re.split(r"\n\.L\w+:", text) if re.search(multiplying, part))
    assert len(re.findall(multiplying, loop)) == rows * vectors
    assert not re.search(r"\(sp\)|\(%rsp\)", loop), "the inner loop spills"


def instructions() -> int:
    return sum(issubclass(type(thing), ir.Instruction) for thing in gc.get_objects())


def test_instructions_go_with_their_text():
    """They refer to one another in circles, and many kernels' worth would lie in memory before Python looked for such."""
    gc.collect()
    gc.disable()
    try:
        before = instructions()
        emit_module(list(KERNELS), AVX512)
        assert instructions() == before
    finally:
        gc.enable()
