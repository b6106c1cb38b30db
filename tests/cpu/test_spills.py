"""No kernel puts vectors aside in its inner loops: their assembly is read, for every family and every instruction set.

The transforms of Winograd convolutions alone can't do without the stack: a tile has 36 points. Their products are read.
"""

from __future__ import annotations

import pytest
from inner_loops import inner_loops, on_stack, spills
from kernel_harness import kernel_assembly

from zellige.cpu.isa import AVX2, AVX512, ISAS, NEON, Isa
from zellige.cpu.kernels.activation import ACTIVATIONS
from zellige.cpu.kernels.band import BandKernel, Tile
from zellige.cpu.kernels.copy import CopyKernel, FillKernel
from zellige.cpu.kernels.depthwise import STEPS, DepthwiseKernel
from zellige.cpu.kernels.elementwise import FULL, GUARDED, OPERATIONS, SCALAR, ElementwiseKernel
from zellige.cpu.kernels.epilogue import ADD, Epilogue, activation
from zellige.cpu.kernels.exchange import ExchangeKernel
from zellige.cpu.kernels.interpolate import InterpolateKernel
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.matrix_vector import MatrixVectorKernel
from zellige.cpu.kernels.peak import PeakKernel
from zellige.cpu.kernels.pool import LISTED, PoolKernel, Windows
from zellige.cpu.kernels.pool_windows import AVERAGE, MAXIMUM
from zellige.cpu.kernels.reduce import KEPT, REDUCED, ReduceKernel
from zellige.cpu.kernels.row_winograd import RowWinogradKernel
from zellige.cpu.kernels.softmax import ACROSS, ALONG, SoftmaxKernel
from zellige.cpu.kernels.stream import StreamKernel
from zellige.cpu.kernels.winograd import WinogradGroup, WinogradStrip
from zellige.cpu.kernels.winograd_points import TRANSFORMS
from zellige.cpu.kernels.winograd_runs import Tiling
from zellige.cpu.tables.depthwise import MOST, MOST_WITHOUT_MASKS
from zellige.cpu.tables.matrix_vector import RUNS, SINGLES, TOKENS

RELU = activation("relu")
ADDED: Epilogue = (ADD, RELU)
NEEDED = {"power": {"exponent": 2.7}}      # parameters that have no default, or whose default is a short cut
OPERANDS = {name: 4 if name.startswith("where") else {"identity": 1, "scale_shift": 3}.get(name, 2) for name in OPERATIONS}


PRODUCTS = {WinogradStrip: "_products", WinogradGroup: "_products", RowWinogradKernel: "_products"}
"""Families of which some functions alone are read."""

KNOWN = {("matrix-vector of single columns", AVX2)}
"""What does spill: for four tokens LLVM loads four weights at once there, beside eight sums, and puts two vectors of them aside."""


def multiplying(isa: Isa) -> dict[str, Kernel]:
    """Kernels whose sums fill the registers: nothing of their inner loops may be on the stack."""
    rows, vectors = isa.band
    return {
        "band": BandKernel(rows, (Tile(vectors),), (RELU,)),
        **{f"Winograd group, {tile}": WinogradGroup(rows, vectors, Tiling(tile, tile)) for tile in TRANSFORMS},
        **{f"Winograd strip, {tile}": WinogradStrip(rows, vectors, Tiling(tile, tile), ADDED) for tile in TRANSFORMS},
        "row Winograd": RowWinogradKernel(rows, (vectors,), ADDED),
        "matrix-vector of runs": MatrixVectorKernel(RUNS, TOKENS, (RELU,)),
        "matrix-vector of single columns": MatrixVectorKernel(SINGLES, TOKENS, (RELU,)),
        "peak": PeakKernel(),
        "stream": StreamKernel(),
    }


