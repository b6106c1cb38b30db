"""The verifier takes good graphs and names what is wrong with the others."""

from dataclasses import replace

import numpy as np
import pytest

from zellige.errors import GraphError
from zellige.graph.ir import Fused, Graph, Node, TensorType
from zellige.graph.operators import ACTIVATIONS, OPERATORS, make_node
from zellige.graph.verify import verify_graph

X = TensorType((1, 4, 6, 6))


def small() -> Graph:
    """conv → relu → pool, with a residual in the epilogue of the convolution."""
    weight = np.zeros((4, 4, 3, 3), dtype=np.float32)
    conv = make_node("conv", "conv2d", ["x", "w"], [X, TensorType(weight.shape)], {"padding": (1, 1, 1, 1)})
    conv = replace(conv, epilogue=(Fused("activation", {"function": "relu"}), Fused("add", operand="x")))
    relu = make_node("relu", "activation", ["conv"], [X], {"function": "leaky_relu"})
    pool = make_node("pool", "max_pool2d", ["relu"], [X], {"kernel": (2, 2), "stride": (2, 2)})
    return Graph("small", {"x": X}, {node.name: node for node in (conv, relu, pool)}, ("pool",), {"w": weight},
                 {"tuple": [0]}, 0)


def with_node(name: str, /, **changes: object) -> Graph:
    graph = small()
    return replace(graph, nodes={**graph.nodes, name: replace(graph.nodes[name], **changes)})


def with_attribute(name: str, /, **attributes: object) -> Graph:
    return with_node(name, attributes={**small().nodes[name].attributes, **attributes})


def test_a_good_graph_passes():
    verify_graph(small())
    assert small().nodes["pool"].type == TensorType((1, 4, 3, 3))


@pytest.mark.parametrize("graph, words", [
    (with_node("conv", op="convolve"), "'convolve' is no operator"),
    (with_node("conv", inputs=("x",)), "expected 2 to 3 inputs, got 1"),
    (with_node("conv", inputs=("x", "v")), "reads 'v', which nothing before it makes"),
    (with_node("conv", inputs=("pool", "w")), "reads 'pool', which nothing before it makes"),
    (with_node("relu", inputs=("x", "x")), "expected 1 inputs, got 2"),
    (with_node("relu", name="other"), "the node 'other' is filed under 'relu'"),
    (with_node("relu", type=TensorType((1, 4, 6, 5))), "its type is f32[1, 4, 6, 5], but its operands give f32[1, 4, 6, 6]"),
    (with_node("relu", type=TensorType(X.shape, "f64")), "its type is f64"),
    (with_attribute("conv", groups=3), "takes 12 channels, the input has 4"),
    (with_attribute("conv", groups=True), "attribute groups must be an integer ≥ 1, got True"),
    (with_attribute("conv", stride=(0, 1)), "attribute stride must be a tuple of 2 integers ≥ 1, got (0, 1)"),
    (with_attribute("conv", stride=[1, 1]), "attribute stride must be a tuple"),
    (with_attribute("conv", padding=(0, -1, 0, 0)), "attribute padding"),
    (with_attribute("conv", padding_mode="mirror"), "one of zeros, reflect"),
    (with_attribute("conv", padding=(9, 9, 9, 9), padding_mode="reflect"), "reflect padding of 9 needs a larger map"),
    (with_attribute("conv", bias=True), "unknown attribute 'bias'; conv2d takes stride"),
    (with_attribute("relu", slope=1), "attribute slope must be a real number (a float, not NaN), got 1"),
    (with_attribute("relu", slope=float("nan")), "attribute slope"),
    (with_attribute("relu", function="relu"), "unknown attribute 'slope'"),
    (with_node("relu", attributes={"function": "leaky_relu"}), "attribute slope is missing"),
    (with_node("relu", attributes={}), "attribute function is missing"),
    (with_attribute("pool", kernel=(9, 9)), "a window of 9 does not fit in 6"),
    (with_node("conv", epilogue=(Fused("add", operand="relu"),)), "reads 'relu', which nothing before it makes"),
    (with_node("conv", epilogue=(Fused("add", operand="w"),)), "the fused add of 'w' needs f32[1, 4, 6, 6]"),
    (with_node("conv", epilogue=(Fused("add"),)), "a fused add must have an operand"),
    (with_node("conv", epilogue=(Fused("multiply", operand="x"),)), "must be activation or add, got 'multiply'"),
    (with_node("conv", epilogue=(Fused("activation", {"function": "spike"}),)), "attribute function must be one of"),
    (with_node("conv", epilogue=(Fused("activation", {"function": "relu"}, "x"),)), "must have no operand"),
    (replace(small(), outputs=()), "there must be at least one output"),
    (replace(small(), outputs=("x",)), "the output 'x' is no node"),
    (replace(small(), inputs={"x": TensorType((0, 4, 6, 6))}), "a shape is at most 8 integers ≥ 1, got [0, 4, 6, 6]"),
    (replace(small(), inputs={"x": TensorType(X.shape, "i64")}), "the element type must be one of f32, f64, got i64"),
    (replace(small(), inputs={"x": X, "w": X}), "'w' is an input and a constant"),
    (replace(small(), inputs={"x": X, "relu": X}), "the name 'relu' is given twice"),
    (replace(small(), constants={"w": np.zeros((4, 4, 3, 3))}), "element types differ: f32, f64"),
    (replace(small(), constants={"w": np.zeros((4, 4, 3, 3), dtype=np.complex64)}), "expected an array of float32"),
    (replace(small(), input_tree={"tuple": [1]}), "input_tree: position 1 is not among 1"),
    (replace(small(), output_tree={"set": [0]}), "must be a list, tuple or dict"),
])
def test_broken_graphs_are_named(graph, words):
    with pytest.raises(GraphError) as caught:
        verify_graph(graph)
    assert words in str(caught.value) and "graph small" in str(caught.value)


