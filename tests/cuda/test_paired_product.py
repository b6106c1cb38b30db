"""The product of paired blocks, of 64 rows each: run on an emulated GPU against float64."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from block_weights import random_blocks
from emulated_kernel import emulated_blocks, needs_compiler, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from test_block_product import MIDDLE, NARROW, TOLERANCE, WIDE
from test_paired_blocks import on_cpu
from vector_weights import reference, relative_error

from zellige.cuda.operators.block_product import BlockKernel, in_blocks, multiply, suits
from zellige.cuda.tiling.paired_blocks import ROWS, STEP, paired
from zellige.errors import CompileError, InputError


def check(kernel: BlockKernel, weight: torch.Tensor, tokens: int, with_bias: bool, with_residual: bool, activation: str, lazy: bool,
          seed: int, edit: tuple[str, str] | None = None) -> None:
    (rows, columns), dtype = weight.shape, weight.dtype
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, columns + -columns % 8 + 8, generator=generator).to(dtype)[:, :columns]
    bias = torch.randn(rows, generator=generator).to(dtype) if with_bias else None
    residual = torch.randn(tokens, rows, generator=generator).to(dtype) if with_residual else None
    tiles = paired(on_cpu(weight))
    assert in_blocks(tiles)
    y = emulated_blocks(kernel, tiles, x, bias, residual, activation, lazy, seed, edit)
    exact = reference(weight, x.T, bias, None if residual is None else residual.T, None if activation == "none" else activation)
    assert relative_error(y.T, exact) < TOLERANCE[dtype]


def by_turns(halves: list[str], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """A weight of blocks that stand where a half's line has an x."""
    grid = np.array([[mark == "x" for mark in half] for half in halves])
    values = np.random.default_rng(seed).standard_normal((ROWS * grid.shape[0], STEP * grid.shape[1]))
    return torch.from_numpy(values * np.kron(grid, np.ones((ROWS, STEP)))).to(dtype)


ALONE = by_turns(["x" * 5 + "." * 5, "." * 5 + "x" * 5], torch.bfloat16)
"""One half works while the other has nothing for longer than the ring is, and the other way round."""

TURNS = by_turns(["x.xx..x...xxx", ".xx.xx..xx..x"], torch.float16)
"""Steps of one half, of the other, and of both."""

BUSY = by_turns(["x" * 34, "." * 30 + "x..x", "." * 34], torch.bfloat16)
"""More steps than are read at a time; a half that is there for the last alone, one of zeros, and nobody."""

RANDOM = random_blocks(264, 520, 0.4, 0.3, torch.float16, 7, height=ROWS)
"""With rows that don't lie together."""

CASES = [
    (WIDE, ALONE, 70, True, True, "gelu"), (NARROW, TURNS, 130, True, False, "none"), (NARROW, BUSY, 37, True, False, "none"),
    (MIDDLE, RANDOM, 150, True, True, "silu"),
]


@needs_compiler
@pytest.mark.parametrize("lazy", [False, True], ids=["at-once", "when-waited-for"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_on_an_emulated_gpu(case: tuple, lazy: bool) -> None:
    check(*case, lazy, seed=7)


@needs_compiler
@pytest.mark.full
@settings(max_examples=60)
@given(st.sampled_from([WIDE, MIDDLE, NARROW]), st.integers(1, 50), st.integers(1, 1200), st.integers(1, 600), st.floats(0, 1),
       st.sampled_from([0.0, 0.3]), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31 - 1))
def test_any_shape_on_an_emulated_gpu(kernel: BlockKernel, eights: int, columns: int, tokens: int, density: float, dropped: float,
                                      with_bias: bool, with_residual: bool, lazy: bool, seed: int) -> None:
    weight = random_blocks(8 * eights, columns, density, dropped, torch.bfloat16, seed, height=ROWS)
    check(kernel, weight, tokens, with_bias, with_residual, "gelu", lazy, seed)


SKIPPING = "wait_for_products<0>(sums);\n                if (lane == 0 && before"
WAITING = "barrier_wait(shared.full(ring.stage), ring.parity);"
BROKEN = [
    (WAITING, ""),
    (WAITING, f"if (all_of_warp(load_4(shared.share(ring.stage)) >> group & 1)) {WAITING}"),
    ("barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);", ""),
    (SKIPPING, SKIPPING.partition("\n")[2]),
    ("if (lane == 0 && before != NONE) barrier_arrive(shared.empty(before));", ""),
    ("if (lane == 0) barrier_arrive(shared.empty(ring.stage));\n                before", "before"),
    ("before = NONE;", ""),
    ("PAIRED ? before != NONE : step >= IN_FLIGHT", "step >= IN_FLIGHT"),
    ("PAIRED ? before != NONE : place.steps", "place.steps"),
    ("share.note(shared.share(ring.stage));", ""),
    ("shared.share(ring.stage)) >> group & 1", "shared.share(ring.stage)) & 1"),
    ("ready(2) + at * 4", "ready(2)"),
    ("(has(0) + has(1)) * HALF_BYTES", "BLOCK_BYTES"),
    ("target + HALF_BYTES", "target"),
    ("share.first() + share.has(0)", "share.first() + 1"),
    ("word >> 2", "word"),
    ("own_share.of_lane(i)", "own_share.of_lane(0)"),
    ("Share::of(halves, mine)", "Share::of(halves, place.first + lane % count)"),
]
"""Without waits, who has no part arrives too early, or gives back what is still read; then come stages that nobody gives back, or
twice; wrong words, blocks in wrong places. The last reads the first steps' words again."""


@needs_compiler
@pytest.mark.full
@pytest.mark.parametrize("edit", BROKEN)
def test_the_emulated_gpu_sees_a_broken_kernel(edit: tuple[str, str]) -> None:
    assert not survives(check, CASES, edit)


def test_the_operator_takes_paired_blocks() -> None:
    """Through export, and refused without a GPU, in eight bits, and for what lies badly."""
    weight = paired(on_cpu(TURNS))
    x = torch.zeros(4, TURNS.shape[1], dtype=TURNS.dtype)
    assert suits(weight, x) and not in_blocks(weight, itemsize=1)
    with pytest.raises(CompileError, match="NVIDIA GPU"):
        multiply(weight, x)
    with pytest.raises(InputError, match="expected blocks of 128 rows"):
        multiply(on_cpu(TURNS), x)

    class Layer(torch.nn.Module):
        forward = staticmethod(partial(multiply, weight))

    program = torch.export.export(Layer(), (x,))
    assert next(iter(program.graph.output_node().args[0])).meta["val"].shape == (4, 128)  # type: ignore[union-attr,arg-type]
