"""Small float64 graphs for the tests of passes: a builder, and a generator of networks full of what passes look for."""

from __future__ import annotations

import numpy as np

from zellige.graph.ir import Graph
from zellige.graph.operators import make_node
from zellige.graph.reference import run_reference
from zellige.graph.verify import verify_graph


class Build:
    """Makes a graph one call at a time: ``b("conv2d", x, b.random(4, 3, 3, 3), stride=(2, 2))`` names its result."""

    def __init__(self, *shape: int, seed: int = 0, dtype: str = "float64") -> None:
        self.numbers = np.random.default_rng(seed)
        self.dtype = dtype
        self.graph = Graph("small", {}, {}, ())
        self.x = self.input(*shape) if shape else ""

    def input(self, *shape: int) -> str:
        name = f"x{len(self.graph.inputs)}"
        self.graph.constants["probe"] = np.empty(shape, self.dtype)
        self.graph.inputs[name] = self.graph.type_of("probe")
        del self.graph.constants["probe"]
        return name

    def constant(self, value: object) -> str:
        name = f"c{len(self.graph.constants)}"
        self.graph.constants[name] = np.asarray(value, self.dtype)
        return name

    def random(self, *shape: int) -> str:
        return self.constant(self.numbers.standard_normal(shape))

    def positive(self, *shape: int) -> str:
        return self.constant(self.numbers.uniform(0.5, 2, shape))

    def __call__(self, op: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        types = [self.graph.type_of(one) for one in inputs]
        node = make_node(name or f"{op}_{len(self.graph.nodes)}", op, inputs, types, attributes, origin="net.part")
        self.graph.nodes[node.name] = node
        return node.name

    def activation(self, x: str, function: str, **parameters: object) -> str:
        return self("activation", x, function=function, **parameters)

    def norm(self, x: str) -> str:
        channels = self.shape(x)[1]
        return self("batch_norm", x, self.positive(channels), self.random(channels), self.random(channels),
                    self.positive(channels))

    def conv(self, x: str, outputs: int, kernel: int = 1, groups: int = 1, bias: bool = False,
             **attributes: object) -> str:
        weight = self.random(outputs, self.shape(x)[1] // groups, kernel, kernel)
        return self("conv2d", x, weight, *([self.random(outputs)] if bias else []), groups=groups, **attributes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.type_of(name).shape

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = outputs
        verify_graph(self.graph)
        return self.graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph]


def assert_same_results(before: Graph, after: Graph, seed: int = 1) -> None:
    """Both graphs are well formed, are called alike, and give the same numbers in float64."""
    verify_graph(after)
    assert after.inputs == before.inputs
    random = np.random.default_rng(seed)
    inputs = [random.standard_normal(kind.shape) for kind in before.inputs.values()]
    expected, came = run_reference(before, inputs), run_reference(after, inputs)
    assert len(expected) == len(came)
    for one, other in zip(expected, came, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(one).max())))