BAD_SHAPES = [
    ("conv2d", [(4, 6, 6), (4, 4, 3, 3)], {}, "the input must have 4 dimensions"),
    ("conv2d", [(1, 4, 6, 6), (3, 2, 3, 3)], {"groups": 2}, "3 output channels do not divide into 2 groups"),
    ("conv2d", [(1, 4, 6, 6), (4, 4, 3, 3), (3,)], {}, "the bias must have shape [4], got [3]"),
    ("conv2d", [(1, 4, 6, 6), (4, 4, 3, 3)], {"dilation": (3, 3)}, "a window of 7 does not fit in 6"),
    ("linear", [(2, 3), (4, 5)], {}, "takes 5 inputs, the last dimension of [2, 3] differs"),
    ("batch_norm", [(2, 3), (3,), (3,), (3,), (4,)], {}, "must have shape [3], got [4]"),
    ("scale_shift", [(2,), (2,), (2,)], {}, "must have a channel dimension"),
    ("prelu", [(2, 3), (2,)], {}, "the slope must have shape [1] or [3], got [2]"),
    ("add", [(2, 3), (2,)], {}, "the shapes [2, 3] and [2] do not broadcast"),
    ("average_pool2d", [(1, 1, 4, 4)], {"kernel": (2, 2), "count_padding": (1, 0, 0, 0)}, "exceeds the padding"),
    ("mean", [(2, 3)], {"dimensions": (2,)}, "dimension 2 is not one of [2, 3]"),
    ("mean", [(2, 3)], {"dimensions": (1, 0)}, "must be ascending, each once"),
    ("softmax", [(2, 3)], {"dimension": 2}, "dimension 2 is not one of"),
    ("concat", [(2, 3), (3, 3)], {"dimension": 1}, "[3, 3] does not join [2, 3] along dimension 1"),
    ("slice", [(2, 3)], {"dimension": 1, "start": 1, "stop": 4}, "the slice 1:4 is empty or leaves dimension 1 of [2, 3]"),
    ("slice", [(2, 3)], {"dimension": 1, "start": 2, "stop": 2}, "the slice 2:2 is empty"),
    ("pad", [(1, 1, 3, 3)], {"padding": (-2, -1, 0, 0)}, "leaves nothing"),
    ("pad", [(1, 1, 3, 3)], {"padding": (4, 0, 0, 0), "mode": "circular"}, "circular padding of 4"),
    ("reshape", [(2, 3)], {"shape": (4,)}, "[2, 3] has 6 elements, [4] has 4"),
    ("transpose", [(2, 3)], {"order": (0, 0)}, "is no permutation of 2 dimensions"),
    ("channel_shuffle", [(1, 3, 2, 2)], {"groups": 2}, "do not divide into 2 groups"),
    ("interpolate", [(1, 1, 2, 2)], {"mode": "nearest", "size": (3, 3), "align_corners": True}, "no meaning"),
    ("interpolate", [(1, 1, 2, 2)], {"mode": "cubic", "size": (3, 3)}, "one of nearest, nearest_exact, bilinear, got 'cubic'"),
]


@pytest.mark.parametrize("op, shapes, attributes, words", BAD_SHAPES)
def test_nodes_that_cannot_be_made(op, shapes, attributes, words):
    with pytest.raises(GraphError) as caught:
        make_node("n", op, [f"x{i}" for i in range(len(shapes))], list(map(TensorType, shapes)), attributes, origin="m.k")
    assert words in str(caught.value) and str(caught.value).startswith(f"node 'n' ({op}, from module m.k): ")


def test_defaults_are_of_their_kind():
    for name, operator in OPERATORS.items():
        for attribute, spec in operator.attributes.items():
            assert spec.required or spec.kind.accepts(spec.default), (name, attribute)
    for function in ACTIVATIONS:
        assert make_node("n", "activation", ["x"], [X], {"function": function}).type == X


def test_the_text_form_shows_everything():
    text = str(small())
    assert text == (
        "graph small(%x: f32[1, 4, 6, 6])\n"
        "  constant %w : f32[4, 4, 3, 3]\n"
        "  %conv = conv2d(%x, %w) stride=(1,1) padding=(1,1,1,1) padding_mode=zeros dilation=(1,1) groups=1 "
        "▸ relu ▸ add x : f32[1, 4, 6, 6]\n"
        "  %relu = activation(%conv) function=leaky_relu slope=0.01 : f32[1, 4, 6, 6]\n"
        "  %pool = max_pool2d(%relu) kernel=(2,2) stride=(2,2) padding=(0,0,0,0) dilation=(1,1) : f32[1, 4, 3, 3]\n"
        "  return %pool")


def test_readers_are_listed_once_in_order():
    graph = small()
    assert graph.consumers() == {"x": ["conv"], "w": ["conv"], "conv": ["relu"], "relu": ["pool"], "pool": []}
    assert isinstance(next(iter(graph)), Node)
