"""Fusion: which chains become one node, where that node stands, and what must stay apart."""

import pytest
from small_networks import Build, assert_same_results, ops

from zellige.passes.fuse import EPILOGUE_HOSTS, fuse_epilogues
from zellige.passes.pipeline import optimize


@pytest.fixture
def b():
    return Build(1, 4, 5, 5)


def epilogue(graph, name):
    return [str(step) for step in graph.nodes[name].epilogue]


HOSTS = {
    "conv2d": lambda b: b.conv(b.x, 4), "add": lambda b: b("add", b.x, b.random(5)),
    "linear": lambda b: b("linear", b.x, b.random(3, 5)), "multiply": lambda b: b("multiply", b.x, b.random(5)),
    "scale_shift": lambda b: b("scale_shift", b.x, b.random(4), b.random(4)),
    "max_pool2d": lambda b: b("max_pool2d", b.x, kernel=(2, 2)),
    "average_pool2d": lambda b: b("average_pool2d", b.x, kernel=(2, 2)),
}


@pytest.mark.parametrize("op", EPILOGUE_HOSTS)
def test_every_host_takes_the_steps_of_its_row(b, op):
    host = HOSTS[op](b)
    other = b.input(*b.shape(host))
    before = b.done(b.activation(b("add", other, b.activation(host, "leaky_relu", slope=0.5)), "tanh"))
    after = fuse_epilogues(before)
    if "add" in EPILOGUE_HOSTS[op]:
        assert epilogue(after, host) == ["leaky_relu slope=0.5", f"add {other}", "tanh"]
        assert after.outputs == (host,)
    else:
        assert epilogue(after, host) == ["leaky_relu slope=0.5"]
        assert epilogue(after, after.outputs[0]) == ["tanh"]
    assert_same_results(before, after)


def test_a_residual_block_with_a_downsampling_branch_is_three_convolutions(b):
    inner = b.activation(b.norm(b.conv(b.x, 8, 3, name="conv1", padding=(1, 1, 1, 1))), "relu")
    outer = b.norm(b.conv(inner, 8, 3, name="conv2", padding=(1, 1, 1, 1)))
    shortcut = b.norm(b.conv(b.x, 8, name="downsample"))
    before = b.done(b.activation(b("add", outer, shortcut), "relu"))
    after = optimize(before)
    assert list(after.nodes) == ["conv1", "conv2", "downsample"]
    assert [epilogue(after, name) for name in after.nodes] == [["relu"], [], ["add conv2", "relu"]]
    assert after.outputs == ("downsample",)
    assert_same_results(before, after)


def test_a_host_waits_for_an_operand_that_is_made_later(b):
    host = b.conv(b.x, 4, name="host")
    later = b.activation(b.x, "tanh", name="later")
    read = b.activation(b("add", host, later), "relu")
    before = b.done(b("concat", read, later, dimension=1, name="out"))
    after = fuse_epilogues(before)
    assert list(after.nodes) == ["later", "host", "out"]
    assert_same_results(before, after)


def test_hosts_that_wait_for_each_other_keep_their_order(b):
    one, two = b.conv(b.x, 4, name="one"), b.conv(b.x, 4, name="two")
    later = b.activation(b.x, "tanh", name="later")
    first = b("add", one, later)
    before = b.done(b.activation(b("add", two, b.activation(first, "sigmoid")), "relu"), later)
    after = fuse_epilogues(before)
    assert_same_results(before, after)
    assert list(after.nodes) == ["later", "one", "two"]
    assert epilogue(after, "one") == ["add later", "sigmoid"]
    assert epilogue(after, "two") == ["add one", "relu"]


def test_only_one_residual_goes_into_a_host(b):
    others = [b.input(1, 4, 5, 5) for _ in range(2)]
    x = b("add", b("add", b.conv(b.x, 4, name="conv"), others[0]), others[1], name="second")
    before = b.done(b.activation(x, "relu"))
    after = fuse_epilogues(before)
    assert epilogue(after, "conv") == [f"add {others[0]}"]
    assert epilogue(after, "second") == ["relu"]
    assert_same_results(before, after)


def test_values_that_are_read_twice_or_returned_are_not_changed(b):
    shared, returned = b.conv(b.x, 4), b.conv(b.x, 4)
    before = b.done(b.activation(shared, "relu"), b.activation(shared, "tanh"), returned,
                    b.activation(returned, "relu"), b("add", b.conv(b.x, 4), shared))
    after = fuse_epilogues(before)
    assert ops(after).count("activation") == 3
    assert epilogue(after, after.outputs[-1]) == [f"add {shared}"]
    assert_same_results(before, after)


def test_a_value_added_to_itself_or_broadcast_stays_apart(b):
    conv = b.conv(b.x, 4)
    before = b.done(b("add", conv, conv), b("add", b.conv(b.x, 4), b.random(5)),
                    b("add", b.conv(b.x, 4), b.conv(b.x, 1)))
    assert fuse_epilogues(before).nodes == before.nodes


def test_a_residual_that_is_a_constant_or_an_input_is_an_operand(b):
    table = b.random(1, 4, 5, 5)
    before = b.done(b("add", table, b.conv(b.x, 4, name="one")), b("add", b.conv(b.x, 4, name="two"), b.x))
    after = fuse_epilogues(before)
    assert (epilogue(after, "one"), epilogue(after, "two")) == ([f"add {table}"], [f"add {b.x}"])
    assert_same_results(before, after)
