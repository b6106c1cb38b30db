"""Epilogues: an activation or a residual addition moves into the node that makes its operand.

The value is then changed while it is still in registers, and a pass over memory is gone. The chain goes by the name of
its first node, since reports name layers by their convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zellige.graph.ir import Fused, Graph, Node

# Which operators can apply which steps before they store their result.
EPILOGUE_HOSTS: Mapping[str, tuple[str, ...]] = {
    "conv2d": ("add", "activation"), "linear": ("add", "activation"), "add": ("activation",),
    "multiply": ("activation",), "scale_shift": ("activation",), "max_pool2d": ("activation",),
    "average_pool2d": ("activation",),
}
MOST_ADDS = 1


def fuse_epilogues(graph: Graph) -> Graph:
    """Moves activations and additions of a value of the same shape into the node before them, where that node's table
    row allows it, the result between is read by nothing else, and is no output.
    """
    fusion = _Fusion(graph)
    for position, node in enumerate(graph):
        fusion.visit(node, position)
    return fusion.result()


class _Fusion:
    """The graph under fusion. ``place`` orders nodes: it is the position of the node itself, or, if it had to wait for
    the other operand of an addition, the position where that addition stood.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, Node] = {}
        self.place = dict.fromkeys((*graph.inputs, *graph.constants), -1)
        self.readers = {name: set(readers) for name, readers in graph.consumers().items()}
        self.outputs = set(graph.outputs)
        self.now_called: dict[str, str] = {}

    def visit(self, node: Node, position: int) -> None:
        node = self._renamed(node)
        candidates = self._candidates(node)
        if candidates:
            self._fuse(*candidates[0], node, position)
        else:
            self.nodes[node.name] = node
            self.place[node.name] = position

    def result(self) -> Graph:
        ordered = sorted(self.nodes.values(), key=lambda node: self.place[node.name])
        return self.graph.with_nodes(ordered, outputs=tuple(map(self._name, self.graph.outputs)))

    def _candidates(self, node: Node) -> list[tuple[Node, Fused]]:
        """The nodes that could take this one as a step, the latest first: it has nothing to wait for."""
        if node.epilogue or node.op not in ("activation", "add"):
            return []
        if node.op == "activation":
            wishes = [(node.inputs[0], Fused("activation", node.attributes))]
        else:
            wishes = [(one, Fused("add", operand=other)) for one, other in (node.inputs, node.inputs[::-1])]
        possible = [(self.nodes[name], step) for name, step in wishes if self._takes(name, step, node)]
        return sorted(possible, key=lambda pair: -self.place[pair[0].name])

    def _takes(self, name: str, step: Fused, node: Node) -> bool:
        host = self.nodes.get(name)
        if host is None or step.op not in EPILOGUE_HOSTS.get(host.op, ()) or name in self.outputs:
            return False
        if self.readers[name] != {node.name} or host.type != node.type or step.operand == name:
            return False
        if step.operand is None:
            return True
        adds = sum(earlier.op == "add" for earlier in host.epilogue)
        return adds < MOST_ADDS and self._type(step.operand) == host.type

    def _type(self, name: str) -> object:
        return self.nodes[name].type if name in self.nodes else self.graph.type_of(name)

    def _fuse(self, host: Node, step: Fused, node: Node, position: int) -> None:
        self.nodes[host.name] = replace(host, epilogue=(*host.epilogue, step))
        self.now_called[node.name] = host.name
        self.readers[host.name] = self.readers[node.name]
        if node.name in self.outputs:
            self.outputs.add(host.name)
        if step.operand is not None:
            self.readers[step.operand].discard(node.name)
            self.readers[step.operand].add(host.name)
            if self.place[step.operand] > self.place[host.name]:
                self.place[host.name] = position

    def _renamed(self, node: Node) -> Node:
        epilogue = tuple(step if step.operand is None else replace(step, operand=self._name(step.operand))
                         for step in node.epilogue)
        return replace(node, inputs=tuple(map(self._name, node.inputs)), epilogue=epilogue)

    def _name(self, name: str) -> str:
        return self.now_called.get(name, name)
