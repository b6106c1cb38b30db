"""From a PyTorch model to a program for a GPU: operators of ATen on tensors of the type that it computes in.

The model is exported in bfloat16 or float16, as ``model.to(dtype)`` would run, whole: convolutions, linear layers, norms and
attention stay as they were written. Weights are kept beside it as the model has them, in float32, so that what is folded into
them is rounded once. The other targets take another way, through Zellige's graph, which knows neither attention nor whole numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils import _pytree as pytree

from zellige.errors import FAILURES, InputError, UnsupportedModelError, in_one_line
from zellige.graph.from_torch_trace import check_model, check_runs, decompose, export, tree_of

DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "f16": torch.float16}

STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)

CHECKS = (torch.ops.aten._assert_tensor_metadata.default,)
"""Operators that make nothing."""


@dataclass(eq=False)
class Program:
    """``graph`` reads ``constants`` by ``get_attr`` nodes, whose targets are their names; ``originals`` are those of them that are
    the model's own, in float32. Trees say how arguments and results nest (``graph/ir.py``)."""

    name: str
    dtype: torch.dtype
    graph: fx.Graph
    constants: dict[str, torch.Tensor]
    originals: Mapping[str, torch.Tensor]
    input_tree: Any
    output_tree: Any

    def original(self, node: fx.Node) -> torch.Tensor | None:
        """What a node that reads a constant stands for, as exact as it is known; None for other nodes."""
        if node.op != "get_attr":
            return None
        name = str(node.target)
        return self.originals.get(name, self.constants[name]).detach()

    def keep(self, wish: str, value: torch.Tensor) -> str:
        """Put one more constant beside the others; its name, which the model has for nothing else."""
        name, count = wish, 1
        while name in self.constants or name in self.originals:
            count += 1
            name = f"{wish}_{count}"
        self.constants[name] = value
        return name


def trace(model: Any, example_inputs: Sequence[Any], dtype: torch.dtype) -> Program:
    """The program for inputs of exactly these shapes.

    ``model`` is a module in evaluation mode with parameters in float32 on the CPU; inputs are tensors on the CPU, nested in
    tuples, lists and dicts, in float32 where they aren't whole numbers or truth values. Raises ``UnsupportedModelError`` and
    ``InputError``.
    """
    if isinstance(model, torch.export.ExportedProgram):
        raise UnsupportedModelError("an exported program keeps the type it was exported in; for target cuda give the module itself")
    module, inputs = check_model(model), check_inputs(example_inputs)
    what = type(module).__name__
    try:
        lowered = copy.deepcopy(module).to(dtype)
    except FAILURES as error:
        raise UnsupportedModelError(f"{what} can't be copied and converted to {dtype}: {in_one_line(error)}") from error
    try:
        program = decompose(export(lowered, pytree.tree_map(lambda x: x.to(dtype) if x.is_floating_point() else x, inputs)))
    except InputError as error:
        check_runs(module, inputs)  # the fault may lie with the type alone
        raise UnsupportedModelError(f"{what} runs in float32, but not as model.to({dtype}): "
                                    f"{in_one_line(error.__cause__ or error)}. Compute that part in float32, with x.float()"
                                    ) from error
    signature = program.graph_signature
    if changed := [spec.target for spec in signature.output_specs if spec.kind != OutputKind.USER_OUTPUT]:
        raise UnsupportedModelError(f"{what} changes {changed[0]!r} in place when it is called; "
                                    "a compiled network changes nothing but its result. Copy it first, with clone()")
    call = program.module_call_graph[0].signature
    specs = {spec.arg.name: spec for spec in signature.input_specs}
    state = {**program.constants, **program.state_dict}
    originals = {name: tensor for name, tensor in (*module.named_parameters(remove_duplicate=False),
                                                   *module.named_buffers(remove_duplicate=False)) if tensor.is_floating_point()}
    found = Program(what, dtype, fx.Graph(), {}, originals, None, None)
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is not None and spec.kind in STATE:
            if node.users:
                copies[node] = _constant(found, str(spec.target), state[str(spec.target)], node)
        elif spec is not None and spec.kind != InputKind.USER_INPUT:
            raise UnsupportedModelError(f"{what} needs {spec.target or node.name!r}, which is no tensor")
        elif node.op == "get_attr":
            raise UnsupportedModelError(f"{what} has control flow that depends on values; compile the part without it")
        elif node.target not in CHECKS:
            if free_unbacked_symbols(node.meta.get("val")):
                raise UnsupportedModelError(
                    f"{what} makes a shape or a number that depends on values, by {node.target}; a compiled network has fixed "
                    "ones. Mask with where() in place of selecting, or compile the part without it")
            copies[node] = found.graph.node_copy(node, copies.__getitem__)
    found.input_tree, found.output_tree = _trees(found, call, what)
    return found


def check_inputs(example_inputs: object) -> tuple[Any, ...]:
    """The arguments of a call: dense tensors on the CPU that are not empty."""
    if not isinstance(example_inputs, (tuple, list)):
        raise InputError(f"example inputs must be a tuple of the model's positional arguments, such as (x,), "
                         f"got {type(example_inputs).__name__}")
    for path, leaf in pytree.tree_flatten_with_path(tuple(example_inputs))[0]:
        where = f"example input {pytree.keystr(path)}"
        if not isinstance(leaf, torch.Tensor):
            raise InputError(f"{where} must be a tensor, got {type(leaf).__name__}")
        if leaf.is_complex() or (leaf.is_floating_point() and leaf.dtype != torch.float32):
            raise InputError(f"{where} must be float32, whole numbers or truth values, got {leaf.dtype}")
        if leaf.device.type != "cpu" or leaf.layout != torch.strided or leaf.numel() == 0:
            raise InputError(f"{where} must be a dense tensor on the CPU with at least one element, got {leaf.layout} "
                             f"{list(leaf.shape)} on {leaf.device}")
    return tuple(example_inputs)


def static_inputs(program: Program, device: torch.device) -> list[torch.Tensor]:
    """Zeros of the shapes and types of the program's inputs."""
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
    return [torch.zeros(tuple(value.shape), dtype=value.dtype, device=device) for value in values]


def _constant(program: Program, name: str, value: torch.Tensor, like: fx.Node) -> fx.Node:
    program.constants[name] = value.detach()
    node = program.graph.create_node("get_attr", name, name=like.name)
    node.meta = dict(like.meta)
    return node


def _trees(program: Program, call: Any, what: str) -> tuple[Any, Any]:
    """How arguments and results nest. A result that is an input, or stands twice, is one of the program's results all the same;
    what is None is none of them."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    results: list[fx.Node] = []
    leaves: list[int | None] = []
    for result in output.args[0]:
        if result is not None and not isinstance(result, fx.Node):
            raise UnsupportedModelError(f"{what} returns {result!r}, which is no tensor")
        leaves.append(None if result is None else len(results))
        results += [] if result is None else [result]
    if not results:
        raise UnsupportedModelError(f"{what} returns no tensor")
    output.args = (tuple(results),)
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    positional, _ = tree_of(call.in_spec, range(len(inputs)), "arguments")["tuple"]
    return positional, tree_of(call.out_spec, leaves, "result")
