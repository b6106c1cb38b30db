"""Small networks that are lowered, checked and simulated, and compared with the int8 reference."""

from __future__ import annotations

import numpy as np
from small_networks import Build

from zellige.aie2.check import check
from zellige.aie2.cycles import step_cycles
from zellige.aie2.lowering.lower import assemble, lower
from zellige.aie2.lowering.plan import Plan
from zellige.aie2.overlay import CoreMemory, Overlay
from zellige.aie2.simulate import simulate
from zellige.aie2.step import step
from zellige.aie2.tensor import host_value
from zellige.graph.ir import Graph
from zellige.graph.quantized import QuantizedGraph
from zellige.graph.quantized_reference import run_int8
from zellige.passes.pipeline import optimize
from zellige.passes.scales import Scheme

POWERS = Scheme(powers_of_two=True, rows=8)
SMALL = CoreMemory(activations=1024, weights=2048, results=512, accumulators=2048)
"""So little that small layers must be cut as large ones are."""


def assert_runs_right(graph: QuantizedGraph, on: Overlay, planned: Plan | None = None) -> None:
    program = lower(graph, on) if planned is None else assemble(graph, on, planned)
    check(program, on.device)
    random = np.random.default_rng(0)
    inputs = [random.integers(-128, 128, shape).astype(np.int8) for shape in graph.inputs.values()]
    held = {one.name: np.zeros(one.size, np.uint8) if one.data is None else one.data.view(np.uint8).copy() for one in program.host}
    fed = {}
    for text, array in zip(program.inputs.values(), inputs, strict=True):
        value = host_value(text)
        fed[value.buffer] = held[value.buffer]
        value.write(fed[value.buffer], array)
    run = simulate(program, fed, step, lambda packet: step_cycles(packet, on.device), device=on.device)
    for name, expected in run_int8(graph, inputs).items():
        value = host_value(program.outputs[name])
        np.testing.assert_array_equal(value.read(run.host[value.buffer]), expected, err_msg=str(graph.nodes.get(name)))


def pruned(b: Build, outputs: int, inputs: int, kernel: int, seed: int) -> str:
    """Weights of which about half of the 8 × 8 blocks are zero."""
    random = np.random.default_rng(seed)
    kept = np.kron(random.random((-(-outputs // 8), -(-inputs // 8))) < 0.5, np.ones((8, 8)))[:outputs, :inputs]
    return b.constant(random.standard_normal((outputs, inputs, kernel, kernel)) * kept[..., None, None])


def residual_block(seed: int = 0, channels: int = 40, size: int = 9) -> Graph:
    """Pruned convolutions with strides, a residual, a concatenation that not all channels fill, pools and a linear layer."""
    b = Build(1, 3, 2 * size, 2 * size, seed=seed)
    stem = b.activation(b("conv2d", b.x, b.random(channels, 3, 5, 5), stride=(2, 2), padding=(2, 2, 2, 2)), "relu")
    one = b.activation(b("conv2d", stem, pruned(b, 24, channels, 1, seed), b.random(24)), "relu")
    two = b.activation(b("conv2d", one, pruned(b, 24, 24, 3, seed + 1), padding=(1, 1, 1, 1)), "relu")
    three = b.activation(b("add", b("conv2d", two, pruned(b, channels, 24, 1, seed + 2)), stem), "relu")
    odd = b("conv2d", three, pruned(b, 20, channels, 3, seed + 3), padding=(1, 1, 1, 1))
    pooled = b("max_pool2d", odd, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
    mean = b("average_pool2d", three, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
    both = b("concat", odd, mean, pooled, dimension=1)
    last = b("conv2d", both, pruned(b, 32, b.shape(both)[1], 1, seed + 4))
    flat = b("reshape", b("max_pool2d", last, kernel=(2, 2), stride=(4, 4)), shape=(1, 32 * 4))
    return optimize(b.done(b("linear", flat, b.random(10, 32 * 4))))
