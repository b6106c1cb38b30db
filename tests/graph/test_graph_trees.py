"""Trees nest and unnest values, and say what does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import GraphError, InputError
from zellige.graph.trees import flatten, leaves, unflatten

VALUES = st.recursive(
    st.none() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8)


def tree_and_leaves(value, found):
    """The tree of a nested value of words, whose words go into ``found`` in order."""
    if value is None:
        return None
    if isinstance(value, str):
        found.append(value)
        return len(found) - 1
    if isinstance(value, dict):
        return {"dict": [[key, tree_and_leaves(item, found)] for key, item in value.items()]}
    return {type(value).__name__: [tree_and_leaves(item, found) for item in value]}


@given(value=VALUES)
def test_flattening_and_back_is_the_same_value(value):
    found: list[str] = []
    tree = tree_and_leaves(value, found)
    assert list(leaves(tree)) == list(range(len(found)))
    assert flatten(tree, value) == dict(enumerate(found))
    again = unflatten(tree, found)
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize("tree, value, words", [
    ({"tuple": [0, 1]}, ("x",), "argument must be a tuple of 2, got a tuple of 1"),
    ({"tuple": [0, {"list": [1]}]}, ("x", "y"), "argument[1] must be a list of 1, got str"),
    ({"dict": [["a", 0]]}, {"b": 1}, "argument must be a dict with the keys a, got a dict with the keys b"),
    ({"tuple": [None]}, ("x",), "argument[0] must be None, got str"),
])
def test_values_that_do_not_nest_alike(tree, value, words):
    with pytest.raises(InputError) as caught:
        flatten(tree, value)
    assert words in str(caught.value)


@pytest.mark.parametrize("tree", [True, 1.0, "x", [0], {}, {"tuple": 0}, {"tuple": [], "list": []}, {"dict": [["a"]]},
                                  {"dict": [[1, 0]]}, {"dict": [["a", 0], ["a", 1]]}])
def test_what_is_no_tree(tree):
    with pytest.raises(GraphError):
        list(leaves(tree))
