"""Rewriting a graph by local rules: what most passes are made of.

`rewrite` walks the nodes in execution order and offers each to the rules of its operator. A rule looks at what made
the node's inputs, and answers with another node of the same name, with the name of a value that is the same as this
one, or with nothing. Reads are counted all along, and what nobody reads any more disappears, so that a rule can ask
whether it is the only reader of a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from zellige.errors import GraphError
from zellige.graph.ir import Attribute, Graph, Node
from zellige.graph.operators import make_node

Rule = Callable[["Rewriting", Node], "Node | str | None"]
Rules = Mapping[str, tuple[Rule, ...]]


def rewrite(graph: Graph, rules: Rules) -> Graph:
    """The graph after every rule has been offered every node of its operator, until no rule of that node applies.

    Nodes that already carry an epilogue are finished: they are offered to no rule, and rules don't see into them.
    """
    state = Rewriting(graph)
    for node in graph:
        state.visit(node, rules)
    return state.result()


class Rewriting:
    """A graph on the way from one form to the next: the nodes rewritten so far, and how often each name is read."""

    def __init__(self, graph: Graph) -> None:
        self.done = graph.with_nodes(())
        self.done.constants = self._constants = dict(graph.constants)
        self.reads: Counter[str] = Counter(graph.outputs)
        for node in graph:
            self.reads.update(node.operands)
        self._outputs = set(graph.outputs)
        self._same_as: dict[str, str] = {}
        self._taken = {*graph.inputs, *graph.nodes, *graph.constants}

    def producer(self, name: str, *ops: str) -> Node | None:
        """The node that makes a value, if it is one of these operators (any, if none is named) without an epilogue."""
        node = self.done.nodes.get(name)
        return node if node is not None and not node.epilogue and (not ops or node.op in ops) else None

    def constant(self, name: str) -> np.ndarray | None:
        return self.done.constants.get(name)

    def scalar(self, name: str) -> float | None:
        """The value of a constant with a single element."""
        array = self.constant(name)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def shape(self, name: str) -> tuple[int, ...]:
        return self.done.type_of(name).shape

    def only_reader(self, name: str) -> bool:
        """Whether the node that asks is alone in reading this value: then the value need not exist."""
        return self.reads[name] == 1

    def fresh(self, wish: str) -> str:
        """A name that nothing else has."""
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}.{count}"
        self._taken.add(name)
        return name

    def add_constant(self, wish: str, array: np.ndarray) -> str:
        name = self.fresh(wish)
        self._constants[name] = array
        return name

    def replace_constant(self, name: str, wish: str, array: np.ndarray) -> str:
        """Another value for a constant, under its own name if the node that asks is its only reader."""
        if not self.only_reader(name):
            return self.add_constant(wish, array)
        self._constants[name] = array
        return name

    def make(self, like: Node, op: str, inputs: Sequence[str], attributes: Mapping[str, Attribute] | None = None, *,
             name: str | None = None) -> Node:
        """A node with the name (unless told) and origin of another, its type inferred."""
        return make_node(like.name if name is None else name, op, inputs, [self.done.type_of(one) for one in inputs],
                         attributes, like.origin)

    def insert(self, wish: str, like: Node, op: str, inputs: Sequence[str],
               attributes: Mapping[str, Attribute] | None = None) -> str:
        """Puts one more node before the one under visit and gives its name."""
        node = self.make(like, op, inputs, attributes, name=self.fresh(wish))
        self.done.nodes[node.name] = node
        self.reads.update(node.operands)
        return node.name

    def update(self, node: Node) -> None:
        """Puts another node in the place of an earlier one of the same name."""
        before = self.done.nodes[node.name]
        self.done.nodes[node.name] = node
        self._recount(before.operands, node.operands)

    def visit(self, node: Node, rules: Rules) -> None:
        node = self._renamed(node)
        while (answer := self._ask(node, rules)) is not None:
            if isinstance(answer, str):
                self._forward(node, answer)
                return
            if (answer.name, answer.type) != (node.name, node.type):
                raise GraphError(f"a rewriting of {node.name} ({node.op}, {node.type}) gave {answer}")
            self._recount(node.operands, answer.operands)
            node = answer
        self.done.nodes[node.name] = node

    def result(self) -> Graph:
        used = {name: array for name, array in self.done.constants.items() if self.reads[name]}
        outputs = tuple(self._same_as.get(name, name) for name in self.done.outputs)
        return self.done.with_nodes(self.done, used, outputs)

    def _ask(self, node: Node, rules: Rules) -> Node | str | None:
        for rule in () if node.epilogue else rules.get(node.op, ()):
            answer = rule(self, node)
            if answer is not None and not self._must_stay(node, answer):
                return answer
        return None

    def _must_stay(self, node: Node, answer: Node | str) -> bool:
        """An output is always a node: what only passes an input or a constant on remains as it is."""
        return isinstance(answer, str) and node.name in self._outputs and answer not in self.done.nodes

    def _renamed(self, node: Node) -> Node:
        if not any(operand in self._same_as for operand in node.operands):
            return node
        epilogue = tuple(step if step.operand is None else replace(step, operand=self._name(step.operand))
                         for step in node.epilogue)
        return replace(node, inputs=tuple(map(self._name, node.inputs)), epilogue=epilogue)

    def _name(self, name: str) -> str:
        return self._same_as.get(name, name)

    def _forward(self, node: Node, name: str) -> None:
        """Lets all readers of a node read another value instead."""
        self._same_as[node.name] = name
        self.reads[name] += self.reads.pop(node.name, 0)
        if node.name in self._outputs:
            self._outputs.add(name)
        self._recount(node.operands, ())

    def _recount(self, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        self.reads.update(after)
        for name in before:
            self.reads[name] -= 1
            if self.reads[name] == 0 and name in self.done.nodes:
                self._recount(self.done.nodes.pop(name).operands, ())
