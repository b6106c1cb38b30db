"""What the simplifying passes look for, each in all its spellings, and what must be left as it is."""

import numpy as np
import pytest
from small_networks import Build, assert_same_results, ops

from zellige.errors import GraphError
from zellige.passes.activations import name_activations
from zellige.passes.affine import merge_affine
from zellige.passes.channel_shuffle import name_channel_shuffles
from zellige.passes.constants import fold_constants
from zellige.passes.eliminate import eliminate_dead, eliminate_duplicates
from zellige.passes.identities import remove_identities
from zellige.passes.padding import fold_padding
from zellige.passes.pooling import regular_windows, simplify_pooling


@pytest.fixture
def b():
    return Build(2, 4, 6, 6)


IDENTITIES = {
    "slice": lambda b, x: b("slice", x, dimension=1, start=0, stop=4),
    "pad": lambda b, x: b("pad", x, padding=(0, 0, 0, 0), mode="reflect"),
    "reshape": lambda b, x: b("reshape", x, shape=(2, 4, 6, 6)),
    "reshapes": lambda b, x: b("reshape", b("reshape", x, shape=(8, 36)), shape=(2, 4, 6, 6)),
    "transposes": lambda b, x: b("transpose", b("transpose", x, order=(1, 2, 3, 0)), order=(3, 0, 1, 2)),
    "concat": lambda b, x: b("concat", x, dimension=0),
    "interpolate": lambda b, x: b("interpolate", x, mode="bilinear", size=(6, 6), align_corners=True),
    "adaptive pool": lambda b, x: b("adaptive_average_pool2d", x, size=(6, 6)),
    "adaptive max pool": lambda b, x: b("adaptive_max_pool2d", x, size=(6, 6)),
    "max pool": lambda b, x: b("max_pool2d", x, kernel=(1, 1)),
    "average pool": lambda b, x: b("average_pool2d", x, kernel=(1, 1), divisor=1),
    "mean": lambda b, x: b("mean", x, dimensions=()),
    "shuffle by one": lambda b, x: b("channel_shuffle", x, groups=1),
    "shuffle by all": lambda b, x: b("channel_shuffle", x, groups=4),
    "add": lambda b, x: b("add", x, b.constant(0.0)),
    "subtract": lambda b, x: b("subtract", x, b.constant([0.0])),
    "multiply": lambda b, x: b("multiply", x, b.constant(1.0)),
    "divide": lambda b, x: b("divide", x, b.constant(1.0)),
    "scale_shift": lambda b, x: b("scale_shift", x, b.constant(np.ones(4)), b.constant(np.zeros(4))),
    "power": lambda b, x: b.activation(x, "power", exponent=1.0),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_what_changes_nothing_vanishes(b, name):
    before = b.done(b.activation(IDENTITIES[name](b, b.activation(b.x, "tanh")), "sigmoid"))
    after = remove_identities(before)
    assert ops(after) == ["activation", "activation"]
    assert_same_results(before, after)


CHANGES = {
    "slice with a step": lambda b, x: b("slice", x, dimension=1, start=0, stop=4, step=2),
    "later slice": lambda b, x: b("slice", x, dimension=1, start=1, stop=4),
    "pad and crop": lambda b, x: b("pad", x, padding=(1, -1, 0, 0)),
    "transpose": lambda b, x: b("transpose", x, order=(0, 1, 3, 2)),
    "pool that strides": lambda b, x: b("max_pool2d", x, kernel=(1, 1), stride=(2, 1)),
    "pool that divides": lambda b, x: b("average_pool2d", x, kernel=(1, 1), divisor=2),
    "pool of three": lambda b, x: b("max_pool2d", x, kernel=(3, 3), padding=(1, 1, 1, 1)),
    "shuffle": lambda b, x: b("channel_shuffle", x, groups=2),
    "add": lambda b, x: b("add", x, b.constant(np.zeros((1, 2, 4, 6, 6)))),
    "multiply by minus one": lambda b, x: b("multiply", x, b.constant(-1.0)),
    "scaled resampling": lambda b, x: b("interpolate", x, mode="nearest", size=(6, 6), scale=(1.1, 1.1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_something_stays(b, name):
    before = b.done(CHANGES[name](b, b.activation(b.x, "tanh")))
    after = remove_identities(before)
    assert after.nodes == before.nodes


def test_an_output_that_only_passes_the_input_on_stays_a_node(b):
    before = b.done(b("reshape", b.x, shape=(2, 4, 6, 6), name="same"))
    after = remove_identities(before)
    assert (after.outputs, ops(after)) == (("same",), ["reshape"])


def test_two_outputs_may_become_one_value(b):
    one = b.activation(b.x, "relu", name="one")
    before = b.done(one, b("reshape", one, shape=(2, 4, 6, 6)))
    after = remove_identities(before)
    assert after.outputs == ("one", "one")
    assert_same_results(before, after)


MEANS = {
    "adaptive": lambda b, x: b("adaptive_average_pool2d", x, size=(1, 1)),
    "pool": lambda b, x: b("average_pool2d", x, kernel=(5, 7)),
    "pool with divisor": lambda b, x: b("average_pool2d", x, kernel=(5, 7), stride=(3, 3), divisor=35),
    "kept": lambda b, x: b("mean", x, dimensions=(2, 3), keep=True),
    "steps": lambda b, x: b("mean", b("mean", x, dimensions=(3,)), dimensions=(2,)),
    "steps kept": lambda b, x: b("mean", b("mean", x, dimensions=(2,), keep=True), dimensions=(3,), keep=True),
    "steps mixed": lambda b, x: b("mean", b("mean", x, dimensions=(2,), keep=True), dimensions=(2, 3)),
    "flat": lambda b, x: b("mean", b("reshape", x, shape=(2, 4, 35)), dimensions=(2,)),
    "turned": lambda b, x: b("mean", b("transpose", x, order=(0, 2, 3, 1)), dimensions=(1, 2)),
    "turned and exchanged": lambda b, x: b("mean", b("transpose", x, order=(0, 3, 2, 1)), dimensions=(1, 2)),
    "flattened after": lambda b, x: b("reshape", b("adaptive_average_pool2d", x, size=(1, 1)), shape=(2, 4)),
    "widened after": lambda b, x: b("reshape", b("mean", x, dimensions=(2, 3)), shape=(2, 4, 1, 1)),
}


@pytest.mark.parametrize("name", MEANS)
def test_every_spelling_of_the_mean_over_the_map_becomes_one(name):
    b = Build(2, 4, 5, 7)
    before = b.done(MEANS[name](b, b.x))
    after = simplify_pooling(before)
    (node,) = after
    assert (node.op, node.inputs, node.attributes["dimensions"]) == ("mean", (b.x,), (2, 3))
    if name.endswith("after"):
        assert (node.name,) == after.outputs == tuple(before.nodes)[:1]  # the mean's own name
    assert_same_results(before, after)


OTHER_MEANS = {
    "flat and kept": lambda b, x: b("mean", b("reshape", x, shape=(2, 4, 35)), dimensions=(2,), keep=True),
    "turned and kept": lambda b, x: b("mean", b("transpose", x, order=(0, 2, 3, 1)), dimensions=(1, 2), keep=True),
    "first kept": lambda b, x: b("mean", b("mean", x, dimensions=(3,), keep=True), dimensions=(2,)),
}


@pytest.mark.parametrize("name", OTHER_MEANS)
def test_a_mean_in_another_shape_is_reshaped(name):
    b = Build(2, 4, 5, 7)
    before = b.done(OTHER_MEANS[name](b, b.x))
    after = simplify_pooling(before)
    assert ops(after) == ["mean", "reshape"]
    assert_same_results(before, after)


NO_MEANS = {
    "padded pool": lambda b, x: b("average_pool2d", x, kernel=(5, 7), padding=(1, 0, 0, 0), stride=(2, 1)),
    "other divisor": lambda b, x: b("average_pool2d", x, kernel=(5, 7), divisor=7),
    "smaller window": lambda b, x: b("average_pool2d", x, kernel=(5, 6)),
    "part of the map": lambda b, x: b("mean", b("reshape", x, shape=(2, 20, 7)), dimensions=(2,)),
    "channels": lambda b, x: b("mean", b("transpose", x, order=(0, 2, 3, 1)), dimensions=(2, 3)),
    "read twice": lambda b, x: b("add", *[b("reshape", b("mean", x, dimensions=(2, 3)), shape=(4, 2))] * 2),
}


@pytest.mark.parametrize("name", NO_MEANS)
def test_what_is_no_mean_over_the_map_is_not_made_one(name):
    b = Build(2, 4, 5, 7)
    before = b.done(NO_MEANS[name](b, b.x))
    after = simplify_pooling(before)
    if name == "channels":
        assert [node.attributes["dimensions"] for node in after if node.op == "mean"] == [(1, 3)]
    else:
        assert after.nodes == before.nodes
    assert_same_results(before, after)


@pytest.mark.parametrize("op", ["adaptive_average_pool2d", "adaptive_max_pool2d"])
def test_adaptive_pools_become_plain_exactly_where_windows_are_regular(op):
    for size in range(1, 11):
        for out in range(1, 9):
            b = Build(1, 2, size, 6)
            before = b.done(b(op, b.x, size=(out, 2)))
            after = simplify_pooling(before)
            starts = [size * i // out for i in range(out)]
            windows = [(start, -(-size * (i + 1) // out)) for i, start in enumerate(starts)]
            regular = len({stop - start for start, stop in windows}) == 1 and (
                out == 1 or (len(set(np.diff(starts).tolist())) == 1 and starts[1] > starts[0]))
            assert (ops(after) == [op.removeprefix("adaptive_")]) == regular
            assert (regular_windows(size, out) is not None) == regular
            assert_same_results(before, after)


def test_three_shape_changes_that_are_a_channel_shuffle_become_one(b):
    split = b("reshape", b.x, shape=(2, 2, 2, 6, 6))
    turned = b("transpose", split, order=(0, 2, 1, 3, 4))
    before = b.done(b("reshape", turned, shape=(2, 4, 6, 6)))
    after = name_channel_shuffles(before)
    assert [(node.op, node.attributes) for node in after] == [("channel_shuffle", {"groups": 2})]
    assert_same_results(before, after)


@pytest.mark.parametrize(("parts", "order"), [
    ((2, 4, 2, 3, 6), (0, 2, 1, 3, 4)), ((2, 2, 2, 6, 6), (0, 1, 2, 4, 3)), ((2, 2, 2, 36), (0, 2, 1, 3)),
    ((2, 4, 6, 6), (0, 2, 1, 3))])
def test_other_shape_changes_are_no_channel_shuffle(b, parts, order):
    turned = b("transpose", b("reshape", b.x, shape=parts), order=order)
    before = b.done(b("reshape", turned, shape=(2, 4, 6, 6)))
    assert "channel_shuffle" not in ops(name_channel_shuffles(before))


@pytest.mark.parametrize("mode", ["zeros", "constant"])
def test_zeros_fold_into_convolutions_and_average_pools(b, mode):
    padded = b("pad", b.x, padding=(1, 0, 2, 3), mode=mode)
    one = b.conv(padded, 4, 3, padding=(0, 1, 0, 1), stride=(2, 2))
    two = b("average_pool2d", padded, kernel=(3, 3), padding=(1, 1, 1, 1), count_padding=(0, 1, 0, 0))
    three = b("average_pool2d", padded, kernel=(3, 3), divisor=4)
    before = b.done(one, two, three)
    after = fold_padding(before)
    assert ops(after) == ["conv2d", "average_pool2d", "average_pool2d"]
    assert after.nodes[one].attributes["padding"] == (1, 1, 2, 4)
    assert after.nodes[two].attributes["padding"] == (2, 1, 3, 4)
    assert after.nodes[two].attributes["count_padding"] == (1, 1, 2, 3)
    assert_same_results(before, after)


def test_minus_infinity_folds_into_max_pools_and_zeros_do_not(b):
    low = b("pad", b.x, padding=(0, 1, 0, 1), mode="constant", value=float("-inf"))
    zeros = b("pad", b.x, padding=(0, 1, 0, 1))
    pools = [b("max_pool2d", pad, kernel=(3, 3), stride=(2, 2)) for pad in (low, zeros)]
    before = b.done(*pools)
    after = fold_padding(before)
    assert ops(after) == ["pad", "max_pool2d", "max_pool2d"]
    assert after.nodes[pools[0]].attributes["padding"] == (0, 1, 0, 1)
    assert_same_results(before, after)


@pytest.mark.parametrize("pad", [
    {"mode": "constant", "value": 2.0, "padding": (1, 1, 1, 1)}, {"mode": "replicate", "padding": (1, 1, 1, 1)},
    {"mode": "zeros", "padding": (1, -1, 0, 0)}])
def test_other_padding_stays_in_front_of_a_convolution(b, pad):
    before = b.done(b.conv(b("pad", b.x, **pad), 4, 3))
    assert fold_padding(before).nodes == before.nodes


def test_pads_by_zeros_add_up(b):
    before = b.done(b("pad", b("pad", b.x, padding=(1, 0, 0, 2)), padding=(1, 1, 0, 1), mode="constant"))
    after = fold_padding(before)
    assert [node.attributes["padding"] for node in after] == [(2, 1, 0, 3)]
    assert_same_results(before, after)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_convolutions_pad_by_zeros_alone(b, mode):
    before = b.done(b.conv(b.x, 4, 3, padding=(1, 2, 0, 1), padding_mode=mode))
    after = fold_padding(before)
    assert ops(after) == ["pad", "conv2d"]
    assert [node.attributes["padding"] for node in after] == [(1, 2, 0, 1), (0, 0, 0, 0)]
    assert_same_results(before, after)


def hard_gate(b, x, six=lambda b, v: b("divide", v, b.constant(6.0))):
    return six(b, b.activation(b("add", b.constant(3.0), x), "relu6"))


NAMED = {
    "silu": lambda b, x: b("multiply", x, b.activation(x, "sigmoid")),
    "hard_swish": lambda b, x: b("multiply", b.activation(x, "hard_sigmoid"), x),
    "mish": lambda b, x: b("multiply", x, b.activation(b.activation(x, "softplus"), "tanh")),
    "relu6": lambda b, x: b.activation(x, "clamp", low=0.0, high=6.0),
    "relu": lambda b, x: b.activation(x, "clamp", low=0.0),
    "clamp": lambda b, x: b.activation(x, "hard_tanh", low=-2.0),
    "hard_sigmoid": hard_gate,
    "square": lambda b, x: b.activation(x, "power", exponent=2.0),
    "leaky_relu": lambda b, x: b("prelu", x, b.constant([0.3])),
}
SPELLINGS = {
    "hard_sigmoid": lambda b, x: hard_gate(b, x, lambda b, v: b("multiply", b.constant(1 / 6), v)),
    "hard_swish": lambda b, x: b("divide", b("multiply", x, hard_gate(b, x, lambda b, v: v)), b.constant(6.0)),
    "relu": lambda b, x: b("maximum", b.constant(0.0), x),
    "relu6": lambda b, x: b.activation(x, "hard_tanh", low=0.0, high=6.0),
}


@pytest.mark.parametrize(("function", "spell"), [*NAMED.items(), *SPELLINGS.items()])
def test_activations_get_their_names(b, function, spell):
    before = b.done(spell(b, b.x))
    after = name_activations(before)
    assert [node.attributes["function"] for node in after] == [function]
    assert_same_results(before, after)


def test_gates_of_other_values_or_with_other_readers_stay(b):
    other = b.activation(b.x, "tanh")
    gate = b.activation(b.x, "sigmoid")
    before = b.done(b("multiply", b.x, gate), b("multiply", b.x, gate),
                    b("multiply", other, b.activation(b.x, "sigmoid")),
                    b("divide", b.activation(b("add", b.x, b.constant(2.0)), "relu6"), b.constant(6.0)),
                    b("divide", b.constant(6.0), hard_gate(b, b.x, lambda b, v: b("add", v, b.constant(1.0)))))
    assert name_activations(before).nodes == before.nodes


def test_constants_per_channel_become_scale_shift_and_chains_one_step(b):
    x = b("multiply", b.random(1, 4, 1, 1), b.x)
    x = b("subtract", x, b.random(4, 1, 1))
    x = b("divide", x, b.constant(3.0))
    x = b("scale_shift", x, b.random(4), b.random(4))
    before = b.done(b.activation(x, "relu"))
    after = merge_affine(before)
    assert ops(after) == ["scale_shift", "activation"]
    assert len(after.constants) == 2
    assert_same_results(before, after)


def test_scalars_alone_stay_and_stand_second(b):
    before = b.done(b("add", b.constant(2.0), b.x), b("subtract", b.x, b.constant(0.5)),
                    b("divide", b.x, b.constant(4.0)))
    after = merge_affine(before)
    assert ops(after) == ["add", "add", "multiply"]
    assert all(node.inputs[0] == b.x for node in after)
    assert sorted(float(array) for array in after.constants.values()) == [-0.5, 0.25, 2.0]
    assert_same_results(before, after)


def test_what_has_no_inverse_or_is_not_per_channel_stays(b):
    before = b.done(b("divide", b.x, b.constant(0.0)), b("divide", b.x, b.constant(1e-310)),
                    b("subtract", b.constant(1.0), b.x),
                    b("multiply", b.x, b.random(1, 4, 6, 6)), b("add", b.x, b.random(6)),
                    b("add", b.x, b.random(3, 1, 1, 1, 1)))
    assert merge_affine(before).nodes == before.nodes


def test_a_step_that_is_read_twice_or_returned_is_not_merged(b):
    first = b("scale_shift", b.x, b.random(4), b.random(4))
    second = b("scale_shift", first, b.random(4), b.random(4))
    before = b.done(second, b("scale_shift", second, b.random(4), b.random(4)), b.activation(first, "relu"))
    assert merge_affine(before).nodes == before.nodes


def test_merged_constants_that_overflow_are_refused():
    b = Build(1, 2, 1, 1, dtype="float32")
    x = b("scale_shift", b.x, b.constant([1e30, 1]), b.constant([0, 0]))
    before = b.done(b("scale_shift", x, b.constant([1e30, 1]), b.constant([0, 0])))
    with pytest.raises(GraphError, match=r"scale_shift_1 .*net\.part.*not finite"):
        merge_affine(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_does_not_depend_on_the_inputs_is_computed(dtype):
    b = Build(2, 4, 6, 6, dtype=dtype)
    weight = b("reshape", b("multiply", b.random(4, 4), b.constant(2.0)), shape=(4, 4, 1, 1))
    before = b.done(b("conv2d", b.x, weight), b("add", b.random(3), b.random(3), name="fixed"))
    after = eliminate_dead(fold_constants(before))
    assert ops(after) == ["conv2d", "reshape"], "an output stays a node"
    assert after.constants[weight].dtype == after.constants["fixed.value"].dtype == dtype
    assert fold_constants(after).nodes == after.nodes
    fixed = before.nodes["fixed"].inputs
    np.testing.assert_allclose(after.constants["fixed.value"], sum(before.constants[name] for name in fixed), rtol=1e-6)
    np.testing.assert_allclose(after.constants[weight][..., 0, 0], before.constants["c0"] * 2, rtol=1e-7)


def test_nodes_and_constants_without_readers_go(b):
    b.activation(b.conv(b.x, 8), "relu")
    b.random(5)
    unused = b.input(1, 3)
    before = b.done(b.conv(b.x, 2, name="kept"))
    after = eliminate_dead(before)
    assert (list(after.nodes), list(after.constants)) == (["kept"], [before.nodes["kept"].inputs[1]])
    assert unused in after.inputs


def test_work_that_is_done_twice_is_done_once(b):
    one, two = (b("add", b.activation(b.x, "relu"), b.constant(3.0)) for _ in range(2))
    three = b("add", b.activation(b.x, "tanh"), b.constant(3.0))
    before = b.done(b("concat", one, two, three, dimension=1), one, two)
    after = eliminate_duplicates(before)
    assert ops(after) == ["activation", "add", "activation", "add", "concat"]
    assert after.outputs[1:] == (one, one)
    assert_same_results(before, after)
