"""The reference against definitions written out element by element, which share nothing with it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import GraphError
from zellige.graph.ir import Fused, Graph, TensorType
from zellige.graph.operators import ACTIVATIONS, OPERATORS, make_node
from zellige.graph.reference import EVALUATE, evaluate, run_reference
from zellige.graph.reference_functions import FUNCTIONS
from zellige.graph.resampling import NEAREST, bilinear_taps

numbers = np.random.default_rng(7)


def test_every_operator_and_function_of_the_table_has_a_meaning():
    assert set(EVALUATE) == set(OPERATORS) and set(FUNCTIONS) == set(ACTIVATIONS)


def at(x, n, c, i, j, mode):
    """The element (i, j) of a map that goes on beyond its edges as ``mode`` has it."""
    height, width = x.shape[2:]
    inside = 0 <= i < height and 0 <= j < width
    if mode == "zeros" and not inside:
        return 0.0
    fold = {"zeros": lambda k, size: k, "replicate": lambda k, size: min(max(k, 0), size - 1),
            "circular": lambda k, size: k % size, "reflect": lambda k, size: size - 1 - abs(size - 1 - abs(k))}[mode]
    return x[n, c, fold(i, height), fold(j, width)]


@given(data=st.data())
def test_convolution(data):
    draw = data.draw
    groups, inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3))), (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    dilation, padding = (draw(st.integers(1, 2)), draw(st.integers(1, 2))), tuple(draw(st.integers(0, 2)) for _ in range(4))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    x = numbers.standard_normal((2, groups * inputs, 5, 6))
    weight = numbers.standard_normal((groups * outputs, inputs, *kernel))
    bias = numbers.standard_normal(groups * outputs)
    got = evaluate("conv2d", {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
                              "padding_mode": mode}, [x, weight, bias])
    expected = np.empty_like(got)
    for n, o, i, j in np.ndindex(*got.shape):
        total = bias[o]
        for c, u, v in itertools.product(range(inputs), range(kernel[0]), range(kernel[1])):
            row, column = i * stride[0] + u * dilation[0] - padding[0], j * stride[1] + v * dilation[1] - padding[2]
            total += weight[o, c, u, v] * at(x, n, o // outputs * inputs + c, row, column, mode)
        expected[n, o, i, j] = total
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@given(data=st.data())
def test_pools(data):
    draw = data.draw
    kernel, stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3))), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, kernel[i // 2] - 1)) for i in range(4))
    counted = tuple(draw(st.integers(0, size)) for size in padding)
    divisor = draw(st.sampled_from([0, 3]))
    x = numbers.standard_normal((1, 2, 6, 5))
    greatest = evaluate("max_pool2d", {"kernel": kernel, "stride": stride, "padding": padding}, [x])
    average = evaluate("average_pool2d", {"kernel": kernel, "stride": stride, "padding": padding,
                                          "count_padding": counted, "divisor": divisor}, [x])
    for c, i, j in np.ndindex(*greatest.shape[1:]):
        rows = [i * stride[0] - padding[0] + u for u in range(kernel[0])]
        columns = [j * stride[1] - padding[2] + v for v in range(kernel[1])]
        inside = [x[0, c, r, k] for r in rows for k in columns if 0 <= r < 6 and 0 <= k < 5]
        count = sum(-counted[0] <= r < 6 + counted[1] and -counted[2] <= k < 5 + counted[3] for r in rows for k in columns)
        assert greatest[0, c, i, j] == (max(inside) if inside else -math.inf)
        if divisor or count:
            assert math.isclose(average[0, c, i, j], sum(inside) / (divisor or count), abs_tol=1e-12)


SCALAR = {
    "relu": lambda x: x if x > 0 else 0.0, "relu6": lambda x: min(max(x, 0.0), 6.0),
    "clamp": lambda x, low, high: min(max(x, low), high), "hard_tanh": lambda x, low, high: min(max(x, low), high),
    "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
    "elu": lambda x, alpha: x if x > 0 else alpha * (math.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "celu": lambda x, alpha: max(0.0, x) + min(0.0, alpha * (math.exp(x / alpha) - 1)),
    "gelu": lambda x, approximate: x * (1 + (
        math.erf(x / math.sqrt(2)) if approximate == "none"
        else math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))) / 2,
    "silu": lambda x: x / (1 + math.exp(-x)), "mish": lambda x: x * math.tanh(math.log(1 + math.exp(x))),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)), "hard_sigmoid": lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    "hard_swish": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0), "tanh": math.tanh,
    "softplus": lambda x, beta, threshold: x if beta * x > threshold else math.log(1 + math.exp(beta * x)) / beta,
    "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "rsqrt": lambda x: 1 / math.sqrt(x),
    "reciprocal": lambda x: 1 / x, "absolute": abs, "negate": lambda x: -x, "square": lambda x: x * x,
    "power": lambda x, exponent: x**exponent, "expm1": math.expm1, "log1p": math.log1p, "erf": math.erf,
    "sign": lambda x: 0.0 if x == 0 else math.copysign(1.0, x),
}
OTHER = {"slope": 0.25, "alpha": 1.5, "approximate": "tanh", "low": -0.5, "high": 0.75, "beta": 2.0, "threshold": 1.0,
         "exponent": 1.7}


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations(function):
    low = 0.1 if function in ("log", "log1p", "sqrt", "rsqrt", "power") else -6.0
    x = np.linspace(low, 8.0, 58)
    other = {name: OTHER[name] for name in ACTIVATIONS[function]}
    for parameters in (dict(ACTIVATIONS[function]), other):
        got = evaluate("activation", {"function": function, **parameters}, [x])
        expected = [SCALAR[function](value, **parameters) for value in x.tolist()]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_activations_stay_finite_far_out():
    x = np.array([-1e4, 1e4])
    for function in ("sigmoid", "silu", "mish", "softplus", "tanh", "gelu", "elu", "selu", "hard_swish"):
        assert np.isfinite(evaluate("activation", {"function": function}, [x])).all(), function


@given(size=st.integers(1, 9), result=st.integers(1, 20))
def test_resampling_tables_stay_inside(size, result):
    nearest = [indices(size, result, 0.0) for indices in NEAREST.values()]
    lower, upper, share = bilinear_taps(size, result, 0.0, align_corners=False)
    for table in (*nearest, lower, upper):
        assert len(table) == result and (table >= 0).all() and (table < size).all() and (np.diff(table) >= 0).all()
    assert ((share >= 0) & (share <= 1)).all() and (upper - lower <= 1).all()


def test_a_fused_epilogue_runs_in_its_order():
    kind = TensorType((2, 2))
    first = make_node("a", "add", ["x", "x"], [kind, kind])
    steps = (Fused("activation", {"function": "relu"}), Fused("add", operand="x"), Fused("activation", {"function": "negate"}))
    node = make_node("b", "multiply", ["a", "a"], [kind, kind])
    graph = Graph("g", {"x": kind}, {"a": first, "b": type(node)(**{**vars(node), "epilogue": steps})}, ("b", "a"))
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    result, doubled = run_reference(graph, [x])
    np.testing.assert_array_equal(result, -(np.maximum(4 * x * x, 0) + x))
    np.testing.assert_array_equal(doubled, 2 * x)


def test_inputs_of_other_shapes_are_refused():
    kind = TensorType((2, 2))
    graph = Graph("g", {"x": kind}, {"y": make_node("y", "add", ["x", "x"], [kind, kind])}, ("y",))
    with pytest.raises(GraphError, match="expected inputs of shapes"):
        run_reference(graph, [np.zeros((2, 3))])
