"""Generated networks in which every operator stands in every form: what a compiler must do right in any company.

The motifs of ``small_networks`` are what passes look for; to these come the forms of each operator that kernels, layouts and
the memory plan must get right: windows of any kind, every way to broadcast, moves along every dimension.
"""

from __future__ import annotations

import math

import numpy as np
from small_networks import Build, Generator

from zellige.graph.ir import Graph

MOST_ELEMENTS = 20_000


class OperatorGenerator(Generator):
    """``network(length)`` makes a float32 graph of about so many motifs, from an input with one of these ``channels`` and
    ``sizes``."""

    def __init__(self, seed: int, channels: tuple[int, ...] = (4, 6), sizes: tuple[int, ...] = (5, 6, 9)) -> None:
        self.numbers = np.random.default_rng(seed)
        shape = (self.pick(1, 2, 3), self.pick(*channels), self.pick(*sizes), self.pick(*sizes))
        self.b = Build(*shape, seed=seed, dtype="float32")
        self.values = [self.b.x]

    def network(self, length: int) -> Graph:
        graph = super().network(length)
        graph.input_tree = {"tuple": list(range(len(graph.inputs)))}
        graph.output_tree = {"list": list(range(len(graph.outputs)))}
        return graph

    def between(self, low: int, high: int) -> int:
        return int(self.numbers.integers(low, high + 1))

    def chance(self) -> bool:
        return bool(self.numbers.random() < 0.5)

    def like(self, x: str) -> str:
        """A value of the shape of ``x``."""
        return self.pick(*(value for value in self.values if self.b.shape(value) == self.b.shape(x)))

    def make_any_conv(self, x):
        _, c, *size = self.b.shape(x)
        groups = self.pick(1, 1, 2 if c % 2 == 0 else 1, c)
        kernel, dilation = (self.pick(1, 3, 5, 7, 1), self.pick(1, 3, 5, 2, 1)), (self.pick(1, 1, 2, 3), self.pick(1, 1, 2))
        pads = [self.between(0, 3) for _ in range(4)]
        for i in range(2):
            lacking = max(0, dilation[i] * (kernel[i] - 1) + 1 - size[i] - pads[2 * i] - pads[2 * i + 1])
            pads[2 * i] += lacking
        weight = self.b.random(groups * self.pick(1, 2, 3, 8, 9, 16), c // groups, *kernel)
        array = self.b.graph.constants[weight]
        array /= math.sqrt(array[0].size)
        if self.pick(True, False, False):
            array *= self.numbers.random((*array.shape[:2], 1, 1)) < 0.5
        bias = [self.b.random(len(array))] if self.chance() else []
        return self.b("conv2d", x, weight, *bias, groups=groups, stride=(self.pick(1, 1, 2, 3), self.pick(1, 2, 1, 3)),
                      dilation=dilation, padding=tuple(pads))

    def make_window(self, x):
        kernel = tuple(min(size, self.pick(1, 2, 3, 5)) for size in self.b.shape(x)[2:])
        pads = tuple(self.between(0, kernel[i // 2] // 2) for i in range(4))
        stride = (self.pick(1, 2, 3), self.pick(1, 2, 4))
        if self.chance():
            return self.b("max_pool2d", x, kernel=kernel, stride=stride, padding=pads)
        return self.b("average_pool2d", x, kernel=kernel, stride=stride, padding=pads,
                      count_padding=self.pick(pads, (0, 0, 0, 0)), divisor=self.pick(0, 0, 5))

    def make_any_activation(self, x):
        function, parameters = self.pick(
            ("leaky_relu", {}), ("elu", {}), ("selu", {}), ("celu", {"alpha": 0.5}), ("gelu", {"approximate": "tanh"}),
            ("mish", {}), ("hard_sigmoid", {}), ("softplus", {"beta": 2.0}), ("absolute", {}), ("negate", {}), ("square", {}),
            ("exp", {}), ("erf", {}), ("expm1", {}))
        y = self.b.activation(x, function, **parameters)
        return self.b.activation(y, "tanh") if function in ("square", "exp", "expm1") else y

    def make_softmax(self, x):
        return self.b(self.pick("softmax", "log_softmax"), x, dimension=self.between(0, 3))

    def make_reduction(self, x):
        """Over any dimensions, and back into the value that it came from."""
        count = self.between(1, 4)
        gone = tuple(sorted(self.numbers.choice(4, count, replace=False).tolist()))
        op = self.pick("mean", "sum")
        y = self.b(op, x, dimensions=gone, keep=self.chance())
        if op == "sum":         # of numbers that may cancel: scaled, so that their rounding stays small beside other values
            y = self.b("multiply", y, self.b.constant(1 / math.prod(self.b.shape(x)[i] for i in gone)))
        y = self.b.activation(y, "tanh") if self.chance() else y
        y = self.b("reshape", y, shape=tuple(1 if i in gone else size for i, size in enumerate(self.b.shape(x))))
        return self.b(self.pick("add", "multiply", "subtract", "maximum"), *self.either(x, y))

    def make_any_broadcast(self, x):
        n, c, h, w = self.b.shape(x)
        shape = self.pick((n, 1, h, w), (h, w), (w,), (1, 1, h, 1), (n, c, 1, 1), (c, h, 1), (n, 1, 1, w), (n, 1, 1, 1),
                          (1, c, 1, w))
        y = self.b.random(*shape)
        if self.chance():
            full = (1,) * (4 - len(shape)) + shape
            y = self.b("mean", self.like(x), dimensions=tuple(i for i in range(4) if full[i] == 1), keep=True)
        return self.b(self.pick("add", "subtract", "multiply", "maximum", "minimum"), *self.either(x, y))

    def make_quotient(self, x):
        divisor = self.b("add", self.b.activation(self.like(x), "sigmoid"), self.b.constant(0.5))
        return self.b("divide", self.pick(x, self.b.constant(1.0)), divisor)

    def make_choice(self, x):
        """The larger or the smaller of two values: where rounding decides between them, they are all but equal."""
        _, c, _, w = self.b.shape(x)
        other = self.pick(self.like(x), self.b.random(*self.pick((1,), (c, 1, 1), (w,))))
        return self.b("where", x, other, *self.either(x, other), comparison=self.pick("greater", "greater_equal"))

    def make_second_input(self, x):
        return self.b(self.pick("add", "maximum"), *self.either(x, self.b.input(*self.b.shape(x))))

    def make_any_transpose(self, x):
        y = self.b("transpose", x, order=tuple(self.numbers.permutation(4).tolist()))
        return self.b.activation(y, "tanh") if self.chance() else y

    def make_any_slice(self, x):
        dimension = self.between(0, 3)
        size = self.b.shape(x)[dimension]
        start = self.between(0, size - 1)
        return self.b("slice", x, dimension=dimension, start=start, stop=self.between(start + 1, size), step=self.pick(1, 1, 2, 3))

    def make_any_concat(self, x):
        """Parts of other extents along the dimension, the same part twice, constants among them."""
        dimension, shape = self.between(0, 3), self.b.shape(x)
        if np.prod(shape) > MOST_ELEMENTS:
            return None
        rest = shape[:dimension] + shape[dimension + 1:]
        beside = [value for value in self.values
                  if len(s := self.b.shape(value)) == 4 and s[:dimension] + s[dimension + 1:] == rest]
        parts = [x, self.pick(*beside), *([self.b.random(*shape)] if self.chance() else [])]
        return self.b("concat", *(parts if self.chance() else reversed(parts)), dimension=dimension)

    def make_any_pad(self, x):
        mode = self.pick("reflect", "replicate", "circular", "constant", "zeros")
        smallest = min(self.b.shape(x)[2:])
        least = -1 if smallest > 2 else 0
        pads = tuple(self.between(least, min(smallest - 1, 3)) for _ in range(4))
        return self.b("pad", x, padding=pads, mode=mode, value=1.5)

    def make_any_resize(self, x):
        mode = self.pick("nearest", "nearest_exact", "bilinear")
        return self.b("interpolate", x, mode=mode, size=(self.pick(1, 2, 3, 5, 7, 9), self.pick(1, 2, 4, 6, 9)),
                      align_corners=mode == "bilinear" and self.chance())

    def make_any_shuffle(self, x):
        return self.b("channel_shuffle", x, groups=self.pick(*(g for g in (1, 2, 3, 4) if self.b.shape(x)[1] % g == 0)))

    def make_regrouped(self, x):
        n, c, h, w = self.b.shape(x)
        shape = self.pick((n, c, w, h), (n, h, w, c), (1, n * c, h, w), (n * c, 1, h, w), (n, c, h * w, 1))
        return self.b("reshape", x, shape=shape)

    def make_linear_on_rows(self, x):
        outputs = self.pick(1, 3, 8, 17)
        bias = [self.b.random(outputs)] if self.chance() else []
        y = self.b("linear", x, self.b.random(outputs, self.b.shape(x)[3]), *bias)
        if self.chance():
            y = self.b("add", y, self.like(y) if y in self.values else self.b.random(*self.b.shape(y)))
        return self.b.activation(y, "tanh") if self.chance() else y

    def make_token_mixer(self, x):
        n, c, h, w = self.b.shape(x)
        tokens = self.b("transpose", self.b("reshape", x, shape=(n, c, h * w)), order=(0, 2, 1))
        tokens = self.b.activation(self.b("linear", tokens, self.b.random(c, c), self.b.random(c)), "gelu")
        back = self.b("reshape", self.b("transpose", tokens, order=(0, 2, 1)), shape=(n, c, h, w))
        return self.b("add", *self.either(back, x))

    def make_own_norm(self, x):
        """A normalisation over statistics of the value itself."""
        over = self.pick((1,), (2, 3), (1, 2, 3), (3,))
        centred = self.b("subtract", x, self.b("mean", x, dimensions=over, keep=True))
        spread = self.b("mean", self.b.activation(centred, "square"), dimensions=over, keep=True)
        return self.b("multiply", centred, self.b.activation(self.b("add", spread, self.b.constant(0.01)), "rsqrt"))
