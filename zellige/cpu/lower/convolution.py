"""A convolution as its node has it: what all of its paths begin with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.lower.lowering import Lowering
from zellige.graph.ir import Node


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution's sizes and weights, read once from its node."""

    node: Node
    weight: np.ndarray
    bias: np.ndarray
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def macs(self) -> int:
        images, _, height, width = self.node.type.shape
        return images * height * width * int(np.prod(self.weight.shape))


def read_convolution(lowering: Lowering, node: Node) -> Convolution:
    weight = lowering.constant(node.inputs[1])
    bias = lowering.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    attributes = node.attributes
    return Convolution(node, weight, bias, attributes["stride"], attributes["dilation"],  # type: ignore[arg-type]
                       attributes["padding"], attributes["groups"])  # type: ignore[arg-type]
