"""What is done to a program before anything is planned: constants computed, batch norms folded, layers found and joined, features
that are constants left out.

Each function changes the program in place. Linear layers that read one input and do nothing else to it become one whose weights
are stacked, as queries, keys and values are; additions and activations behind a linear layer or a convolution become part of it.
What the model itself computes in another type than the program's, as some do with norms and logits, stays as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import fx

from zellige.cuda.network.constant_features import drop_constant_features
from zellige.cuda.network.layers import Attention, Convolution, Layer, Linear, Norm, WithWeights, layer_of, put_layer, shape_of
from zellige.cuda.network.trace import Program
from zellige.cuda.tiling.convolution_tiles import Window
from zellige.graph.from_torch_walk import module_of

aten = torch.ops.aten

ACTIVATIONS: dict[Any, str] = {aten.relu.default: "relu", aten.gelu.default: "gelu", aten.silu.default: "silu"}
VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.unflatten.int)
NORM = aten._native_batch_norm_legit_no_training.default


def rewrite(program: Program) -> None:
    """All of it, in order."""
    for step in (fold_constants, fold_batch_norms, find_layers, find_attention, stack_layers, fuse_epilogues,
                 drop_constant_features):
        step(program)
        program.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))  # attention draws nothing here
    program.graph.lint()


def fold_constants(program: Program) -> None:
    """What depends on no input is computed now, by PyTorch itself."""
    values: dict[fx.Node, Any] = {}
    for node in list(program.graph.nodes):
        if node.op == "get_attr":
            values[node] = program.constants[str(node.target)]
        if node.op != "call_function" or any(operand not in values for operand in node.all_input_nodes):
            continue
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags:
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        with torch.no_grad():
            values[node] = node.target(*args, **kwargs)
        if isinstance(values[node], torch.Tensor):
            _replace(program, node, _get(program, node, program.keep(node.name, values[node])), values)


def fold_batch_norms(program: Program) -> None:
    """A batch norm with kept statistics, behind a convolution that nothing else reads, goes into weight and bias."""
    for node in list(program.graph.nodes):
        if node.target is not NORM:
            continue
        convolution, *vectors = _args(node)[:5]
        folded = _folded(program, convolution, vectors, _args(node)[6])
        first = next((user for user in node.users if user.target is operator.getitem and user.args[1] == 0), None)
        if folded is None or first is None:
            continue
        names = [program.keep(f"{convolution.name}.{what}", value) for what, value in zip(("weight", "bias"), folded, strict=True)]
        with program.graph.inserting_before(convolution):
            weight, bias = (program.graph.create_node("get_attr", name) for name in names)
        for made, value in ((weight, folded[0]), (bias, folded[1])):
            made.meta["val"] = value
        convolution.args = (convolution.args[0], weight, bias, *convolution.args[3:])
        first.replace_all_uses_with(convolution)


def _folded(program: Program, convolution: Any, vectors: Sequence[Any], epsilon: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weight and bias of the convolution with the norm in them, rounded once; None if that can't be."""
    if not isinstance(convolution, fx.Node) or convolution.target is not aten.conv2d.default or len(convolution.users) > 1:
        return None
    if not _in_type(program, convolution):
        return None
    weight, given = _exact(program, convolution.args[1]), [*convolution.args[2:], None][0]
    shift = _exact(program, given)
    scale, offset, mean, variance = (None if vector is None else _exact(program, vector) for vector in vectors)
    if weight is None or mean is None or variance is None or (given is not None and shift is None):
        return None
    factor = torch.rsqrt(variance + epsilon)
    factor = factor if scale is None else factor * scale
    bias = ((0 if shift is None else shift) - mean) * factor
    bias = bias if offset is None else bias + offset
    return (weight * factor.reshape(-1, 1, 1, 1)).to(program.dtype), bias.to(program.dtype)


def find_layers(program: Program) -> None:
    """Linear layers and convolutions with constant weights, and layer norms over the last dimension."""
    for node in list(program.graph.nodes):
        if node.target not in LAYERS or not _in_type(program, node):
            continue
        x, *parameters = _args(node)
        layer = LAYERS[node.target](program, node, *parameters)
        if layer is not None:
            with program.graph.inserting_before(node):
                _replace(program, node, put_layer(program.graph, layer, x, node))


def _linear(program: Program, node: fx.Node, weight: fx.Node, bias: fx.Node | None = None) -> Linear | None:
    known, shift = _exact(program, weight), _exact(program, bias)
    if known is None or known.ndim != 2 or (bias is not None and (shift is None or shift.shape != known.shape[:1])):
        return None
    return Linear((_name(node),), (known,), shift, "none", known.numel())


