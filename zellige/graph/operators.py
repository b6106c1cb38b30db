"""The operators: name → number of inputs, attributes, shape rule. What a node may say stands here and nowhere else.

``make_node`` is how the rest of Zellige makes a node: it fills in defaults, checks, and infers the type. A node in a
graph always carries every attribute of its operator. The meaning of each operator is ``reference.py``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zellige.errors import GraphError
from zellige.graph import shapes
from zellige.graph.attributes import FLAG, REAL, SCALES, AttributeSpec, Kind, choice, integer, integers
from zellige.graph.ir import Attribute, Node, TensorType


@dataclass(frozen=True)
class Operator:
    """``least`` and ``most`` inputs (``most=None``: any number), the attributes, the rule for the result's shape."""

    least: int
    most: int | None
    rule: Callable[[Sequence[shapes.Shape], shapes.Attributes], shapes.Shape]
    attributes: Mapping[str, AttributeSpec] = field(default_factory=dict)


ACTIVATIONS: Mapping[str, Mapping[str, Attribute]] = {
    "relu": {}, "relu6": {}, "clamp": {"low": float("-inf"), "high": float("inf")},
    "hard_tanh": {"low": -1.0, "high": 1.0}, "leaky_relu": {"slope": 0.01},
    "elu": {"alpha": 1.0}, "selu": {}, "celu": {"alpha": 1.0}, "gelu": {"approximate": "none"}, "silu": {}, "mish": {},
    "sigmoid": {}, "hard_sigmoid": {}, "hard_swish": {}, "tanh": {}, "softplus": {"beta": 1.0, "threshold": 20.0},
    "exp": {}, "expm1": {}, "log": {}, "log1p": {}, "sqrt": {}, "rsqrt": {}, "reciprocal": {}, "absolute": {}, "negate": {},
    "sign": {}, "square": {}, "power": {"exponent": 2.0}, "erf": {},
}
"""Activation functions: name → parameters with their defaults."""

PARAMETER_KINDS: Mapping[str, Kind] = {"approximate": choice("none", "tanh")}
"""Kinds of the activation functions' parameters; one that is not listed is a real number."""

COMPARISONS = ("greater", "greater_equal", "equal", "not_equal")
"""How ``where`` compares its first two inputs; the third is taken where it holds, the fourth elsewhere."""

_MODES = ("zeros", "reflect", "replicate", "circular")
_PADDING = AttributeSpec(integers(4, least=0), (0, 0, 0, 0))
_STRIDE = AttributeSpec(integers(2, least=1), (1, 1))
_DILATION = _STRIDE
_SIZE = AttributeSpec(integers(2, least=1))
_DIMENSION = AttributeSpec(integer(least=0))
_GROUPS = AttributeSpec(integer(least=1), 1)
_REDUCTION = {"dimensions": AttributeSpec(integers(least=0)), "keep": AttributeSpec(FLAG, False)}

