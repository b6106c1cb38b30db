"""Networks in int8: every layer as the oracle in Python's integers has it, and within half a step of float64."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_layers import MAKERS, SCHEMES, layers, numbers_for, quantized
from quantized_oracle import run_oracle
from small_networks import Build, Generator

from zellige.errors import GraphError, QuantizationError
from zellige.graph.fixed_point import LEAST, MOST, to_steps
from zellige.graph.ir import Graph
from zellige.graph.quantized import QuantizedGraph, QuantizedNode
from zellige.graph.quantized_reference import evaluate_quantized, run_int8, run_quantized
from zellige.graph.reference import evaluate_node, run_reference
from zellige.passes.int8_form import MOVES, int8_form
from zellige.passes.pipeline import optimize
from zellige.passes.quantize import quantize
from zellige.passes.scales import Scheme
from zellige.passes.sparsity import layer_sparsity

FEW = settings(max_examples=12)
MAGNITUDES = st.sampled_from([1e-3, 1.0, 50.0])


def steps_for(graph: QuantizedGraph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return [to_steps(array, graph.scales[name]) for name, array in zip(graph.inputs, inputs, strict=True)]


def random_steps(graph: QuantizedGraph, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(LEAST, MOST + 1, shape).astype(np.int8) for shape in graph.inputs.values()]


def assert_equals_oracle(graph: QuantizedGraph, inputs: list[np.ndarray]) -> None:
    expected = run_oracle(graph, inputs)
    came = run_int8(graph, inputs, keep=list(graph.nodes))
    for name in graph.nodes:
        assert came[name].dtype == np.int8
        np.testing.assert_array_equal(came[name], expected[name], err_msg=str(graph.nodes[name]))


@pytest.mark.parametrize("op", MAKERS)
@FEW
@given(st.data())
def test_layers_equal_the_oracle(op, data):
    """On numbers like those of calibration, and on any."""
    graph = data.draw(layers(op))
    whole = quantized(graph, data.draw(SCHEMES), data.draw(MAGNITUDES))
    assert_equals_oracle(whole, random_steps(whole))


def exact_steps(plain: Graph, node: QuantizedNode, graph: QuantizedGraph, values: dict[str, np.ndarray]) -> np.ndarray:
    """What float64 makes of the node's int8 inputs and parameters, in steps of its result."""
    real = {name: values[name] * graph.scales[name] for name in node.inputs}
    parameters = {name: array.astype(np.float64) for name, array in plain.constants.items() if name not in real}
    like = plain.nodes[node.name]
    if node.weight is not None:
        rows = node.weight_scale.reshape(-1, *(1,) * (node.weight.ndim - 1))
        parameters[like.inputs[1]] = node.weight * rows
        if len(like.inputs) == 3:
            parameters[like.inputs[2]] = node.bias * node.weight_scale * graph.scales[node.inputs[0]]
    return evaluate_node(like, {**parameters, **real}) / graph.scales[node.name]


@pytest.mark.parametrize("op", MAKERS)
@FEW
@given(st.data())
def test_layers_are_within_half_a_step(op, data):
    """Of float64 on the same int8 numbers, or saturated where that is beyond the range; moves are exact."""
    graph = data.draw(layers(op))
    scheme = data.draw(SCHEMES)
    whole, plain = quantized(graph, scheme, data.draw(MAGNITUDES)), int8_form(graph)
    inputs = random_steps(whole, seed=1)
    values = {**run_int8(whole, inputs, keep=[*whole.inputs, *whole.nodes]), **whole.constants}
    for node in whole:
        exact = np.clip(exact_steps(plain, node, whole, values), LEAST, MOST)
        error = float(np.abs(values[node.name] - exact).max())
        averages = scheme.powers_of_two and node.op in ("average_pool2d", "adaptive_average_pool2d", "mean", "sum")
        # averages by a multiplier of 30 bits, less those of the sum, if all must fit 32: 2⁻¹³ of 128 steps at these sizes
        slack = 0.016 if averages else 1e-4
        move = node.op in MOVES and not any(step.op == "activation" for step in plain.nodes[node.name].epilogue)
        assert error <= (1e-9 if move and node.op != "pad" else 0.5 + slack), f"{node}: off by {error}"