def others(isa: Isa) -> dict[str, Kernel]:
    tile = MOST if isa.masks else MOST_WITHOUT_MASKS
    windows = [Windows(1), Windows(2), Windows(LISTED), *(Windows(step, (3, width)) for step in (1, 2) for width in (1, 2, 3))]
    return {
        **{f"depthwise at {step}": DepthwiseKernel((3, 3), (1, 1), (step, step), (tile,), (RELU,)) for step in STEPS},
        **{f"activation {name}": ElementwiseKernel("identity", (FULL,), (activation(name, NEEDED.get(name)),))
           for name in ACTIVATIONS},
        "activation gelu, tanh": ElementwiseKernel("identity", (FULL,), (activation("gelu", {"approximate": "tanh"}),)),
        **{f"elementwise {name}": ElementwiseKernel(name, (FULL, SCALAR, SCALAR, FULL)[:count], ADDED)
           for name, count in OPERANDS.items()},
        **{f"guarded {name}": ElementwiseKernel(name, (GUARDED,) * count) for name, count in OPERANDS.items()},
        **{f"{reduction} pool, {form}": PoolKernel(reduction, form, ADDED) for reduction in (AVERAGE, MAXIMUM) for form in windows},
        **{f"reduce {lanes} {guarded}": ReduceKernel(lanes, guarded, (RELU,))
           for lanes in (REDUCED, KEPT) for guarded in (False, True)},
        **{f"softmax {lanes} {logarithm} {guarded}": SoftmaxKernel(lanes, logarithm, guarded)
           for lanes in (ALONG, ACROSS) for logarithm in (False, True) for guarded in (False, True)},
        **{f"interpolate {bilinear}": InterpolateKernel(bilinear) for bilinear in (False, True)},
        "copy": CopyKernel(), "fill": FillKernel(), "exchange": ExchangeKernel(),
    }


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("families, forbidden", [(multiplying, lambda loop, isa: on_stack(loop)), (others, spills)],
                         ids=["multiplying", "others"])
def test_inner_loops_put_no_vectors_aside(isa, families, forbidden):
    found = {}
    for name, kernel in families(isa).items():
        loops = inner_loops(kernel_assembly(kernel, isa), PRODUCTS.get(type(kernel), ""))
        assert loops, f"{name} has no loop"
        found[name] = [line for loop in loops for line in forbidden(loop, isa)]
    spilling = {name: lines for name, lines in found.items() if lines}
    assert set(spilling) == {name for name, where in KNOWN if where == isa and name in found}, spilling


def test_every_family_is_read():
    families = {type(kernel) for kernel in (*multiplying(AVX512).values(), *others(AVX512).values())}
    assert families == set(concrete(Kernel))


def concrete(base: type) -> list[type]:
    """The classes of the tree that are no base of others, tests' own left out."""
    children = [child for child in base.__subclasses__() if child.__module__.startswith("zellige.")]
    return [kind for child in children for kind in concrete(child) or [child]]


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_a_register_tile_that_is_too_large_is_noticed(isa):
    rows, vectors = isa.band
    loops = inner_loops(kernel_assembly(BandKernel(2 * rows, (Tile(vectors),)), isa))
    assert any(spills(loop, isa) for loop in loops)


def test_loops_are_found_wherever_their_blocks_lie():
    text = """f:
\tmov x1, #0
\tb .LBB0_2
.LBB0_1:
\tstr q0, [sp, #16]
\tadd x1, x1, #1
.LBB0_2:
\tcmp x1, x0
\tb.ge .LBB0_5
.LBB0_3:
\tldr q1, [x2]
\tcbnz x3, .LBB0_6
.LBB0_4:
\tb.ne .LBB0_3
\tb .LBB0_1
.LBB0_5:
\tret
.LBB0_6:
\tfadd v0.4s, v0.4s, v1.4s
\tb .LBB0_4
"""
    loop, = inner_loops(text)
    assert [line.split()[0] for line in loop] == ["ldr", "cbnz", "b.ne", "fadd", "b"]
    assert spills(loop, NEON) == [] and spills(["\tstr q0, [sp, #16]", "\tstr x0, [sp]"], NEON) == ["str q0, [sp, #16]"]
    assert spills(["\tvmovups\t%zmm1, -64(%rsp)", "\tvmovups\t-64(%rsp), %zmm1", "\tmovq\t%rax, 8(%rsp)"], AVX512) == [
        "vmovups\t%zmm1, -64(%rsp)"]