OPERATORS: Mapping[str, Operator] = {
    "conv2d": Operator(2, 3, shapes.conv2d, {
        "stride": _STRIDE, "padding": _PADDING, "padding_mode": AttributeSpec(choice(*_MODES), "zeros"),
        "dilation": _DILATION, "groups": _GROUPS}),
    "linear": Operator(2, 3, shapes.linear),
    "batch_norm": Operator(5, 5, shapes.per_channel, {"epsilon": AttributeSpec(REAL, 1e-5)}),
    "scale_shift": Operator(3, 3, shapes.per_channel),
    "activation": Operator(1, 1, shapes.same, {"function": AttributeSpec(choice(*ACTIVATIONS))}),
    "prelu": Operator(2, 2, shapes.prelu),
    **{name: Operator(2, 2, shapes.broadcast)
       for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")},
    "where": Operator(4, 4, shapes.broadcast, {"comparison": AttributeSpec(choice(*COMPARISONS))}),
    "max_pool2d": Operator(1, 1, shapes.pool2d, {
        "kernel": _SIZE, "stride": _STRIDE, "padding": _PADDING, "dilation": _DILATION}),
    "average_pool2d": Operator(1, 1, shapes.pool2d, {
        "kernel": _SIZE, "stride": _STRIDE, "padding": _PADDING, "count_padding": _PADDING,
        "divisor": AttributeSpec(integer(least=0), 0)}),
    "adaptive_average_pool2d": Operator(1, 1, shapes.adaptive_pool2d, {"size": _SIZE}),
    "adaptive_max_pool2d": Operator(1, 1, shapes.adaptive_pool2d, {"size": _SIZE}),
    "mean": Operator(1, 1, shapes.reduction, _REDUCTION),
    "sum": Operator(1, 1, shapes.reduction, _REDUCTION),
    "softmax": Operator(1, 1, shapes.along, {"dimension": _DIMENSION}),
    "log_softmax": Operator(1, 1, shapes.along, {"dimension": _DIMENSION}),
    "concat": Operator(1, None, shapes.concat, {"dimension": _DIMENSION}),
    "slice": Operator(1, 1, shapes.slicing, {
        "dimension": _DIMENSION, "start": AttributeSpec(integer(least=0)), "stop": AttributeSpec(integer(least=1)),
        "step": AttributeSpec(integer(least=1), 1)}),
    "pad": Operator(1, 1, shapes.pad, {
        "padding": AttributeSpec(integers(4)), "mode": AttributeSpec(choice(*_MODES, "constant"), "zeros"),
        "value": AttributeSpec(REAL, 0.0)}),
    "reshape": Operator(1, 1, shapes.reshape, {"shape": AttributeSpec(integers(least=1))}),
    "transpose": Operator(1, 1, shapes.transpose, {"order": AttributeSpec(integers(least=0))}),
    "channel_shuffle": Operator(1, 1, shapes.channel_shuffle, {"groups": AttributeSpec(integer(least=1))}),
    "interpolate": Operator(1, 1, shapes.interpolate, {
        "mode": AttributeSpec(choice("nearest", "nearest_exact", "bilinear")), "size": _SIZE,
        "scale": AttributeSpec(SCALES, (0.0, 0.0)), "align_corners": AttributeSpec(FLAG, False)}),
}


def attributes_of(op: str, function: object = None) -> dict[str, AttributeSpec]:
    """The attributes that ``op`` takes; an activation also takes the parameters of its ``function``."""
    if op not in OPERATORS:
        raise GraphError(f"{op!r} is no operator; known are {', '.join(OPERATORS)}")
    known = dict(OPERATORS[op].attributes)
    if op == "activation" and isinstance(function, str):
        for name, default in ACTIVATIONS.get(function, {}).items():
            known[name] = AttributeSpec(PARAMETER_KINDS.get(name, REAL), default)
    return known


def check_attributes(op: str, attributes: Mapping[str, Any]) -> None:
    """Every attribute of ``op`` is there, of its kind, and no other; else a ``GraphError``.

    >>> check_attributes("softmax", {"dimension": -1})
    Traceback (most recent call last):
    zellige.errors.GraphError: attribute dimension must be an integer ≥ 0, got -1
    """
    known = attributes_of(op, attributes.get("function"))
    if unknown := [name for name in attributes if name not in known]:
        raise GraphError(f"unknown attribute {unknown[0]!r}; {op} takes {', '.join(known) or 'none'}")
    for name, spec in known.items():
        if name not in attributes:
            raise GraphError(f"attribute {name} is missing; it must be {spec.kind.words}")
        if not spec.kind.accepts(attributes[name]):
            raise GraphError(f"attribute {name} must be {spec.kind.words}, got {reprlib.repr(attributes[name])}")


def complete_attributes(op: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with the defaults of those left out, in the table's order, checked.

    >>> complete_attributes("activation", {"function": "softplus", "beta": 2.0})
    {'function': 'softplus', 'beta': 2.0, 'threshold': 20.0}
    """
    known = attributes_of(op, attributes.get("function"))
    defaults = {name: attributes.get(name, spec.default) for name, spec in known.items()
                if name in attributes or not spec.required}
    complete = {**defaults, **attributes}
    check_attributes(op, complete)
    return complete


def infer_type(op: str, types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    """The type of the result of ``op`` on operands of ``types``; ``attributes`` are complete and checked."""
    operator = OPERATORS[op]
    if len(types) < operator.least or (operator.most is not None and len(types) > operator.most):
        most = "or more" if operator.most is None else f"to {operator.most}"
        count = str(operator.least) if operator.least == operator.most else f"{operator.least} {most}"
        raise GraphError(f"expected {count} inputs, got {len(types)}")
    dtypes = sorted({kind.dtype for kind in types})
    if len(dtypes) > 1:
        raise GraphError(f"the inputs' element types differ: {', '.join(dtypes)}")
    return TensorType(tuple(operator.rule([kind.shape for kind in types], attributes)), dtypes[0])


def make_node(name: str, op: str, inputs: Sequence[str], types: Sequence[TensorType],
              attributes: Mapping[str, Any] | None = None, origin: str = "") -> Node:
    """A node with defaults filled in and its type inferred from the ``types`` of its ``inputs``.

    >>> x, w = TensorType((1, 3, 8, 8)), TensorType((4, 3, 3, 3))
    >>> print(make_node("conv", "conv2d", ["x", "w"], [x, w], {"padding": (1, 1, 1, 1)}).type)
    f32[1, 4, 8, 8]
    """
    try:
        complete = complete_attributes(op, attributes or {})
        return Node(name, op, tuple(inputs), infer_type(op, types, complete), complete, origin=origin)
    except GraphError as error:
        where = f", from module {origin}" if origin else ""
        raise GraphError(f"node {name!r} ({op}{where}): {error}") from None
