"""Tracing: what may be exported, the export itself, and how arguments and results nest. Every refusal stands here."""

from __future__ import annotations

import io
import logging
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, redirect_stderr
from functools import cache
from typing import Any

import torch
from torch._decomp import get_decompositions
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from zellige.errors import FAILURES, InputError, UnsupportedModelError, in_one_line
from zellige.graph.aten_table import ATEN, CHECKS, SHAPE_ONLY

CONTAINERS: dict[type, str] = {tuple: "tuple", list: "list", dict: "dict", OrderedDict: "dict"}


def check_model(model: object) -> torch.nn.Module:
    """A module in eval mode whose parameters and buffers are float32 on the CPU; else ``UnsupportedModelError``."""
    if not isinstance(model, torch.nn.Module):
        raise UnsupportedModelError(
            f"expected a torch.nn.Module or a torch.export.ExportedProgram, got {type(model).__name__}")
    what = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError(f"{what} is TorchScript, scripted or traced; compile the torch.nn.Module that it was made from")
    for path, module in model.named_modules():
        if module.training:
            raise UnsupportedModelError(f"{what} is in training mode (module {path or 'itself'}); "
                                        "call model.eval() before compiling")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        check_state(name, tensor)
    return model


def check_state(name: str, tensor: torch.Tensor) -> None:
    """A parameter or buffer that can become a constant."""
    if tensor.device.type != "cpu":
        raise UnsupportedModelError(f"parameter {name} is on device {tensor.device}; move the model with model.cpu()")
    if tensor.layout != torch.strided:
        raise UnsupportedModelError(f"parameter {name} has layout {tensor.layout}; expected a dense tensor")
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float32 and tensor.dim() > 0):
        raise UnsupportedModelError(f"parameter {name} is {_word(tensor.dtype)}, expected float32; "
                                    "convert the model with model.float()")


def check_inputs(example_inputs: object) -> tuple[Any, ...]:
    """The arguments of a call: a tuple, nesting only float32 tensors on the CPU that are not empty."""
    if not isinstance(example_inputs, (tuple, list)):
        raise InputError(f"example inputs must be a tuple of the model's positional arguments, such as (x,), "
                         f"got {type(example_inputs).__name__}")
    for path, leaf in pytree.tree_flatten_with_path(tuple(example_inputs))[0]:
        where = f"example input {pytree.keystr(path)}"
        if not isinstance(leaf, torch.Tensor):
            raise InputError(f"{where} must be a float32 tensor, got {type(leaf).__name__}")
        if leaf.dtype != torch.float32:
            raise InputError(f"{where} must be float32, got {_word(leaf.dtype)}")
        if leaf.device.type != "cpu":
            raise InputError(f"{where} must be on the CPU, got device {leaf.device}")
        if leaf.layout != torch.strided:
            raise InputError(f"{where} must be a dense tensor, got layout {leaf.layout}")
        if leaf.numel() == 0:
            raise InputError(f"{where} is empty: its shape is {tuple(leaf.shape)}; every dimension must be at least 1")
    return tuple(example_inputs)


def export(model: torch.nn.Module, inputs: tuple[Any, ...]) -> ExportedProgram:
    """The exported program for exactly these shapes."""
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(model, inputs, strict=False)
    except GuardOnDataDependentSymNode as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} decides by a tensor's values what to compute, which a compiled network can't"
            f"{_location(error)}. Replace the branch by tensor operations, or compile the part without it") from error
    except FAILURES as error:
        check_runs(model, inputs)
        raise UnsupportedModelError(f"torch.export can't trace {type(model).__name__}: {_summary(error)}") from error


def check_runs(model: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
    """Whether the model itself accepts the inputs: if not, the fault lies with them."""
    try:
        with torch.no_grad():
            model(*inputs)
    except FAILURES as error:
        shapes = [tuple(leaf.shape) for leaf in pytree.tree_leaves(inputs)]
        raise InputError(f"{type(model).__name__} itself fails on example inputs of shapes {shapes}: "
                         f"{_summary(error)}") from error


def decompose(program: ExportedProgram, table: dict[Any, Any] | None = None) -> ExportedProgram:
    """The program without in-place operators, with everything else as the model wrote it, but for what ``table`` replaces."""
    try:
        with torch.no_grad(), _quiet():
            return program.run_decompositions(table or {})
    except FAILURES as error:
        raise UnsupportedModelError(f"torch.export can't prepare the program: {_summary(error)}") from error


def expand(program: ExportedProgram) -> tuple[ExportedProgram, frozenset[str]]:
    """The program with operators that have no row in the table written out in others, where PyTorch knows how.

    Also gives the names of those that were written out.
    """
    expanded: set[Any] = set()
    while new := expandable(program, expanded):
        expanded |= new.keys()
        program = decompose(program, new)
    return program, frozenset(map(str, expanded))


def expandable(program: ExportedProgram, beside: Set[Any] = frozenset()) -> dict[Any, Any]:
    """The operators without a row in the table that PyTorch knows how to write out in others, and how; but for those ``beside``."""
    foreign = {node.target for node in program.graph.nodes if _is_foreign(node)} - beside
    known = decompositions() if foreign else {}  # most programs need none
    return {target: known[target] for target in foreign if target in known}


@cache
def decompositions() -> dict[Any, Any]:
    """All that PyTorch can write out in other operators, and how. Takes long to make."""
    return {**get_decompositions([torch.ops.aten.linalg_vector_norm]),  # PyTorch 2.11 would keep it whole
            **torch.export.default_decompositions()}


def _is_foreign(node: torch.fx.Node) -> bool:
    """Whether an operator that makes tensors from tensors is in none of the tables."""
    return (isinstance(node.target, torch._ops.OpOverload) and bool(node.all_input_nodes)
            and isinstance(node.meta.get("val"), (torch.Tensor, tuple, list))
            and node.target.__name__ not in ATEN and node.target.__name__ not in CHECKS | SHAPE_ONLY)


def tree_of(spec: pytree.TreeSpec, leaves: Sequence[int | None], what: str) -> Any:
    """The nesting of ``spec`` as a tree (see ``ir.Graph``), with ``leaves`` as its positions."""

    def tree(value: Any) -> Any:
        if value is None or type(value) is int:
            return value
        kind = CONTAINERS.get(type(value))
        if kind is None:
            raise UnsupportedModelError(f"the model's {what} holds a {type(value).__name__}; expected tensors in "
                                        "tuples, lists and dicts")
        if kind != "dict":
            return {kind: [tree(item) for item in value]}
        if not all(isinstance(key, str) for key in value):
            raise UnsupportedModelError(f"the model's {what} holds a dict with the keys {list(value)}; expected words")
        return {kind: [[key, tree(item)] for key, item in value.items()]}

    return tree(pytree.tree_unflatten(list(leaves), spec))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _summary(error: BaseException) -> str:
    """What went wrong, in one line."""
    return f"{in_one_line(error)}{_location(error)}"


def _location(error: BaseException) -> str:
    """The line of the model that an error of the tracer names, if it does."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    at = next((i for i, line in enumerate(lines) if line.startswith("The following call raised this error")), None)
    return "" if at is None else f" ({': '.join(lines[at + 1:at + 3])})"


@contextmanager
def _quiet() -> Iterator[None]:
    """When tracing fails, the tracer logs and prints at length what the error says; that is dropped, nothing else."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level, printed = logger.level, io.StringIO()
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(printed):
            yield
    finally:
        logger.setLevel(level)
    sys.stderr.write(printed.getvalue())
