"""The table of ATen fits ATen: every key is an operator, every function takes its arguments."""

import inspect

import pytest
import torch

from zellige.graph.aten_table import ATEN, BROADCASTING, CHECKS, SHAPE_ONLY


def overload(key: str) -> torch._ops.OpOverload:
    name, form = key.split(".")
    return getattr(getattr(torch.ops.aten, name), form)


@pytest.mark.parametrize("key", ATEN)
def test_a_translation_takes_all_arguments_of_the_schema(key):
    inspect.signature(ATEN[key]).bind("builder", *overload(key)._schema.arguments)


@pytest.mark.parametrize("key", sorted(BROADCASTING | CHECKS | SHAPE_ONLY))
def test_the_other_names_are_operators_too(key):
    assert str(overload(key)) == f"aten.{key}"


def test_broadcasting_operators_are_translated_and_shape_only_ones_are_not():
    assert set(ATEN) >= BROADCASTING and not set(ATEN) & (CHECKS | SHAPE_ONLY)