@FEW
@given(st.data())
def test_weights_are_within_half_a_step_and_zeros_stay(data):
    graph = data.draw(layers("conv2d"))
    node = next(node for node in graph if node.op == "conv2d")
    weight = graph.constants[node.inputs[1]]
    weight[np.random.default_rng(0).random(weight.shape) < 0.4] = 0
    whole = quantized(graph, data.draw(SCHEMES))
    made = next(one for one in whole if one.op == "conv2d")
    rows = made.weight_scale.reshape(-1, 1, 1, 1)
    assert np.all(np.abs(made.weight * rows - weight) <= rows * (0.5 + 1e-9))
    bias = graph.constants[node.inputs[2]] if len(node.inputs) == 3 else 0.0
    step = made.weight_scale * whole.scales[made.inputs[0]]
    assert np.all(np.abs(made.bias * step - bias) <= step * (0.5 + 1e-6))
    assert not np.any(made.weight[weight == 0])
    assert np.abs(made.weight).max(initial=0) <= MOST
    if np.any(weight):
        assert np.abs(made.weight).max() >= 63, "the range is used, but for the last bit that powers of two leave"


@pytest.mark.parametrize("powers", [True, False])
def test_zero_blocks_stay_zero_blocks(powers):
    b = Build(1, 32, 6, 6)
    weight = b.numbers.standard_normal((32, 32, 3, 3))
    kept = b.numbers.random((4, 4)) < 0.5
    weight *= np.kron(kept, np.ones((8, 8)))[..., None, None]
    graph = b.done(b("conv2d", b.x, b.constant(weight), padding=(1, 1, 1, 1)))
    (node,) = quantized(graph, Scheme(powers_of_two=powers))
    before, after = layer_sparsity(weight), layer_sparsity(node.weight)
    assert (after.blocks, after.columns, after.pattern) == (before.blocks, before.columns, before.pattern)
    assert after.blocks == kept.mean()


@given(st.integers(0, 2**16), st.sampled_from(["add", "subtract"]), st.floats(0.01, 30.0))
def test_additions_are_aligned_exactly(seed, op, ratio):
    """With powers of two: both operands are brought to the finer step, and the sum is rounded once."""
    b = Build(1, 3, 4, 5, seed=seed)
    graph = b.done(b(op, b.x, b.activation(b("multiply", b.x, b.constant(ratio)), "relu")))
    whole = quantized(graph, Scheme("minmax", powers_of_two=True))
    node = whole.nodes[graph.outputs[0]]
    random = np.random.default_rng(seed)
    x, y = (random.integers(LEAST, MOST + 1, node.shape).astype(np.int8) for _ in range(2))
    came = evaluate_quantized(node, [x, y])
    sx, sy, sz = (Fraction(whole.scales[name]) for name in (*node.inputs, node.name))
    sign = 1 if op == "add" else -1
    for one, other, result in zip(x.flat, y.flat, came.flat, strict=True):
        exact = (int(one) * sx + sign * int(other) * sy) / sz
        assert result == min(max((exact + Fraction(1, 2)).__floor__(), LEAST), MOST)


@given(st.integers(0, 2**16), st.booleans())
def test_residual_sums_are_rounded_once(seed, powers):
    """A convolution, its bias, a residual and a relu: one accumulator, against fractions."""
    b = Build(1, 4, 3, 3, seed=seed)
    graph = optimize(b.done(b.activation(b("add", b.conv(b.x, 4, bias=True), b.x), "relu")))
    whole = quantized(graph, Scheme(powers_of_two=powers))
    (node,) = whole
    (x,) = random_steps(whole, seed)
    came = evaluate_quantized(node, [x, x])
    sx, sz = Fraction(whole.scales[node.inputs[0]]), Fraction(whole.scales[node.name])
    for channel in range(4):
        sw = Fraction(float(node.weight_scale[channel]))
        for row, column in np.ndindex(3, 3):
            products = (int(node.weight[channel, c, 0, 0]) * int(x[0, c, row, column]) for c in range(4))
            total = int(node.bias[channel]) + sum(products)
            exact = max((total * sw * sx + int(x[0, channel, row, column]) * sx) / sz, Fraction(0))
            result = int(came[0, channel, row, column])
            if powers:
                assert result == min((exact + Fraction(1, 2)).__floor__(), MOST)
            else:
                assert abs(result - min(exact, MOST)) <= Fraction(1, 2) + Fraction(1, 10**4)


@pytest.mark.parametrize("powers", [True, False])
def test_concatenated_values_share_a_scale(powers):
    """Directly, and through moves and maxima; averages have scales of their own."""
    b = Build(1, 3, 4, 4)
    one = b.conv(b.x, 2)
    pooled = b("max_pool2d", b("multiply", b.x, b.constant(20.0)), kernel=(1, 1))
    both = b("concat", one, b("channel_shuffle", pooled, groups=3), b.constant(np.zeros((1, 1, 4, 4))), dimension=1)
    mean = b("average_pool2d", both, kernel=(2, 2))
    whole = quantized(b.done(mean), Scheme(powers_of_two=powers))
    values = run_int8(whole, random_steps(whole), keep=list(whole.nodes))
    assert len({whole.scales[name] for name in (one, pooled, both)}) == 1
    assert len({whole.scales[name] for name in (b.x, one, mean)}) == 3
    np.testing.assert_array_equal(values[both][:, :2], values[one])
    assert whole.nodes[both].rescale is None


