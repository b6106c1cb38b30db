"""The walk: from the nodes of an exported program to those of a graph.

What does not depend on the inputs is computed here, by PyTorch itself, and becomes a constant. What has no place in
the graph is collected, so that one error names all of it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from zellige.errors import GraphError, UnsupportedModelError
from zellige.graph.aten_call import Comparison, UnsupportedFormError, Untranslated
from zellige.graph.aten_elementwise import CHOICES, COMPARISONS
from zellige.graph.aten_table import ATEN, BROADCASTING, CHECKS, SHAPE_ONLY, UNWRITTEN
from zellige.graph.builder import Constant, GraphBuilder

FLOW = "control flow or shapes that depend on values: a compiled network does the same work for every input"


class Walk:
    """One pass over the nodes of ``fx.Graph``; ``values`` holds what each became, and of what is known before the network runs
    ``_sources`` holds the tensors of the model, by name, that it was computed from.

    A value is a name in the graph, a ``torch.Tensor`` (known before the network runs), a tuple of values, or
    ``Untranslated``. ``expanded`` names the operators of the model that were written out in others.
    """

    def __init__(self, builder: GraphBuilder, model: str, expanded: frozenset[str] = frozenset()) -> None:
        self.builder = builder
        self.model = model
        self.expanded = expanded
        self.values: dict[fx.Node, Any] = {}
        self.problems: dict[str, list[str]] = {}
        self._names: dict[fx.Node, str] = {}
        self._constants: dict[fx.Node, Constant] = {}
        self._sources: dict[fx.Node, frozenset[str]] = {}

    def bind(self, node: fx.Node, value: Any, name: str | None = None) -> None:
        """A placeholder is an input of the graph, or a tensor of the model, whose constant takes its ``name``."""
        self.values[node] = value
        if name is not None:
            self._names[node] = name
            self._sources[node] = frozenset([name])

    def visit(self, node: fx.Node) -> None:
        """Translate one call; what can't be is noted, and a stand-in takes its place, so that the rest is seen too."""
        self.builder.module, self.builder.leaf = module_of(node)
        try:
            self.values[node] = self._translate(node)
        except (UnsupportedFormError, UnsupportedModelError, GraphError) as reason:
            self._note(node, str(reason))
            self.values[node] = self._stand_in(node)
        if isinstance(self.values[node], (torch.Tensor, tuple)):
            read = [] if operator_name(node) in SHAPE_ONLY else node.all_input_nodes
            self._sources[node] = frozenset().union(*(self._sources.get(operand, ()) for operand in read))

    def raise_problems(self) -> None:
        """One error for every operator that has no place in the graph."""
        if not self.problems:
            return
        lines = [f"  {what}, in {', '.join(dict.fromkeys(modules))}" for what, modules in self.problems.items()]
        raise UnsupportedModelError(
            f"{self.model} can't be compiled, because the graph has no place for these operators:\n" + "\n".join(lines)
            + "\nReplace them in the model, or compile the part of it that does not use them")

    def constant(self, node: fx.Node) -> Constant:
        """The value of ``node``, which is a tensor, as a constant; the same object each time."""
        if node not in self._constants:
            self._constants[node] = Constant(to_array(self.values[node]), self._names.get(node), self._sources[node])
        return self._constants[node]

    def value(self, node: fx.Node) -> Any:
        """What ``node`` became, as the builder takes it."""
        found = self.values[node]
        return self.constant(node) if isinstance(found, torch.Tensor) else found

    def check_results(self, nodes: Sequence[fx.Node]) -> None:
        """Outputs must have been made, in float32."""
        for node in nodes:
            self._note_untranslated(node)
            value = self.values[node]
            if not isinstance(value, torch.Tensor):
                continue
            if value.numel() == 0:
                raise UnsupportedModelError(f"{self.model} returns a tensor without elements, of shape {tuple(value.shape)}; "
                                            "leave it out of the result")
            if value.dtype != torch.float32:
                raise UnsupportedModelError(f"{self.model} returns a tensor of {value.dtype}, "
                                            "expected float32")

    def _stand_in(self, node: fx.Node) -> Any:
        """A value of the right shape for a result that was not made; the graph around it is never finished."""
        if _is_dynamic(node):
            return Untranslated("")
        values = [self.builder.stand_in(tuple(item.shape)) if isinstance(item, torch.Tensor) else Untranslated("")
                  for item in _tensors(node.meta.get("val"))]
        return tuple(values) if isinstance(node.meta.get("val"), (list, tuple)) else values[0]

    def _note(self, node: fx.Node, reason: str) -> None:
        written_out = next((name for name in _sources(node) if name in self.expanded), "")
        name = written_out.removeprefix("aten.") or operator_name(node)
        what = name.removesuffix(".default") + (f" ({reason})" if reason and not written_out else "")
        self.problems.setdefault(what, []).append(module_of(node)[0] or "the model itself")

    def _note_untranslated(self, node: fx.Node) -> None:
        """Reading a result that the graph does not have is a problem; it is noted once."""
        value = self.values[node]
        if isinstance(value, Untranslated) and value.reason:
            self.values[node] = Untranslated("")
            maker = node.args[0] if node.target is operator.getitem else node
            self._note(maker, value.reason)  # type: ignore[arg-type]

    def _reads_untranslated(self, node: fx.Node) -> bool:
        takes_comparisons = operator_name(node) in CHOICES or _is_dynamic(node)
        unreadable = [operand for operand in node.all_input_nodes if isinstance(self.values[operand], Untranslated)
                      and not (takes_comparisons and isinstance(self.values[operand], Comparison))]
        for operand in unreadable:
            self._note_untranslated(operand)
        return bool(unreadable)

    def _reads_foreign(self, node: fx.Node) -> bool:
        """Whether an operand that is computed has another element type already, so that its maker was noted."""
        return any(_element_type(operand) != "float32" and not isinstance(self.values[operand], (torch.Tensor, Comparison))
                   for operand in node.all_input_nodes)

    def _translate(self, node: fx.Node) -> Any:
        if (empty := _empty(node)) is not None:
            return empty
        if node.target is operator.getitem:
            parts = self.values[node.args[0]]  # type: ignore[index]
            return parts if isinstance(parts, Untranslated) else parts[node.args[1]]
        name = operator_name(node)
        if name in CHECKS:
            return None
        untranslated = self._reads_untranslated(node)
        if _is_dynamic(node):
            if untranslated and not isinstance(node.target, torch._ops.HigherOrderOperator):
                return Untranslated("")
            raise UnsupportedFormError(FLOW)
        if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
            raise UnsupportedFormError("")
        if untranslated and name in ATEN:
            return self._stand_in(node)
        known = all(isinstance(self.values[operand], torch.Tensor) for operand in node.all_input_nodes)
        if (known or name in SHAPE_ONLY) and torch.Tag.nondeterministic_seeded not in node.target.tags:
            return self._fold(node)
        if name not in ATEN:
            raise UnsupportedFormError("")
        if (name in COMPARISONS or name in CHOICES) and self._reads_foreign(node):
            return self._stand_in(node)
        if name in COMPARISONS:
            return ATEN[name](self.builder, *self._arguments(node))
        if _element_type(node) != "float32":
            if not self._reads_foreign(node):
                raise UnsupportedFormError(f"it computes in {_element_type(node)}, expected float32")
            return self._stand_in(node)
        if name == "expand.default" and _leads_to_broadcasts(node):
            return self.values[node.args[0]]  # type: ignore[index]
        result = ATEN[name](self.builder, *self._arguments(node))
        self._check_shape(node, result)
        return result

    def _fold(self, node: fx.Node) -> Any:
        """PyTorch's own answer; an input counts for its shape alone, so zeros stand for it. They also stand where PyTorch's answer
        is whatever lay in its memory, which may be NaN, and differs from one call to the next.
        """

        def tensor(operand: fx.Node) -> Any:
            value = self.values[operand]
            if isinstance(value, torch.Tensor):
                return value
            return torch.zeros((), device="cpu").expand(operand.meta["val"].shape)     # whatever the default device is

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), tensor)
        with torch.no_grad():
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        return torch.zeros_like(result) if operator_name(node) in UNWRITTEN else result

    def _arguments(self, node: fx.Node) -> list[Any]:
        """All arguments in the order of the schema, defaults filled in, tensors as names and constants."""

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.value)
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        rest = [kwargs.get(argument.name, argument.default_value) for argument in schema[len(args):]]
        return [*map(_plain, args), *map(_plain, rest)]

    def _check_shape(self, node: fx.Node, result: Any) -> None:
        """PyTorch has inferred the shape as well: the two must agree."""
        expected = node.meta["val"]
        if isinstance(expected, torch.Tensor) and self.builder.shape(result) != tuple(expected.shape):
            raise GraphError(f"its shape became {self.builder.shape(result)}, PyTorch says {tuple(expected.shape)}")


