"""Layers on one core: a generated quantised node, and the packets and activations that make a core compute it whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from zellige.aie2.packet import GROUP, MAXIMUM, PRODUCT, SUM, TABLE, Header, Packet, aligned_bytes, packet_size
from zellige.graph.fixed_point import Rescale, rescaling
from zellige.graph.quantized import QuantizedNode
from zellige.graph.quantized_reference import evaluate_quantized

Array = np.ndarray
GUARD = 96
"""Bytes around every buffer that a step must leave alone; a multiple of what buffers are aligned to."""


@dataclass(frozen=True)
class Layer:
    """What a core is to compute: a node, its int8 inputs, and its packets, one a part, each with the activations it reads."""

    node: QuantizedNode
    inputs: tuple[Array, ...]
    packets: tuple[Packet, ...]
    activations: tuple[Array, ...]

    @property
    def expected(self) -> Array:
        return evaluate_quantized(self.node, self.inputs)


class Guarded:
    """A buffer with guards on both sides, filled with what nobody expects."""

    def __init__(self, size: int, seed: int = 1):
        self.whole = aligned_bytes(size + 2 * GUARD)
        self.whole[...] = np.random.default_rng(seed).integers(0, 256, size + 2 * GUARD, dtype=np.uint8)
        self.before = self.whole.copy()
        self.inside = self.whole[GUARD : GUARD + size]

    def untouched(self, written: int = 0) -> bool:
        """Whether everything but the first so many bytes is as it was."""
        there = np.ones(self.whole.size, bool)
        there[GUARD : GUARD + written] = False
        return bool(np.array_equal(self.whole[there], self.before[there]))


def run_layer(layer: Layer, step: Callable) -> Array:
    """The result of the layer's packets by a step function: int8 in the node's shape. Nothing else may be written."""
    header = layer.packets[0].header
    size = header.rows * header.groups * header.width * GROUP
    result, sums = Guarded(size + 24), Guarded(4 * size + 64)
    for packet, activations in zip(layer.packets, layer.activations, strict=True):
        slot, given = Guarded(packet.header.size + 40), Guarded(activations.size, 2)
        slot.inside[: packet.header.size] = packet.encode()
        given.inside[...] = activations.reshape(-1).view(np.uint8)
        copies = [buffer.whole.copy() for buffer in (slot, given)]
        step(slot.inside, given.inside, result.inside if packet.header.results else None, sums.inside.view(np.int32))
        for buffer, copy in zip((slot, given), copies, strict=True):
            assert np.array_equal(buffer.whole, copy)
    assert result.untouched(size) and sums.untouched(4 * size if len(layer.packets) > 1 else 0)
    found = result.inside[:size].view(np.int8).reshape(header.rows, header.groups, header.width, GROUP)
    shape = layer.node.shape
    whole = found.transpose(1, 3, 0, 2).reshape(1, header.groups * GROUP, header.rows, header.width)
    return whole[:, : shape[1]].reshape(shape)


def blocked(x: Array, pads: tuple[int, int, int, int] = (0, 0, 0, 0), fill: int = 0, tail: int = 0, fold: int = 1) -> Array:
    """Values int8 [1, channels, height, width] as activations [rows, groups, width, 8], with margins; of each line first all
    columns that ``fold`` divides, then those with a remainder of 1, and so on."""
    _, channels, _, _ = x.shape
    top, bottom, left, right = pads
    x = np.pad(x[0], ((0, -channels % GROUP), (0, 0), (0, 0)))
    x = np.pad(x, ((0, 0), (top, bottom), (left, right + tail)), constant_values=fill)
    x = np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % fold)), constant_values=fill)
    x = x.reshape(*x.shape[:2], -1, fold).swapaxes(2, 3).reshape(x.shape)
    return np.ascontiguousarray(x.reshape(-1, GROUP, *x.shape[1:]).transpose(2, 0, 3, 1))


def folded(column: int, width: int, fold: int) -> int:
    """Where a column of a line stands."""
    return column % fold * (width // fold) + column // fold


def make_packet(operation: int, counts: Array, offsets: Array, blocks: Array, rescale: tuple[Array, ...], **words: int) -> Packet:
    """A packet whose per-channel numbers are padded to groups; header words that aren't given are those of one whole part."""
    groups = len(counts)
    bias, multiplier, residual, shift = (padded(one, groups) for one in rescale)
    first, last, terms = (words.get(name, 1) for name in ("first", "last", "terms"))
    size = packet_size(operation, groups, len(offsets), bool(first), bool(last), terms)
    header = Header(**{**{field.name: 0 for field in fields(Header)}, "steps": 1, "terms": 1, "results": 1, "first": 1, "last": 1,
                       "low": -128, "high": 127, "operation": operation, "groups": groups,
                       "size": size, **words})
    table = np.zeros(256 if operation == TABLE else 0, np.int8)
    return Packet(header, counts.astype(np.uint16), offsets.astype(np.uint16), blocks.astype(np.int8), bias, multiplier, residual,
                  shift, table)


