"""What a quantised node means, said again in Python's own integers, one number at a time: the oracle of the int8 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from zellige.graph.quantized import QuantizedGraph, QuantizedNode

Place = tuple[int, ...]
Read = Callable[[Place], int]


def run_oracle(graph: QuantizedGraph, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """All int8 values of a graph, by name."""
    values = {**graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
    for node in graph:
        values[node.name] = evaluate_oracle(node, [values[name] for name in node.inputs])
    return values


def evaluate_oracle(node: QuantizedNode, inputs: Sequence[np.ndarray]) -> np.ndarray:
    result = np.empty(node.shape, dtype=np.int8)
    for place in product(*map(range, node.shape)):
        terms = OPERATORS[node.op](node, inputs, place)
        if node.rescale is None:
            (whole,) = terms
        else:
            shift = int(np.broadcast_to(node.rescale.shift, node.shape)[place])
            total = 1 << shift - 1 if shift else 0
            for term, multiplier in zip(terms, node.rescale.multipliers, strict=True):
                assert abs(term) < 2**31
                total += term * int(np.broadcast_to(multiplier, node.shape)[place])
            assert abs(total) < 2**63
            whole = total >> shift
        result[place] = min(max(whole, node.low), node.high)
    return result


def _read(x: np.ndarray, place: Place) -> int:
    return int(x[place])


def _broadcast(x: np.ndarray, place: Place) -> int:
    """The element of ``x`` that stands at a place of what it is broadcast to."""
    own = place[len(place) - x.ndim:]
    return int(x[tuple(0 if size == 1 else at for size, at in zip(x.shape, own, strict=True))])


MODES: dict[str, Callable[[int, int], int | None]] = {
    "zeros": lambda at, size: at if 0 <= at < size else None,
    "constant": lambda at, size: at if 0 <= at < size else None,
    "replicate": lambda at, size: min(max(at, 0), size - 1),
    "reflect": lambda at, size: -at if at < 0 else (2 * (size - 1) - at if at >= size else at),
    "circular": lambda at, size: at % size,
}


def _padded(x: np.ndarray, place: Place, mode: str, beyond: int | None = 0) -> int | None:
    """The element of a map that is grown on all sides."""
    row, column = MODES[mode](place[2], x.shape[2]), MODES[mode](place[3], x.shape[3])
    return beyond if row is None or column is None else int(x[place[0], place[1], row, column])


def _conv2d(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    x, *added = inputs
    image, channel, row, column = place
    a, weight = node.attributes, node.weight
    total = int(node.bias[channel])
    first = channel // (len(weight) // a["groups"]) * weight.shape[1]
    for c, i, j in product(*map(range, weight.shape[1:])):
        at = (image, first + c, row * a["stride"][0] + i * a["dilation"][0] - a["padding"][0],
              column * a["stride"][1] + j * a["dilation"][1] - a["padding"][2])
        total += int(weight[channel, c, i, j]) * _padded(x, at, a["padding_mode"])
    return [total, *(_read(one, place) for one in added)]


def _linear(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    x, *added = inputs
    row = node.weight[place[-1]]
    total = int(node.bias[place[-1]]) + sum(int(w) * _read(x, (*place[:-1], i)) for i, w in enumerate(row))
    return [total, *(_read(one, place) for one in added)]


def _scale_shift(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    return [int(node.weight[place[1]]) * _read(inputs[0], place) + int(node.bias[place[1]])]


def _multiply(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    return [_broadcast(inputs[0], place) * _broadcast(inputs[1], place)]


def _windows(node: QuantizedNode, x: np.ndarray, place: Place) -> Iterator[int | None]:
    """What stands under a window: ``None`` beyond the map."""
    a = node.attributes
    if "size" in a:
        starts = [(i * s // n, -(-(i + 1) * s // n)) for i, s, n in zip(place[2:], x.shape[2:], a["size"], strict=True)]
        spans = [range(*edges) for edges in starts]
    else:
        dilation = a.get("dilation", (1, 1))
        spans = [[place[2 + d] * a["stride"][d] - a["padding"][2 * d] + i * dilation[d] for i in range(a["kernel"][d])]
                 for d in range(2)]
    for row, column in product(*spans):
        yield _padded(x, (*place[:2], row, column), "zeros", None)


def _window_sum(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    return [sum(number for number in _windows(node, inputs[0], place) if number is not None)]


def _window_maximum(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    return [max(number for number in _windows(node, inputs[0], place) if number is not None)]


def _reduction(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    x, left = inputs[0], list(place)
    spans = []
    for i, size in enumerate(x.shape):
        if i in node.attributes["dimensions"]:
            spans.append(range(size))
            if node.attributes["keep"]:
                left.pop(0)
        else:
            spans.append([left.pop(0)])
    return [sum(_read(x, at) for at in product(*spans))]


def _concat(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    dimension = node.attributes["dimension"]
    at = place[dimension]
    for x in inputs:
        if at < x.shape[dimension]:
            return [_read(x, (*place[:dimension], at, *place[dimension + 1:]))]
        at -= x.shape[dimension]
    raise AssertionError(place)


def _slice(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    a = node.attributes
    at = [a["start"] + i * a["step"] if d == a["dimension"] else i for d, i in enumerate(place)]
    return [_read(inputs[0], tuple(at))]


def _pad(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    a = node.attributes
    at = (*place[:2], place[2] - a["padding"][0], place[3] - a["padding"][2])
    return [_padded(inputs[0], at, a["mode"], int(a["value"]) if a["mode"] == "constant" else 0)]


def _reshape(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    at = 0
    for i, size in zip(place, node.shape, strict=True):
        at = at * size + i
    own = []
    for size in reversed(inputs[0].shape):
        own.insert(0, at % size)
        at //= size
    return [_read(inputs[0], tuple(own))]


def _transpose(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    at = [0] * len(place)
    for i, dimension in zip(place, node.attributes["order"], strict=True):
        at[dimension] = i
    return [_read(inputs[0], tuple(at))]


def _shuffle(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    groups = node.attributes["groups"]
    each = node.shape[1] // groups
    return [_read(inputs[0], (place[0], place[1] % groups * each + place[1] // groups, *place[2:]))]


def _nearest(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    rows, columns = (i * size // out for i, size, out in zip(place[2:], inputs[0].shape[2:], node.shape[2:], strict=True))
    return [_read(inputs[0], (*place[:2], rows, columns))]


def _table(node: QuantizedNode, inputs: Sequence[np.ndarray], place: Place) -> list[int]:
    table = node.table if node.table.ndim == 1 else node.table[place[1]]
    return [int(table[_read(inputs[0], place) + 128])]


OPERATORS: dict[str, Callable[[QuantizedNode, Sequence[np.ndarray], Place], list[int]]] = {
    "conv2d": _conv2d, "linear": _linear, "scale_shift": _scale_shift, "multiply": _multiply,
    **dict.fromkeys(("add", "subtract", "activation"), lambda node, inputs, place: [_broadcast(x, place) for x in inputs]),
    **dict.fromkeys(("average_pool2d", "adaptive_average_pool2d"), _window_sum), "mean": _reduction, "sum": _reduction,
    **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d"), _window_maximum), "concat": _concat, "slice": _slice, "pad": _pad,
    "reshape": _reshape, "transpose": _transpose, "channel_shuffle": _shuffle, "interpolate": _nearest, "table": _table,
    "maximum": lambda node, inputs, place: [max(_broadcast(x, place) for x in inputs)],
    "minimum": lambda node, inputs, place: [min(_broadcast(x, place) for x in inputs)],
}