def _norm(program: Program, node: fx.Node, shape: Sequence[int], weight: fx.Node | None = None, bias: fx.Node | None = None,
          epsilon: float = 1e-5, *rest: object) -> Norm | None:
    scale, shift = _exact(program, weight), _exact(program, bias)
    if len(shape) != 1 or (weight is not None and scale is None) or (bias is not None and shift is None):
        return None
    return Norm((_name(node),), shape[0], scale, shift, epsilon)


def _convolution(program: Program, node: fx.Node, weight: fx.Node, bias: fx.Node | None = None, stride: Sequence[int] = (1, 1),
                 padding: Sequence[int] = (0, 0), dilation: Sequence[int] = (1, 1), groups: int = 1) -> Convolution | None:
    known, shift, shape = _exact(program, weight), _exact(program, bias), shape_of(_args(node)[0])
    if known is None or (bias is not None and shift is None) or groups > 1 or len(shape) != 4:
        return None
    pairs = ((size[0], size[-1]) for size in (known.shape[2:], stride, padding, dilation))  # one number stands for both
    return Convolution((_name(node),), known, shift, Window(*pairs), shape[2], shape[3], "none")


LAYERS: dict[Any, Callable[..., Layer | None]] = {aten.linear.default: _linear, aten.layer_norm.default: _norm,
                                                  aten.conv2d.default: _convolution}
"""Operator → the layer that it is, if its weights are known."""


def find_attention(program: Program) -> None:
    """Queries, keys and values that three linear layers make of one input, through attention without a mask, back to features."""
    for node in list(program.graph.nodes):
        if node.target is not aten.scaled_dot_product_attention.default or len(node.args) > 3 or set(node.kwargs) - {"scale"}:
            continue
        made = [_before_heads(operand) for operand in _args(node)[:3]]
        after, linears = _behind_heads(node), [one for one in made if one is not None]
        if after is None or len(set(linears)) < 3 or not _stackable(linears):
            continue
        batch, heads, sequence, width = shape_of(node)
        if {shape_of(one) for one in linears} != {(batch, sequence, heads * width)} or shape_of(_args(node)[0]) != shape_of(node):
            continue
        scale: Any = node.kwargs.get("scale")
        with program.graph.inserting_before(node):
            stacked = _stacked(program, linears)
            layer = Attention((_name(node),), heads * width, heads, sequence, width**-0.5 if scale is None else scale)
            _replace(program, after, put_layer(program.graph, layer, stacked, after))


def _before_heads(node: Any) -> fx.Node | None:
    """The linear layer whose result was cut into heads: viewed as batch × sequence × heads × width, the middle two exchanged."""
    view = _exchanged(node)
    if view is None or view.target not in VIEWS or len(view.users) > 1 or len(shape_of(view)) != 4:
        return None
    source: fx.Node = _args(view)[0]
    return source if isinstance(layer_of(source), Linear) and len(source.users) == 1 else None


def _behind_heads(node: fx.Node) -> fx.Node | None:
    """Where the heads are side by side again."""
    users = list(node.users)
    back = users[0] if len(users) == 1 and _exchanged(users[0]) is node else None
    while back is not None:
        users = list(back.users)
        if len(users) != 1:
            return None
        if users[0].target in VIEWS:
            batch, heads, sequence, width = shape_of(node)
            return users[0] if shape_of(users[0]) == (batch, sequence, heads * width) else None
        back = users[0] if users[0].target in (aten.contiguous.default, aten.clone.default) else None
    return None


def _exchanged(node: Any) -> fx.Node | None:
    """What dimensions 1 and 2 of were exchanged, if that is all."""
    if not isinstance(node, fx.Node) or len(shape_of(node)) != 4:
        return None
    source, *how = _args(node)
    turned = (node.target is aten.transpose.int and sorted(size % 4 for size in how) == [1, 2]) or (
        node.target is aten.permute.default and [size % 4 for size in how[0]] == [0, 2, 1, 3])
    return source if turned else None


def stack_layers(program: Program) -> None:
    """Linear layers that read one input become one; each old result is a slice of the new one."""
    for source in list(program.graph.nodes):
        siblings = [user for user in source.users if isinstance(layer_of(user), Linear)]
        for group in (siblings, [node for node in siblings if not _epilogue_follows(node)]):
            if len(group) > 1 and _stackable(group):
                order = {node: place for place, node in enumerate(program.graph.nodes)}
                group = sorted(group, key=order.__getitem__)
                with program.graph.inserting_before(group[0]):
                    stacked = _stacked(program, group)
                    ends = list(accumulate(shape_of(node)[-1] for node in group))
                    parts = [program.graph.call_function(aten.slice.Tensor, (stacked, -1, start, end))
                             for start, end in pairwise([0, *ends])]
                for node, part in zip(group, parts, strict=True):
                    part.meta["val"] = node.meta["val"]
                    _replace(program, node, part)
                break


