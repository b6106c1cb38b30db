"""Where every value of a graph lies: layouts that fit all who read and write them, and values inside of others.

Values that meet pixel by pixel (source and target of a stride-1 convolution, the two sides of an addition, the parts of a
concatenation) must have rows of one length, and images as far apart; values that lie inside of one another must have the
same margins too. So values are put into classes first (union-find), each class gets the longest row or the widest margins
that one of its members needs, and only then does each value get its planes. Margins waste lanes, a seventh
of them in maps of 7 × 7: where the instruction set has masks, classes of small maps lie *flat*, without margins, and kernels mask
their taps. Concatenation happens in place: the parts are written into the planes of the whole. A slice of channels is a
view. Neither costs a copy, unless a part has another place already. A residual sum is written over the value that is added.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from zellige.cpu.calls import External, Place, Stored
from zellige.cpu.kernels.band import MASKED_TAPS
from zellige.cpu.kernels.depthwise import STEPS
from zellige.cpu.layout import Dense, Layout, Margins, Planes, planes
from zellige.errors import CompileError
from zellige.graph.ir import Graph, Node, TensorType

MEETS_PIXEL_BY_PIXEL = frozenset({"add", "subtract", "multiply", "divide", "maximum", "minimum", "scale_shift",
                                  "activation", "prelu", "concat", "slice"})
SHARE_BUFFERS = frozenset({"concat", "slice", "reshape"})  # their sources may lie in the same place
FLAT_WIDTH = 64  # of a class of flat maps at most; masks cost more than margins where rows are long
MOST_TAPS = 25  # of a filter that stays in registers, or nearly so
ROW_TAPS = (5, 8)  # of a row, at a stride of 2: fewer are not worth the transforms
MAXIMUM_ELEMENTS = 2**31 - 1  # tables hold 32-bit offsets


def is_map(kind: TensorType) -> bool:
    """Whether a value lies in planes: N × C × H × W of more than one pixel."""
    return len(kind.shape) == 4 and kind.shape[2] * kind.shape[3] > 1


def is_direct(graph: Graph, node: Node) -> bool:
    """Whether a convolution reads its source's planes as they are: others get planes of their own, staged for them."""
    kind = graph.type_of(node.inputs[0])
    return (node.op == "conv2d" and node.attributes["stride"] == (1, 1) and node.attributes["padding_mode"] == "zeros"
            and is_map(kind) and is_map(node.type))


def is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a convolution is one for the depthwise kernel, which reads its source's planes as they are, at a stride as well."""
    if node.op != "conv2d" or node.attributes["groups"] == 1 or node.attributes["padding_mode"] != "zeros":
        return False
    _, inputs, height, width = graph.type_of(node.inputs[1]).shape
    stride: Any = node.attributes["stride"]
    return (inputs == 1 and height * width <= MOST_TAPS and stride[1] in STEPS
            and is_map(graph.type_of(node.inputs[0])) and is_map(node.type))


def has_row_tiles(graph: Graph, node: Node) -> bool:
    """Whether a convolution is one for the row kernel, which needs no longer rows than its output has."""
    if node.op != "conv2d" or node.attributes["groups"] != 1 or node.attributes["dilation"] != (1, 1) or not is_map(node.type):
        return False
    stride: Any = node.attributes["stride"]
    return bool(stride[1] == 2 and ROW_TAPS[0] <= graph.type_of(node.inputs[1]).shape[3] <= ROW_TAPS[1])


def reads_planes(graph: Graph, node: Node) -> bool:
    """Whether a convolution needs margins around its source's own planes: others make planes of their own."""
    return is_direct(graph, node) or is_depthwise(graph, node)


