"""The JSON form gives the same graph back, and nothing malformed gets through."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import FileFormatError
from zellige.graph.ir import Fused, Graph, TensorType
from zellige.graph.operators import make_node
from zellige.graph.serialize import graph_from_json, graph_to_json
from zellige.graph.verify import verify_graph

X = TensorType((1, 4, 6, 6))


def sample() -> Graph:
    """Every kind of attribute: integers, tuples, words, flags, reals, infinities, and an epilogue."""
    constants = {"conv.weight": np.ones((4, 2, 3, 3), dtype=np.float32), "two": np.array(2.0, dtype=np.float32)}
    conv = make_node("conv", "conv2d", ["x", "conv.weight"], [X, TensorType((4, 2, 3, 3))],
                     {"padding": (1, 1, 1, 1), "groups": 2}, origin="conv")
    conv = replace(conv, epilogue=(Fused("activation", {"function": "leaky_relu", "slope": 0.1}), Fused("add", operand="x")))
    clamp = make_node("clamp", "activation", ["conv"], [X], {"function": "clamp", "low": -1.0})
    half = make_node("half", "divide", ["clamp", "two"], [X, TensorType(())])
    mean = make_node("mean", "mean", ["half"], [X], {"dimensions": (2, 3), "keep": True})
    larger = make_node("larger", "interpolate", ["half"], [X], {"mode": "bilinear", "size": (9, 7), "scale": (1.5, 0.0)})
    nodes = {node.name: node for node in (conv, clamp, half, mean, larger)}
    return Graph("sample", {"x": X}, nodes, ("larger", "mean"), constants, {"tuple": [0]},
                 {"dict": [["map", 0], ["rest", {"list": [1, None]}]]})


SAMPLE = sample()


def test_the_form_is_json_and_gives_the_graph_back():
    text = json.dumps(graph_to_json(SAMPLE), allow_nan=False)
    again = graph_from_json(json.loads(text), SAMPLE.constants)
    assert str(again) == str(SAMPLE) and again.nodes == SAMPLE.nodes and again.outputs == SAMPLE.outputs
    assert (again.input_tree, again.output_tree) == (SAMPLE.input_tree, SAMPLE.output_tree)
    assert json.dumps(graph_to_json(again)) == text == json.dumps(graph_to_json(sample()))


def test_constants_keep_their_declared_order():
    constants = dict(reversed(SAMPLE.constants.items()))
    assert list(graph_from_json(graph_to_json(SAMPLE), constants).constants) == list(SAMPLE.constants)


def broken(change) -> str:
    data = copy.deepcopy(graph_to_json(SAMPLE))
    change(data)
    with pytest.raises(FileFormatError) as caught:
        graph_from_json(data, SAMPLE.constants)
    return str(caught.value)


@pytest.mark.parametrize("change, words", [
    (lambda d: d.pop("nodes"), "the graph must be an object with the fields"),
    (lambda d: d.update(extra=1), "'extra'"),
    (lambda d: d.update(name=3), "name must be a str, got int"),
    (lambda d: d["outputs"].append(3), "outputs must be names"),
    (lambda d: d["outputs"].append("nothing"), "the output 'nothing' is no node"),
    (lambda d: d["nodes"].append(d["nodes"][0]), "two nodes have the same name"),
    (lambda d: d["inputs"].append(d["inputs"][0]), "the name 'x' is given twice"),
    (lambda d: d["nodes"][0].update(op="jump"), "'jump' is no operator"),
    (lambda d: d["nodes"][0].update(shape=[1, 4, 6, 7]), "but its operands give"),
    (lambda d: d["nodes"][0].update(shape=[1, 4, 6.0, 6]), "the shape must be integers"),
    (lambda d: d["nodes"][0].update(inputs=["x", "gone"]), "reads 'gone'"),
    (lambda d: d["nodes"][0]["attributes"].update(groups=-1), "attribute groups"),
    (lambda d: d["nodes"][0]["attributes"].update(stride=[[1], [1]]), "attribute stride"),
    (lambda d: d["nodes"][0]["attributes"].update(speed=1), "unknown attribute 'speed'"),
    (lambda d: d["nodes"][1]["attributes"].update(high="infinite"), "attribute high must be a real number"),
    (lambda d: d["nodes"][1]["attributes"].update(high="nan"), "attribute high must be a real number"),
    (lambda d: d["nodes"][1]["attributes"].update(function=["clamp"]), "unknown attribute"),
    (lambda d: d["nodes"][0]["epilogue"][1].update(operand="mean"), "reads 'mean'"),
    (lambda d: d["nodes"][0]["epilogue"][1].update(operand=["x"]), "must be a name or null"),
    (lambda d: d.update(output_tree={"tuple": [0, 2]}), "position 2 is not among 2"),
    (lambda d: d.update(output_tree={"dict": [["a", 0], ["a", 1]]}), "a word, each once"),
    (lambda d: d["constants"].pop(), "the constants given are not the ones declared"),
    (lambda d: d["constants"][0].update(shape=[4, 2, 3, 4]), "conv.weight is declared f32[4, 2, 3, 4]"),
])
def test_malformed_graphs_are_refused(change, words):
    assert words in broken(change)


def test_nesting_without_end_is_refused():
    tree = 0
    for _ in range(2000):
        tree = {"list": [tree]}
    assert "nests deeper" in broken(lambda d: d.update(output_tree=tree))
    assert "must be a list, tuple or dict" in broken(lambda d: d.update(output_tree={"other": tree}))
    assert "attribute stride" in broken(lambda d: d["nodes"][0]["attributes"].update(stride=[tree, tree]))


def places(value, path=()):
    """The path of every value inside a JSON value, itself included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.integers() | st.floats(allow_nan=True) | st.text(max_size=4)
    | st.sampled_from(["x", "conv", "mean", "add", "relu", "inf", "f32", "i64"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6)


@given(data=st.data())
def test_any_replacement_is_refused_or_still_a_valid_graph(data):
    """Ten replacements, deletions or repetitions each: never another exception, never an invalid graph."""
    for _ in range(10):
        form = copy.deepcopy(graph_to_json(SAMPLE))
        path = data.draw(st.sampled_from(list(places(form))))
        if not path:
            form = data.draw(JSON)
        else:
            parent = form
            for key in path[:-1]:
                parent = parent[key]
            action = data.draw(st.sampled_from(["replace", "replace", "delete", "repeat"]))
            if action == "replace":
                parent[path[-1]] = data.draw(JSON)
            elif action == "delete":
                del parent[path[-1]]
            elif isinstance(parent, list):
                parent.append(copy.deepcopy(parent[path[-1]]))
        try:
            graph = graph_from_json(form, SAMPLE.constants)
        except FileFormatError:
            continue
        verify_graph(graph)
        assert json.dumps(graph_to_json(graph)) == json.dumps(form)
