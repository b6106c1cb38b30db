"""From PyTorch to a graph: ``torch.export`` traces the model, the walk translates what it gives.

The program is exported for inference without decomposing what the graph knows whole: convolutions, linear layers,
norms, pools and activations stay as they were written; in-place operators become plain ones, and what the graph does not know
is written out where PyTorch says how. Nodes are named after the modules that they came from, constants like the model's
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from zellige.errors import InputError, UnsupportedModelError
from zellige.graph.aten_call import Untranslated
from zellige.graph.builder import GraphBuilder, Value, check_finite
from zellige.graph.from_torch_in_place import make_plain
from zellige.graph.from_torch_trace import check_inputs, check_model, check_state, decompose, expand, export, tree_of
from zellige.graph.from_torch_walk import Walk, to_array
from zellige.graph.ir import Graph, TensorType

STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


@dataclass(frozen=True, eq=False)
class Traced:
    """A graph, the tensors of the model by name, and for each constant of the graph which of these it is or was computed from."""

    graph: Graph
    state: Mapping[str, torch.Tensor]
    sources: Mapping[str, frozenset[str]]


def from_torch(model: torch.nn.Module | ExportedProgram, example_inputs: Sequence[Any] | None = None,
               name: str | None = None) -> Graph:
    """The graph that computes what ``model`` computes, for inputs of the shapes of ``example_inputs``.

    ``model`` is in eval mode, its parameters are float32 on the CPU. ``example_inputs`` is a tuple of its positional
    arguments: float32 tensors, which may nest in tuples, lists and dicts. An exported program may go without them.
    ``name`` names the graph; by default it is the model's class.

    Raises ``InputError`` for example inputs that don't fit, ``UnsupportedModelError`` for a model that can't be
    traced, or whose operators have no place in the graph: one error names them all, and where they come from.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()).eval()
    >>> print(from_torch(model, (torch.ones(1, 4),), name="tiny"))
    graph tiny(%input: f32[1, 4])
      constant %0.weight : f32[2, 4]
      constant %0.bias : f32[2]
      %0 = linear(%input, %0.weight, %0.bias) : f32[1, 2]   # 0
      %1 = activation(%0) function=relu : f32[1, 2]   # 1
      return %1
    """
    return trace(model, example_inputs, name).graph


def trace(model: torch.nn.Module | ExportedProgram, example_inputs: Sequence[Any] | None = None,
          name: str | None = None) -> Traced:
    """The graph as ``from_torch`` gives it, and where its constants come from."""
    if isinstance(model, ExportedProgram):
        program = _with_inputs(model, example_inputs)
        label = name or "exported program"
    else:
        inputs = check_inputs(() if example_inputs is None else example_inputs)
        program = export(check_model(model), inputs)
        label = name or type(model).__name__
        if make_plain(program):
            return _translate(*expand(program), label)
    return _translate(*expand(decompose(program)), label)


def _with_inputs(program: ExportedProgram, example_inputs: Sequence[Any] | None) -> ExportedProgram:
    """The program for the shapes of ``example_inputs``: as it is, unless its shapes are open."""
    if example_inputs is None:
        if program.range_constraints:
            raise InputError("this program was exported with dynamic shapes; give example inputs, which fix them")
        return program
    inputs = check_inputs(example_inputs)
    module = program.module()
    return export(module, inputs)


def _translate(program: ExportedProgram, expanded: frozenset[str], label: str) -> Traced:
    signature = program.graph_signature
    if changed := [spec for spec in signature.output_specs if spec.kind != OutputKind.USER_OUTPUT]:
        raise UnsupportedModelError(f"{label} changes {changed[0].target!r} in place when it is called; "
                                    "a compiled network changes nothing but its result. Copy it first, with clone()")
    specs = {spec.arg.name: spec for spec in signature.input_specs}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    inputs = {node.name: _input_type(node) for node in placeholders
              if specs[node.name].kind == InputKind.USER_INPUT}
    state = {**program.constants, **program.state_dict}
    builder = GraphBuilder(label, inputs, reserved=state)
    walk = Walk(builder, label, expanded)
    for node in placeholders:
        spec = specs[node.name]
        if spec.kind == InputKind.USER_INPUT:
            walk.bind(node, node.name)
        elif spec.kind in STATE:
            walk.bind(node, _state(node, spec.target, state), spec.target)
        else:
            raise UnsupportedModelError(f"{label} needs {spec.target or node.name!r}, which is no tensor")
    for node in program.graph.nodes:
        if node.op == "call_function":
            walk.visit(node)
        elif node.op == "get_attr":
            walk.bind(node, Untranslated(""))
    results = list(next(node for node in program.graph.nodes if node.op == "output").args[0])
    walk.check_results([node for node in results if isinstance(node, fx.Node)])
    walk.raise_problems()
    return Traced(_finish(program, builder, walk, results, label), state, builder.sources)


def _input_type(node: fx.Node) -> TensorType:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        raise UnsupportedModelError(f"the program's input {node.name} must be a float32 tensor, got "
                                    f"{value.dtype if isinstance(value, torch.Tensor) else type(value).__name__}")
    return TensorType(tuple(value.shape))


def _state(node: fx.Node, name: str, state: dict[str, Any]) -> torch.Tensor:
    """A parameter, a buffer or a tensor of the model's code; what the program reads of them must be finite."""
    tensor = state[name]
    if node.users:
        check_state(name, tensor)
        if tensor.is_floating_point():
            check_finite(to_array(tensor), f"parameter {name}")
    return tensor


def _finish(program: ExportedProgram, builder: GraphBuilder, walk: Walk, results: list[Any], label: str) -> Graph:
    """Name the outputs, each once, and say how they and the inputs nest."""
    outputs: list[Value] = []
    places: dict[fx.Node, int] = {}
    leaves: list[int | None] = []
    for result in results:
        if isinstance(result, fx.Node):
            if result not in places:
                places[result] = len(outputs)
                outputs.append(walk.value(result))
            leaves.append(places[result])
        elif result is None:
            leaves.append(None)
        else:
            raise UnsupportedModelError(f"{label} returns {result!r}, which is no tensor")
    if not outputs:
        raise UnsupportedModelError(f"{label} returns no tensor")
    call = program.module_call_graph[0].signature
    arguments = [spec for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    if not all(isinstance(spec.arg, TensorArgument) for spec in arguments) or call is None:
        raise UnsupportedModelError(f"{label} takes arguments that are no tensors")
    nested = tree_of(call.in_spec, range(len(arguments)), "arguments")
    positional, keywords = nested["tuple"]
    if keywords["dict"]:
        raise UnsupportedModelError(f"{label} was exported with keyword arguments; expected positional ones alone")
    return builder.finish(outputs, positional, tree_of(call.out_spec, leaves, "result"))
