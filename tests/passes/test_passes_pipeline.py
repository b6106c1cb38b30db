"""All passes together: generated networks compute the same before and after each pass, and come out plain."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Build, Generator, assert_same_results, ops

from zellige.errors import GraphError
from zellige.graph.verify import verify_graph
from zellige.passes import pipeline
from zellige.passes.fuse import EPILOGUE_HOSTS
from zellige.passes.pipeline import FINISH, SIMPLIFY, optimize

PASSES = dict((*SIMPLIFY, *FINISH))
networks = st.builds(lambda seed, length: Generator(seed).network(length), st.integers(0, 2**32 - 1),
                     st.integers(1, 14))


@pytest.mark.parametrize("name", PASSES)
@given(networks)
def test_one_pass_alone_keeps_the_results_and_its_argument(name, graph):
    kept = copy.deepcopy(graph)
    after = PASSES[name](graph)
    assert_same_results(graph, after)
    assert (graph.nodes, graph.outputs, graph.inputs) == (kept.nodes, kept.outputs, kept.inputs)
    assert list(graph.constants) == list(kept.constants)
    assert all(np.array_equal(array, kept.constants[key]) for key, array in graph.constants.items())


@given(networks)
def test_optimized_networks_compute_the_same(graph):
    seen = []
    after = optimize(graph, observe=lambda name, graph: seen.append((name, graph)))
    assert_same_results(graph, after)
    assert [name for name, _ in seen[:len(SIMPLIFY)]] == [name for name, _ in SIMPLIFY]
    assert [name for name, _ in seen[-len(FINISH):]] == [name for name, _ in FINISH]
    assert str(seen[-1][1]) == str(after)
    for (_, before), (_, now) in pairwise(seen):
        verify_graph(now)
        assert before.inputs == now.inputs


@given(networks)
def test_optimized_networks_are_plain(graph):
    after = optimize(graph)
    assert not {"batch_norm", "subtract"} & set(ops(after)) - _with_constant_first(after)
    used = {operand for node in after for operand in node.operands} | set(after.outputs)
    assert {*after.nodes, *after.constants} <= used
    readers = after.consumers()
    for node in after:
        assert node.op != "conv2d" or node.attributes["padding_mode"] == "zeros"
        assert node.name in after.outputs or any(operand not in after.constants for operand in node.operands)
        for step in node.epilogue:
            assert step.op in EPILOGUE_HOSTS[node.op]
        if node.op == "activation" and node.inputs[0] in after.nodes:        # nothing fusable is left unfused
            host = after.nodes[node.inputs[0]]
            assert "activation" not in EPILOGUE_HOSTS.get(host.op, ()) or len(readers[host.name]) > 1 or (
                host.name in after.outputs)


def _with_constant_first(graph):
    """Subtractions from a constant have no plainer form."""
    return {node.op for node in graph if node.op == "subtract" and node.inputs[1] not in graph.constants}


@given(networks)
def test_what_is_optimized_stays_as_it_is(graph):
    once = optimize(graph)
    assert str(optimize(once)) == str(once)
    assert str(optimize(graph)) == str(once)


def test_a_graph_that_breaks_its_rules_is_refused():
    b = Build(1, 3, 4, 4)
    graph = b.done(b.conv(b.x, 4))
    graph.outputs = ("nothing",)
    with pytest.raises(GraphError, match="nothing"):
        optimize(graph)


def test_passes_that_never_settle_are_an_error(monkeypatch):
    b = Build(1, 3, 4, 4)
    graph = b.done(b.activation(b.x, "relu"))

    def flip(graph):
        node = next(iter(graph))
        function = "tanh" if node.attributes["function"] == "relu" else "relu"
        return graph.with_nodes([type(node)(node.name, node.op, node.inputs, node.type, {"function": function})])

    monkeypatch.setattr(pipeline, "SIMPLIFY", (*SIMPLIFY, ("flip", flip)))
    monkeypatch.setattr(pipeline, "MOST_ROUNDS", 3)
    with pytest.raises(GraphError, match="after 3 rounds"):
        pipeline.optimize(graph)