def reach(node: Node, weight_shape: tuple[int, ...]) -> int:
    """How many columns past an output's own a staged convolution's taps look, in phase planes."""
    stride, dilation = node.attributes["stride"], node.attributes["dilation"]
    return int((weight_shape[3] - 1) * dilation[1] // stride[1])  # type: ignore[index,operator]


class Classes:
    """Names that share something: a union-find."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """The representative of the name's class."""
        while (parent := self._parents.get(name, name)) != name:
            name = parent
        return name

    def join(self, left: str, right: str) -> None:
        self._parents[self[right]] = self[left]


class Storage:
    """Places and layouts of all values of a graph; ``sizes`` are the elements of each buffer, ``views`` the values that lie
    inside of their sources. ``masks``: kernels can mask their taps, so that small maps may lie flat; ``winograd``: the row kernel
    may be used."""

    def __init__(self, graph: Graph, masks: bool, winograd: bool = True) -> None:
        self.graph, self._winograd = graph, winograd
        self.sizes: dict[str, int] = {}
        self.layouts: dict[str, Layout] = {}
        self.views: set[str] = set()
        self._stored: dict[str, Stored] = {}
        self._same_rows, self._same_planes = self._find_classes()
        self._rows: dict[str, int] = {}
        self._gaps: dict[str, int] = {}
        self._margins: dict[str, Margins] = {}
        self._flat = self._find_flat() if masks else set()
        self._readers = graph.consumers()
        self._collect_needs()
        self._place_inputs()
        self._place_concats()

    def __getitem__(self, name: str) -> Stored:
        if name not in self._stored:
            self._stored[name] = self._place(name)
        return self._stored[name]

    def is_part(self, part: str, whole: str, offset: int) -> bool:
        """Whether a value already lies where a concatenation along channels needs it."""
        here, there = self[part], self[whole]
        return (isinstance(here.place, Place) and isinstance(there.place, Place) and here.place.buffer == there.place.buffer
                and here.place.offset == there.place.offset + offset)

    def reserve(self, buffer: str, layout: Layout) -> Stored:
        """A new buffer for a layout, with a name that no other one has."""
        if layout.elements > MAXIMUM_ELEMENTS:
            raise CompileError(f"{buffer} of {layout.elements} elements is larger than {MAXIMUM_ELEMENTS}: "
                               "use a smaller batch or input")
        while buffer in self.sizes:
            buffer = f"{buffer} again"
        self.sizes[buffer], self.layouts[buffer] = layout.elements, layout
        return Stored(Place(buffer, layout.head), layout)

    def layout(self, name: str) -> Layout:
        """The layout of a value that has a buffer to itself."""
        kind = self.graph.type_of(name)
        if not is_map(kind):
            return Dense(kind.shape)
        images, channels, height, width = kind.shape
        margins = self._margins.get(self._same_planes[name], Margins())
        shared = self._same_rows[name]
        return planes(images, channels, height, width, margins, self._rows[shared], self._gaps.get(shared, 0))

    def is_flat(self, name: str) -> bool:
        """Whether a value's rows are no longer than the widest map of its class."""
        return self._same_rows[name] in self._flat

    # Classes

    def _find_classes(self) -> tuple[Classes, Classes]:
        """Which values have rows of one length, and which of them lie in the planes of one buffer."""
        rows, buffers = Classes(), Classes()
        for node in self.graph:
            if not is_map(node.type):
                continue
            direct = is_direct(self.graph, node)
            beside = node.inputs[:1] if direct else node.inputs if node.op in MEETS_PIXEL_BY_PIXEL else ()
            for operand in (*beside, *(step.operand for step in node.epilogue if step.operand is not None)):
                kind = self.graph.type_of(operand)
                if is_map(kind) and (direct or kind.shape[2:] == node.type.shape[2:]):
                    rows.join(operand, node.name)
                    if node.op in ("concat", "slice"):
                        buffers.join(operand, node.name)
        return rows, buffers

    def _find_flat(self) -> set[str]:
        """The classes of small maps that nobody reads who needs margins."""
        maps = [name for name in (*self.graph.inputs, *self.graph.nodes) if is_map(self.graph.type_of(name))]
        wide = {self._same_rows[name] for name in maps if self.graph.type_of(name).shape[3] > FLAT_WIDTH}
        read = {self._same_rows[node.inputs[0]] for node in self.graph
                if is_depthwise(self.graph, node) or self._has_many_taps(node)}
        return {self._same_rows[name] for name in maps} - wide - read

    def _has_many_taps(self, node: Node) -> bool:
        """Whether a convolution reads its source's planes at more taps than can be masked."""
        return is_direct(self.graph, node) and math.prod(self.graph.type_of(node.inputs[1]).shape[2:]) > MASKED_TAPS

    def _collect_needs(self) -> None:
        """The row length and the margins that each class needs."""
        for name in (*self.graph.inputs, *self.graph.nodes):
            if is_map(kind := self.graph.type_of(name)):
                self._lengthen(name, kind.shape[3])
        for node in self.graph:
            if node.op != "conv2d" or not is_map(node.type):
                continue
            source = node.inputs[0]
            if not reads_planes(self.graph, node):
                if not self.is_flat(node.name) and not (self._winograd and has_row_tiles(self.graph, node)):
                    self._lengthen(node.name, node.type.shape[3] + reach(node, self.graph.type_of(node.inputs[1]).shape))
            elif not self.is_flat(source):
                margins, buffer = Margins(*node.attributes["padding"]), self._same_planes[source]  # type: ignore[misc]
                self._margins[buffer] = self._margins.get(buffer, Margins()).union(margins)
                self._lengthen(source, self.graph.type_of(source).shape[3] + max(margins.left, margins.right))
                shared = self._same_rows[source]
                self._gaps[shared] = max(self._gaps.get(shared, 0), margins.top, margins.bottom)

    def _lengthen(self, name: str, row: int) -> None:
        shared = self._same_rows[name]
        self._rows[shared] = max(self._rows.get(shared, 0), row)

    # Places

    def external(self, name: str) -> Stored:
        """The caller's array of an input."""
        return Stored(External("input", list(self.graph.inputs).index(name)), Dense(self.graph.inputs[name].shape))

    def _place_inputs(self) -> None:
        """An input that only staged convolutions read stays where the caller has it; others are copied into the arena."""
        for name in self.graph.inputs:
            nodes = [self.graph.nodes[reader] for reader in self._readers[name]]
            staged = all(node.op == "conv2d" and is_map(node.type) and not reads_planes(self.graph, node)
                         and name not in node.operands[1:] for node in nodes)
            if staged and name not in self.graph.outputs:
                self._stored[name] = self.external(name)

    def _place(self, name: str) -> Stored:
        node = self.graph.nodes.get(name)
        if node is None or node.inputs[0] in self.graph.constants:
            return self.reserve(name, self.layout(name))
        view = self._slice(node) if node.op == "slice" else self._reshape(node) if node.op == "reshape" else None
        if view is None:
            return self._over_operand(node) or self.reserve(name, self.layout(name))
        self.views.add(name)
        return view

    def _slice(self, node: Node) -> Stored | None:
        """A run of channels, as a view of the planes it is cut from."""
        source = self[node.inputs[0]]
        if node.attributes["dimension"] != 1 or node.attributes["step"] != 1 or not isinstance(source.layout, Planes):
            return None
        assert isinstance(source.place, Place)
        layout = replace(source.layout, channels=node.type.shape[1])
        return Stored(source.place + int(node.attributes["start"]) * layout.plane, layout)  # type: ignore[arg-type]

    def _reshape(self, node: Node) -> Stored | None:
        """A dense value under another shape."""
        source = self[node.inputs[0]]
        if isinstance(source.layout, Planes) or is_map(node.type) or isinstance(source.place, External):
            return None
        return Stored(source.place, Dense(node.type.shape))

    def _over_operand(self, node: Node) -> Stored | None:
        """The place of a value that a convolution adds, if it lies alike and nobody reads it afterwards: each of its elements is
        read where the sum with it is written, so the caches have that line."""
        if node.op != "conv2d" or not is_map(node.type):
            return None
        for operand in dict.fromkeys(step.operand for step in node.epilogue if step.operand is not None):
            if (operand in self.graph.nodes and operand not in (*node.inputs, *self.graph.outputs)
                    and self._readers[operand][-1] == node.name
                    and not {self.graph.nodes[name].op for name in (operand, *self._readers[operand])} & SHARE_BUFFERS
                    and self.layout(node.name) == self[operand].layout):
                return self[operand]
        return None

    def _place_concats(self) -> None:
        """Give the parts of concatenations their places, the largest whole first: smaller ones may be parts of it."""
        wholes = [node for node in self.graph if node.op == "concat" and node.attributes["dimension"] == 1 and is_map(node.type)]
        wholes.sort(key=lambda node: -node.type.shape[1])
        for whole in wholes:
            if whole.name not in self._stored:
                self._stored[whole.name] = self._prefix(whole) or self.reserve(whole.name, self.layout(whole.name))
            stored = self._stored[whole.name]
            assert isinstance(stored.layout, Planes) and isinstance(stored.place, Place)
            channel = 0
            for part in whole.inputs:
                channels = self.graph.type_of(part).shape[1]
                if part not in self._stored and self._writes(part):
                    place = stored.place + channel * stored.layout.plane
                    self._stored[part] = Stored(place, replace(stored.layout, channels=channels))
                channel += channels

    def _writes(self, name: str) -> bool:
        """Whether a value is written by its node, and so can be written anywhere."""
        return name in self.graph.nodes and self.graph.nodes[name].op not in ("slice", "reshape")

    def _prefix(self, whole: Node) -> Stored | None:
        """A concatenation whose parts lie side by side already, as in DenseNet, is a view of them."""
        if any(part not in self._stored for part in whole.inputs):
            return None
        stored = [self._stored[part] for part in whole.inputs]
        first = stored[0]
        if not isinstance(first.layout, Planes) or not isinstance(first.place, Place):
            return None
        expected = first.place
        for part in stored:
            if part.place != expected or not isinstance(part.layout, Planes):
                return None
            expected = expected + part.layout.channels * first.layout.plane
        return Stored(first.place, replace(first.layout, channels=whole.type.shape[1]))