@settings(max_examples=30)
@given(st.integers(0, 2**16), st.integers(3, 8), SCHEMES)
def test_generated_networks_equal_the_oracle(seed, length, scheme):
    """Whole networks of motifs, optimised; those with an operator that int8 lacks say which."""
    graph = optimize(Generator(seed).network(length))
    try:
        whole = quantized(graph, scheme)
    except QuantizationError as error:
        assert "can't be quantised to int8" in str(error) and ("divide" in str(error) or "interpolate" in str(error)), error
        return
    assert str(whole).startswith("quantized graph small(")
    inputs = numbers_for(graph, seed=3)
    assert_equals_oracle(whole, steps_for(whole, inputs))
    for one, other in zip(run_quantized(whole, inputs), run_reference(graph, inputs), strict=True):
        assert one.shape == other.shape and np.isfinite(one).all()


def test_a_softmax_ends_a_network_in_real_numbers():
    b = Build(2, 3, 4, 4)
    logits = b("linear", b("reshape", b.x, shape=(2, 48)), b.random(10, 48))
    graph = b.done(b("softmax", logits, dimension=1), logits)
    whole = quantized(graph, Scheme())
    inputs = numbers_for(graph, seed=1)
    share, whole_logits = run_quantized(whole, inputs)
    shifted = np.exp(whole_logits - whole_logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(share, shifted / shifted.sum(axis=1, keepdims=True), rtol=1e-12)
    assert list(run_int8(whole, steps_for(whole, inputs))) == [logits]


def refused(graph: Graph, scheme: Scheme | None = None, batches: object = None) -> str:
    with pytest.raises(QuantizationError) as caught:
        quantize(graph, [numbers_for(graph, 0)] if batches is None else batches, scheme)
    return str(caught.value)


def test_what_has_no_int8_form_is_named():
    def last(op: str, *constants: object, **attributes: object) -> str:
        b = Build(1, 4, 4, 4)
        return refused(b.done(b(op, b.x, *map(b.constant, constants), name="here", **attributes)))

    for text in (last("divide", np.ones(4)), last("interpolate", mode="bilinear", size=(8, 8)),
                 last("batch_norm", *np.ones((4, 4))), last("pad", padding=(1, 1, 1, 1), mode="constant", value=float("-inf"))):
        assert text.startswith("node 'here' (") and "from module net.part) can't be quantised to int8: " in text
    assert "optimize" in last("batch_norm", *np.ones((4, 4)))
    b = Build(1, 4)
    inner = b("softmax", b.x, dimension=1, name="here")
    assert "must be an output that nothing reads" in refused(b.done(b.activation(inner, "relu"), inner))
    b = Build(1, 4)
    assert "its parameter 'x1' must be a constant" in refused(b.done(b("linear", b.x, b.input(3, 4))))
    b = Build(1, 4)
    assert "log is not defined on all of" in refused(b.done(b.activation(b.x, "log")), batches=[[np.ones((1, 4))]])


def test_calibration_says_what_it_lacks():
    b = Build(1, 4, 4, 4)
    graph = b.done(b.conv(b.x, 4))
    assert "at least one batch" in refused(graph, batches=[])
    assert "value 'x0': expected finite numbers" in refused(graph, batches=[[np.full((1, 4, 4, 4), np.nan)]])
    with pytest.raises(GraphError, match="expected inputs of shapes"):
        quantize(graph, [[]])
    with pytest.raises(QuantizationError, match="executor that gives 1 outputs, got 1 and 2"):
        quantize(graph, [numbers_for(graph, 0)], execute=lambda probe, inputs: run_reference(probe, inputs) * 2)
    for fault, options in (("calibration must be one of", {"calibration": "best"}), ("percentile must be", {"percentile": 0.0}),
                           ("rows must be", {"rows": 0})):
        with pytest.raises(QuantizationError, match=fault):
            Scheme(**options)


def test_accumulators_never_pass_32_bits():
    """As many inputs as fit; one that could overflow is an error, not a wrong number."""
    def network(inputs: int) -> Graph:
        b = Build(1, inputs)
        return b.done(b("linear", b.x, b.constant(np.ones((1, inputs))), name="wide"))

    most = (2**31 - 1) // (127 * 128)
    (node,) = quantized(network(most), Scheme(powers_of_two=False))
    worst = evaluate_quantized(replace(node, low=LEAST), [np.full((1, most), LEAST, np.int8)])
    assert worst.tolist() == [[LEAST]]
    assert "node 'wide' (linear, from module net.part): its accumulators could pass 32 bits" in refused(network(most + 1))


def test_tiny_weights_beside_a_large_bias():
    """A dead channel keeps its bias, and steps that int32 can say."""
    b = Build(1, 8, 3, 3)
    weight = b.numbers.standard_normal((2, 8, 1, 1)) * np.array([1e-12, 1.0]).reshape(2, 1, 1, 1)
    graph = b.done(b("conv2d", b.x, b.constant(weight), b.constant([5.0, 0.1])))
    for powers in (True, False):
        (node,) = quantized(graph, Scheme(powers_of_two=powers))
        assert np.abs(node.bias.astype(np.int64)).max() <= 2**28
        inputs = numbers_for(graph, 1)
        error = run_quantized(quantized(graph, Scheme(powers_of_two=powers)), inputs)[0] - run_reference(graph, inputs)[0]
        assert np.abs(error[:, 0]).max() <= quantized(graph, Scheme(powers_of_two=powers)).scales[node.name] * 0.51


@pytest.mark.parametrize("powers", [True, False])
def test_channels_without_weights(powers):
    """All zero, next to nothing, or cut off by their bias: what is added to them comes through, and nothing wraps around."""
    b = Build(1, 4, 3, 3)
    weight = b.numbers.standard_normal((4, 4, 1, 1)) * np.array([0.0, 1e-12, 1e-12, 1.0]).reshape(4, 1, 1, 1)
    value = b("conv2d", b.x, b.constant(weight), b.constant([0.0, 0.0, -1e9, 0.0]))
    graph = optimize(b.done(b.activation(b("add", value, b.x), "relu")))
    whole = quantized(graph, Scheme(powers_of_two=powers))
    (node,) = whole
    inputs = numbers_for(graph, 1)
    came, expected = run_quantized(whole, inputs)[0], run_reference(graph, inputs)[0]
    assert np.abs(came - expected)[:, :3].max() <= whole.scales[node.name] * 0.51 + whole.scales[b.x] * 0.5
    assert not came[:, 2].any() and came[:, 0].any()


def test_pads_beyond_what_was_seen():
    b = Build(1, 2, 3, 3)
    graph = b.done(b("pad", b.x, padding=(1, 0, 0, 1), mode="constant", value=-40.0))
    whole = quantized(graph, Scheme("minmax"))
    assert run_quantized(whole, numbers_for(graph, 1))[0][0, 0, 0, 0] == pytest.approx(-40.0)


@given(st.integers(0, 2**16), st.sampled_from([2, 8, None]))
def test_rows_share_scales(seed, rows):
    b = Build(1, 4, 3, 3, seed=seed)
    (node,) = quantized(b.done(b.conv(b.x, 19, bias=True)), Scheme(rows=rows))
    each = rows or 19
    for first in range(0, 19, each):
        assert len(set(node.weight_scale[first:first + each])) == 1
        assert np.abs(node.weight[first:first + each]).max() == MOST


@given(st.data())
def test_powers_of_two_need_shifts_alone(data):
    """No product of a layer's only term, and no sum that 32 bits could not hold."""
    graph = data.draw(layers(data.draw(st.sampled_from(["conv2d", "linear", "scale_shift", "add", "multiply"]))))
    whole = quantized(graph, Scheme(powers_of_two=True), data.draw(MAGNITUDES))
    for scale in whole.scales.values():
        assert np.frexp(scale)[0] == 0.5
    for node in whole:
        if node.rescale is None or node.op == "mean":
            continue
        multipliers = np.stack(node.rescale.multipliers)
        assert not np.any(multipliers & (np.abs(multipliers) - 1) & (multipliers > 0)), "every multiplier is a power of two"
        assert np.all((np.abs(multipliers).min(axis=0) == 1) | (node.rescale.shift == 0))


def test_an_executor_of_ones_own_is_asked_for_values_alone():
    b = Build(1, 4, 4, 4)
    graph = b.done(b.activation(b.conv(b.x, 4), "silu"))
    asked = []

    def execute(probe: Graph, inputs: list[np.ndarray]) -> list[np.ndarray]:
        asked.append(probe.outputs)
        return run_reference(probe, inputs)

    batches = [numbers_for(graph, seed) for seed in range(3)]
    one, other = quantize(graph, iter(batches), execute=execute), quantize(graph, batches[::-1])
    assert asked == [tuple(graph.nodes)] * 3
    assert one.scales == other.scales, "the order of batches changes nothing"