def _epilogue_follows(node: fx.Node) -> bool:
    """Whether the only reader could become part of a layer."""
    users = list(node.users)
    return len(users) == 1 and (users[0].target in ACTIVATIONS or users[0].target is aten.add.Tensor)


def _stackable(nodes: Sequence[fx.Node]) -> bool:
    """Whether linear layers read the same input, without anything fused yet, and are of one kind."""
    layers = [layer_of(node) for node in nodes]
    return (len({node.args for node in nodes}) == 1 and not any(map(_epilogue_follows, nodes))
            and all(isinstance(layer, Linear) and layer.activation == "none" for layer in layers)
            and len({layer.bias is None for layer in layers if isinstance(layer, Linear)}) == 1)


def _stacked(program: Program, nodes: Sequence[fx.Node]) -> fx.Node:
    layers = [layer for node in nodes if isinstance(layer := layer_of(node), Linear)]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    layer = Linear(tuple(name for one in layers for name in one.names), tuple(weight for one in layers for weight in one.weights),
                   torch.cat(biases) if biases else None, "none", sum(layer.dense for layer in layers))
    like = nodes[0].meta["val"]
    return put_layer(program.graph, layer, _args(nodes[0])[0], nodes[0], like.new_empty(*like.shape[:-1], layer.rows))


def fuse_epilogues(program: Program) -> None:
    """First a residual, then an activation, each the only reader of what a layer with weights makes."""
    for node in list(program.graph.nodes):
        if node.target is aten.add.Tensor and not node.kwargs and shape_of(node):
            _fuse(program, node, _add_residual)
    for node in list(program.graph.nodes):
        if node.target in ACTIVATIONS and node.kwargs.get("approximate", "none") == "none":
            _fuse(program, node, _add_activation)


def _fuse(program: Program, node: fx.Node, fused: Callable[[fx.Graph, fx.Node, fx.Node], fx.Node | None]) -> None:
    places = {one: place for place, one in enumerate(program.graph.nodes)}
    operands = [one for one in node.args if isinstance(one, fx.Node)]
    for host in sorted(operands, key=lambda one: -places[one]):  # the last one made has nothing to wait for
        layer = layer_of(host)
        if isinstance(layer, WithWeights) and layer.activation == "none" and len(host.users) == 1:
            with program.graph.inserting_before(node):
                if (made := fused(program.graph, host, node)) is not None:
                    _replace(program, node, made)
                    return


def _add_residual(graph: fx.Graph, host: fx.Node, node: fx.Node) -> fx.Node | None:
    other = next((one for one in node.args if one is not host), None)
    alike = isinstance(other, fx.Node) and shape_of(other) == shape_of(host) and other.meta["val"].dtype == host.meta["val"].dtype
    if len(host.args) > 1 or not isinstance(other, fx.Node) or not alike:
        return None
    return put_layer(graph, host.meta["layer"], _args(host)[0], node, residual=other)


def _add_activation(graph: fx.Graph, host: fx.Node, node: fx.Node) -> fx.Node | None:
    x, residual = [*_args(host), None][:2]
    return put_layer(graph, replace(host.meta["layer"], activation=ACTIVATIONS[node.target]), x, node, residual=residual)


def _args(node: fx.Node) -> tuple[Any, ...]:
    """Its arguments, of whatever kinds its operator takes."""
    return node.args


def _in_type(program: Program, node: fx.Node) -> bool:
    """Whether a node makes a tensor of the program's type."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == program.dtype


def _exact(program: Program, node: Any) -> torch.Tensor | None:
    found = program.original(node) if isinstance(node, fx.Node) else None
    return None if found is None else found.float()


def _name(node: fx.Node) -> str:
    """The module that a node came from, or its own name where that is the whole model."""
    return module_of(node)[0] or node.name


def _get(program: Program, node: fx.Node, name: str) -> fx.Node:
    with program.graph.inserting_before(node):
        made = program.graph.create_node("get_attr", name)
    made.meta["val"] = program.constants[name]
    return made


def _replace(program: Program, node: fx.Node, other: fx.Node, values: dict[fx.Node, Any] | None = None) -> None:
    """Let all readers of a node read another, which takes its place in ``values`` too."""
    node.replace_all_uses_with(other)
    if values is not None:
        values[other] = values[node]
    program.graph.erase_node(node)