def operator_name(node: fx.Node) -> str:
    """The name of the operator's overload, without ``aten.``."""
    return str(getattr(node.target, "__name__", node.target) if callable(node.target) else node.target)


def module_of(node: fx.Node) -> tuple[str, bool]:
    """The path of the module that called an operator, and whether it is one of PyTorch's own layers."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", False
    path, kind = list(stack.values())[-1]
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return str(path), name.startswith("torch.nn.modules.") and ".container." not in name


def _sources(node: fx.Node) -> list[str]:
    """The operators that a node came from when others were written out, the model's own first."""
    names: list[str] = []
    sources = node.meta.get("from_node")
    while sources:
        names.append(str(sources[-1].target))
        sources = sources[-1].from_node
    return names[::-1]


def to_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


def _plain(argument: Any) -> Any:
    """A list that fx keeps as its own immutable kind, as a list."""
    return list(argument) if isinstance(argument, (list, tuple)) else argument


def _tensors(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _empty(node: fx.Node) -> torch.Tensor | None:
    """The result if it has no elements: known without the numbers that it is made of."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or _is_dynamic(node) or 0 not in value.shape:
        return None
    return torch.zeros(tuple(value.shape), dtype=value.dtype, device="cpu")


def _is_dynamic(node: fx.Node) -> bool:
    """Whether the result is a number, or has a shape, that only the values decide."""
    results = [item for item in _tensors(node.meta.get("val")) if item is not None]
    return (isinstance(node.target, torch._ops.HigherOrderOperator)
            or any(isinstance(item, (torch.SymInt, torch.SymFloat, torch.SymBool)) for item in results)
            or any(isinstance(size, torch.SymInt) for item in results if isinstance(item, torch.Tensor)
                   for size in item.shape))


def _element_type(node: fx.Node) -> str:
    """The element type of a result, or of the first of several."""
    first = _tensors(node.meta.get("val"))[0]
    return str(first.dtype).removeprefix("torch.") if isinstance(first, torch.Tensor) else "float32"


def _leads_to_broadcasts(node: fx.Node) -> bool:
    """Whether every reader repeats the operand by itself and gives the shape that the ``expand`` would."""
    shape = node.meta["val"].shape
    return all(operator_name(user) in BROADCASTING and user.meta["val"].shape == shape
               and any(operator_name(operand) != "expand.default" and operand.meta["val"].shape == shape
                       for operand in user.all_input_nodes)
               for user in node.users)