class Generator:
    """Networks made of motifs, each of which some pass should see, chosen and wired by chance."""

    def __init__(self, seed: int) -> None:
        self.numbers = np.random.default_rng(seed)
        self.b = Build(self.pick(1, 2), self.pick(4, 6), self.pick(5, 6), self.pick(5, 6), seed=seed)
        self.values = [self.b.x]

    def pick(self, *choices):
        return choices[self.numbers.integers(len(choices))]

    def network(self, length: int) -> Graph:
        motifs = [getattr(self, name) for name in dir(self) if name.startswith("make_")]
        for _ in range(length):
            x = self.pick(*self.values[-3:], *self.values)
            if len(self.b.shape(x)) == 4:
                made = self.pick(*motifs)(x)
                if made is not None:
                    self.values.append(made)
        nodes = [name for name in self.values if name in self.b.graph.nodes] or [self.b.activation(self.b.x, "relu")]
        outputs = [nodes[-1], *(name for name in nodes if self.numbers.random() < 0.1)]
        return self.b.done(*outputs)

    def make_conv(self, x):
        channels = self.b.shape(x)[1]
        groups = self.pick(1, 1, 2 if channels % 2 == 0 else 1, channels)
        size = self.b.shape(x)[2:]
        kernel = self.pick(1, 3) if min(size) >= 3 else 1
        mode = self.pick("zeros", "zeros", "zeros", "reflect", "replicate", "circular")
        pads = tuple(int(n) for n in self.numbers.integers(0, 2 if min(size) > 1 else 1, 4))
        return self.b.conv(x, groups * self.pick(2, 4), kernel, groups, self.pick(True, False), padding=pads,
                           padding_mode=mode, stride=(self.pick(1, 1, 2), 1))

    def make_norm(self, x):
        return self.b.norm(x)

    def make_conv_norm_relu(self, x):
        return self.b.activation(self.b.norm(self.make_conv(x)), "relu")

    def make_activation(self, x):
        function = self.pick("relu", "relu6", "silu", "hard_swish", "sigmoid", "tanh", "gelu", "hard_tanh")
        return self.b.activation(x, function)

    def make_clamp(self, x):
        return self.b.activation(x, "clamp", low=self.pick(0.0, -1.0), high=6.0)

    def make_gate(self, x):
        return self.b("multiply", *self.either(x, self.b.activation(x, self.pick("sigmoid", "hard_sigmoid", "tanh"))))

    def make_mish(self, x):
        gate = self.b.activation(self.b.activation(x, "softplus"), "tanh")
        return self.b("multiply", *self.either(x, gate))

    def make_hard_swish(self, x):
        gate = self.b.activation(self.b("add", *self.either(x, self.b.constant(3.0))), "relu6")
        product = self.b("multiply", *self.either(x, gate)) if self.pick(True, False) else gate
        if self.pick(True, False):
            return self.b("divide", product, self.b.constant(6.0))
        return self.b("multiply", *self.either(product, self.b.constant(1 / 6)))

    def make_residual(self, x):
        same = [value for value in self.values if self.b.shape(value) == self.b.shape(x)]
        return self.b("add", x, self.pick(*same))

    def make_residual_block(self, x):
        channels = self.b.shape(x)[1]
        inner = self.b.activation(self.b.norm(self.b.conv(x, 4)), "relu")
        outer = self.b.norm(self.b.conv(inner, channels, 3, padding=(1, 1, 1, 1)))
        shortcut = self.pick(x, self.b.norm(self.b.conv(x, channels)), self.b.activation(x, "tanh"))
        return self.b.activation(self.b("add", *self.either(outer, shortcut)), "relu")

    def make_preactivated_conv(self, x):
        return self.b.conv(self.b.norm(x), 4, self.pick(1, min(3, *self.b.shape(x)[2:])), bias=self.pick(True, False))

    def make_affine(self, x):
        channels = self.b.shape(x)[1]
        shape = self.pick((), (1,), (1, channels, 1, 1), (channels, 1, 1), (1, 1, 1, 1), self.b.shape(x))
        op = self.pick("add", "subtract", "multiply", "divide", "maximum", "minimum")
        operands = (x, self.b.positive(*shape))
        return self.b(op, *(operands if op == "divide" else self.either(*operands)))

    def make_neutral(self, x):
        op, value = self.pick(("add", 0.0), ("multiply", 1.0), ("divide", 1.0), ("subtract", 0.0), ("maximum", 0.0))
        return self.b(op, x, self.b.constant(value))

    def make_pad(self, x):
        mode = self.pick("zeros", "zeros", "constant", "constant", "replicate")
        least = -1 if min(self.b.shape(x)[2:]) > 3 and self.pick(True, False) else 0
        pads = tuple(int(n) for n in self.numbers.integers(least, 3, 4))
        return self.b("pad", x, padding=pads, mode=mode, value=self.pick(0.0, 1.5))

    def make_max_pool(self, x):
        padded = self.b("pad", x, padding=(0, 1, 1, 0), mode="constant", value=float("-inf"))
        return self.b("max_pool2d", padded, kernel=(2, 2), stride=(self.pick(1, 2), 1), padding=(0, 0, 0, 1))

    def make_average_pool(self, x):
        if min(self.b.shape(x)[2:]) < 2:
            return self.b("average_pool2d", x, kernel=(1, 1), divisor=self.pick(0, 1, 3))
        counted = tuple(int(n) for n in self.numbers.integers(0, 2, 4))
        return self.b("average_pool2d", x, kernel=(2, 2), stride=(1, 2), padding=(1, 1, 1, 1), count_padding=counted,
                      divisor=self.pick(0, 0, 3))

    def make_whole_pool(self, x):
        return self.b(self.pick("average_pool2d", "max_pool2d"), x, kernel=self.b.shape(x)[2:])

    def make_adaptive(self, x):
        size = (self.pick(1, 2, 3, self.b.shape(x)[2]), self.pick(1, 2, 3, self.b.shape(x)[3]))
        return self.b(self.pick("adaptive_average_pool2d", "adaptive_max_pool2d"), x, size=size)

    def make_squeeze_excitation(self, x):
        n, c, h, w = self.b.shape(x)
        spelling = self.pick("plain", "steps", "flat", "turned", "pool")
        if spelling == "plain":
            mean = self.b("mean", x, dimensions=(2, 3), keep=self.pick(True, False))
        elif spelling == "steps":
            keep = self.pick(True, False)
            mean = self.b("mean", self.b("mean", x, dimensions=(3,), keep=keep), dimensions=(2,), keep=keep)
        elif spelling == "flat":
            flat = self.b("reshape", x, shape=(n, c, h * w))
            mean = self.b("mean", flat, dimensions=(2,), keep=self.pick(True, False))
        elif spelling == "turned":
            turned = self.b("transpose", x, order=(0, 2, 3, 1))
            mean = self.b("mean", turned, dimensions=(1, 2), keep=self.pick(True, False))
        else:
            mean = self.b("adaptive_average_pool2d", x, size=(1, 1))
        vector = self.b("reshape", mean, shape=(n, c))
        hidden = self.b("linear", vector, self.b.random(c, c), *([self.b.random(c)] if self.pick(True, False) else []))
        if self.pick(True, False):
            hidden = self.b.norm(hidden)
        if self.pick(True, False):
            hidden = self.b("multiply", hidden, self.b.positive(c))
        gate = self.b("reshape", self.b.activation(hidden, "sigmoid"), shape=(n, c, 1, 1))
        return self.b("multiply", *self.either(x, gate))

    def make_shuffle(self, x):
        n, c, h, w = self.b.shape(x)
        if c % 2:
            return None
        split = self.b("reshape", x, shape=(n, 2, c // 2, h, w))
        turned = self.b("transpose", split, order=self.pick((0, 2, 1, 3, 4), (0, 2, 1, 3, 4), (0, 1, 2, 3, 4)))
        return self.b("reshape", turned, shape=(n, c, h, w))

    def make_no_change(self, x):
        shape = self.b.shape(x)
        flat = self.b("reshape", x, shape=(shape[0], int(np.prod(shape[1:]))))
        back = self.b("reshape", flat, shape=shape)
        turned = self.b("transpose", self.b("transpose", back, order=(0, 2, 3, 1)), order=(0, 3, 1, 2))
        whole = self.b("slice", turned, dimension=1, start=0, stop=shape[1])
        same = self.b("interpolate", whole, mode=self.pick("nearest", "bilinear"), size=shape[2:])
        return self.b("concat", same, dimension=1)

    def make_concat(self, x):
        same = [value for value in self.values if self.b.shape(value) == self.b.shape(x)]
        return self.b("concat", x, self.pick(*same), dimension=1)

    def make_slice(self, x):
        return self.b("slice", x, dimension=1, start=0, stop=max(1, self.b.shape(x)[1] // 2))

    def make_upsample(self, x):
        return self.b("interpolate", x, mode="nearest", size=tuple(min(8, 2 * n) for n in self.b.shape(x)[2:]))

    def make_computed_constant(self, x):
        twice = self.b("add", self.b.positive(1, self.b.shape(x)[1], 1, 1), self.b.constant(1.0))
        return self.b("multiply", x, self.b.activation(twice, "relu"))

    def make_prelu(self, x):
        return self.b("prelu", x, self.b.random(self.pick(1, self.b.shape(x)[1])))

    def make_twice(self, x):
        return self.b("add", self.b.activation(x, "sigmoid"), self.b.activation(x, "sigmoid"))

    def either(self, one, other):
        return (one, other) if self.numbers.random() < 0.5 else (other, one)