def padded(values: Array, groups: int) -> Array:
    values = np.asarray(values).reshape(-1)
    return np.pad(values, (0, groups * GROUP - len(values))).reshape(groups, GROUP).astype(np.int32)


def whole_weight(weight: Array, groups: int) -> Array:
    """A grouped convolution's weight as one over all channels, padded to groups of 8: [outputs, inputs, kh, kw]."""
    outputs, inputs, *kernel = weight.shape
    found = np.zeros((outputs + -outputs % GROUP, inputs * groups + -(inputs * groups) % GROUP, *kernel), np.int8)
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        found[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return found


def taps_of(weight: Array, width: int, dilation: tuple[int, int], groups: range, fold: int = 1) -> tuple[Array, Array, Array]:
    """Counts, offsets and blocks of a whole weight's part that reads the input groups ``groups``, of lines that wide."""
    outputs, _, kh, kw = weight.shape
    counts, offsets, blocks = [], [], []
    for output in range(outputs // GROUP):
        before = len(offsets)
        for index, group in enumerate(groups):
            for y in range(kh):
                for x in range(kw):
                    block = weight[output * GROUP :, group * GROUP :, y, x][:GROUP, :GROUP]
                    if block.any():
                        offsets.append((y * dilation[0] * len(groups) + index) * width + folded(x * dilation[1], width, fold))
                        blocks.append(block.T)
        counts.append(len(offsets) - before)
    return np.array(counts), np.array(offsets), np.array(blocks).reshape(-1, GROUP, GROUP)


def random(draw: Callable, *shape: int, low: int = -128, high: int = 127) -> Array:
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return generator.integers(low, high + 1, shape, dtype=np.int8)


def _rescale(draw: Callable, channels: int, bound: int, terms: int = 1) -> Rescale:
    """Free scales, powers of two by channel, or one power of two for eight channels."""
    kind = draw(st.sampled_from(["free", "channel", "group"]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    exponents = np.log2(100 / bound) + generator.uniform(-1, 3, channels)
    if kind == "free":
        ratios = 2**exponents
    else:
        ratios = 2.0 ** np.round(exponents if kind == "channel" else np.repeat(exponents[::GROUP], GROUP)[:channels])
    ratios = np.minimum(ratios, 1.0)
    others = [np.full(channels, 2.0 ** -draw(st.integers(0, 2))) for _ in range(terms - 1)]
    found = rescaling([ratios, *others], [bound, 128][:terms])
    return Rescale(tuple(one.reshape(-1, 1, 1) for one in found.multipliers), found.shift.reshape(-1, 1, 1))


def _clamp(draw: Callable) -> tuple[int, int]:
    return draw(st.sampled_from([(-128, 127), (0, 127), (0, 96), (-50, 40)]))


@st.composite
def convolutions(draw: Callable) -> Layer:
    """Convolutions of all kinds, also grouped, strided, dilated, with zero blocks, a residual, and inputs in parts."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 16]))
    inputs, outputs = (groups * draw(st.integers(1, 20 if groups == 1 else 6)) for _ in range(2))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride, dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 3))), (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    rows, width = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 14, 16, 19, 36]))
    height, across = ((size - 1) * step + (taps - 1) * apart + 1 for size, step, taps, apart in
                      zip((rows, width), stride, kernel, dilation, strict=True))
    top, left = draw(st.integers(0, min(2, height - 1))), draw(st.integers(0, min(2, across - 1)))
    bottom, right = draw(st.integers(0, min(2, height - 1 - top))), draw(st.integers(0, min(2, across - 1 - left)))
    pads = (top, bottom, left, right)
    x = random(draw, 1, inputs, height - top - bottom, across - left - right)
    weight = random(draw, outputs, inputs // groups, *kernel, low=-127)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    keep = generator.random((-(-outputs // GROUP), -(-weight.shape[1] // GROUP))) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    weight *= np.repeat(np.repeat(keep, GROUP, 0), GROUP, 1)[:outputs, : weight.shape[1], None, None]
    bias = generator.integers(-5000, 5001, outputs).astype(np.int32)
    residual = [random(draw, 1, outputs, rows, width)] if draw(st.booleans()) else []
    low, high = _clamp(draw)
    rescale = _rescale(draw, outputs, 128 * 127 * weight[0].size + 5000, 1 + len(residual))
    attributes = {"stride": stride, "padding": pads, "padding_mode": "zeros", "dilation": dilation, "groups": groups}
    node = QuantizedNode("node", "conv2d", ("x", "residual")[: 1 + len(residual)], (1, outputs, rows, width), attributes,
                         weight, bias, np.ones(outputs), rescale, low=low, high=high)
    wide = blocked(x, pads, tail=draw(st.integers(0, 2)), fold=stride[1])
    whole = whole_weight(weight, groups)
    parts = draw(st.integers(1, min(3, wide.shape[1])))
    cuts = np.linspace(0, wide.shape[1], parts + 1).astype(int)
    packets, activations = [], []
    for part, (begin, end) in enumerate(pairwise(cuts)):
        last = part == parts - 1
        taps = taps_of(whole, wide.shape[2], dilation, range(begin, end), stride[1])
        packets.append(make_packet(
            PRODUCT, *taps, (bias, *_channels(rescale, outputs, len(residual))), terms=1 + (len(residual) if last else 0),
            results=int(last), rows=rows, width=width, input_groups=int(end - begin), input_width=wide.shape[2],
            stride=stride[0], first=int(part == 0), last=int(last), low=low, high=high))
        activations.append(_joined(*[blocked(one) for one in residual if last], wide[:, begin:end]))
    return Layer(node, (x, *residual), tuple(packets), tuple(activations))


def _joined(*parts: Array) -> Array:
    """One object: a residual, if there is one, then activations."""
    return np.concatenate([part.reshape(-1) for part in parts])


def _channels(rescale: Rescale, channels: int, residuals: int) -> tuple[Array, Array, Array]:
    """Multipliers of sums and residual, and shifts: one of each a channel."""
    def flat(values: Array) -> Array:
        return np.broadcast_to(np.asarray(values).reshape(-1), channels)
    return flat(rescale.multipliers[0]), flat(rescale.multipliers[1]) if residuals else np.zeros(channels, int), flat(rescale.shift)


def _own_channel(groups: int, width: int, kernel: tuple[int, int] = (1, 1), fold: int = 1) -> tuple[Array, Array, Array]:
    """Taps that read a window of the group's own channels."""
    offsets = [(y * groups + group) * width + folded(x, width, fold)
               for group in range(groups) for y in range(kernel[0]) for x in range(kernel[1])]
    return np.full(groups, kernel[0] * kernel[1]), np.array(offsets), np.zeros((0, GROUP, GROUP))


@st.composite
def pools(draw: Callable) -> Layer:
    """Max and average pools, padded where the window sees that."""
    channels, kernel = draw(st.integers(1, 20)), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    rows, width = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 4, 5, 7, 9, 16, 18]))
    height, across = ((size - 1) * step + taps for size, step, taps in zip((rows, width), stride, kernel, strict=True))
    pads = (int(height > 1 and kernel[0] > 1), 0, int(across > 1 and kernel[1] > 1), 0)
    x = random(draw, 1, channels, height - pads[0], across - pads[2])
    low, high = _clamp(draw)
    words = {"rows": rows, "width": width, "stride": stride[0], "low": low, "high": high}
    average = draw(st.booleans())
    wide = blocked(x, pads, 0 if average else -128, fold=stride[1])
    taps = _own_channel(wide.shape[1], wide.shape[2], kernel, stride[1])
    words |= {"input_groups": wide.shape[1], "input_width": wide.shape[2]}
    shape, attributes = (1, channels, rows, width), {"kernel": kernel, "stride": stride, "padding": pads}
    if average:
        rescale = _rescale(draw, channels, 128 * kernel[0] * kernel[1])
        attributes |= {"count_padding": pads, "divisor": 0}
        node = QuantizedNode("node", "average_pool2d", ("x",), shape, attributes, rescale=rescale, low=low, high=high)
        packet = make_packet(SUM, *taps, (np.zeros(channels), *_channels(rescale, channels, 0)), **words)
    else:
        node = QuantizedNode("node", "max_pool2d", ("x",), shape, {**attributes, "dilation": (1, 1)}, low=low, high=high)
        packet = make_packet(MAXIMUM, *taps, (np.zeros(0),) * 4, **words)
    return Layer(node, (x,), (packet,), (wide,))


@st.composite
def additions(draw: Callable) -> Layer:
    channels, rows, width = draw(st.integers(1, 20)), draw(st.integers(1, 4)), draw(st.sampled_from([1, 3, 4, 6, 8, 21]))
    x, y = random(draw, 1, channels, rows, width), random(draw, 1, channels, rows, width)
    (low, high), rescale = _clamp(draw), _rescale(draw, channels, 128, 2)
    node = QuantizedNode("node", "add", ("x", "y"), x.shape, rescale=rescale, low=low, high=high)
    wide = blocked(x)
    taps = _own_channel(wide.shape[1], width)
    packet = make_packet(SUM, *taps, (np.zeros(channels), *_channels(rescale, channels, 1)), terms=2, rows=rows, width=width,
                         input_groups=wide.shape[1], input_width=width, stride=1, low=low, high=high)
    return Layer(node, (x, y), (packet,), (_joined(blocked(y), wide),))


@st.composite
def tables(draw: Callable) -> Layer:
    channels, rows, width = draw(st.integers(1, 20)), draw(st.integers(1, 4)), draw(st.sampled_from([1, 3, 4, 6, 8, 21]))
    x, table = random(draw, 1, channels, rows, width), random(draw, 256)
    node = QuantizedNode("node", "table", ("x",), x.shape, table=table)
    wide = blocked(x)
    packet = make_packet(TABLE, *_own_channel(wide.shape[1], width), (np.zeros(0),) * 4, rows=rows, width=width,
                         input_groups=wide.shape[1], input_width=width, stride=1)
    return Layer(node, (x,), (replace(packet, table=table),), (wide,))


LAYERS = {"convolution": convolutions(), "pool": pools(), "addition": additions(), "table": tables()}
