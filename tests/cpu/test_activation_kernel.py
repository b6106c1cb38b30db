"""Every activation against float64 formulas that do not cancel, over the whole range of f32."""

import math

import numpy as np
import pytest
from kernel_harness import NATIVE, check_assembly, run_kernel

from zellige.cpu.kernels.activation import ACTIVATIONS
from zellige.cpu.kernels.elementwise import FULL, ElementwiseKernel
from zellige.cpu.kernels.epilogue import activation
from zellige.cpu.layout import Dense
from zellige.cpu.tables.elementwise import elementwise_work

SMALLEST_STEP = 2.0 ** -149
ABSOLUTE = 2e-43  # what an exponential that is subnormal has lost, times an argument around −100
SHORT = {"sigmoid": 3.1e-39, "silu": 3e-37}  # of functions that stop falling at −88.7: their value there

erf, erfc = (np.vectorize(function, otypes=[float]) for function in (math.erf, math.erfc))


def sigmoid(x):
    return np.where(x > 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x)))


def softplus(x, beta=1.0, threshold=20.0):
    z = x * beta
    return np.where(z > threshold, x, (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta)


def expm1(x, alpha=1.0, inner=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / inner))


def mish(x):
    n = np.exp(np.minimum(x, 40)) * (np.exp(np.minimum(x, 40)) + 2)
    return x * (n / (n + 2))


CASES = {
    ("relu",): lambda x: np.maximum(x, 0),
    ("relu6",): lambda x: np.clip(x, 0, 6),
    ("clamp", ("low", -0.3), ("high", 2.5)): lambda x: np.clip(x, np.float32(-0.3), 2.5),
    ("clamp", ("low", 1.0)): lambda x: np.maximum(x, 1),
    ("hard_tanh",): lambda x: np.clip(x, -1, 1),
    ("leaky_relu",): lambda x: np.where(x > 0, x, np.float32(0.01) * x),
    ("leaky_relu", ("slope", -1.5)): lambda x: np.where(x > 0, x, -1.5 * x),
    ("elu",): expm1,
    ("elu", ("alpha", 0.75)): lambda x: expm1(x, 0.75),
    ("selu",): lambda x: 1.0507009873554805 * expm1(x, 1.6732632423543772),
    ("celu", ("alpha", 0.5)): lambda x: expm1(x, 0.5, 0.5),
    ("gelu",): lambda x: x * (0.5 * erfc(-x / math.sqrt(2))),
    ("gelu", ("approximate", "tanh")): lambda x: x * sigmoid(math.sqrt(8 / math.pi) * x * (1 + 0.044715 * x * x)),
    ("silu",): lambda x: np.where(np.isneginf(x), 0, x * sigmoid(x)),
    ("mish",): mish,
    ("sigmoid",): sigmoid,
    ("hard_sigmoid",): lambda x: np.clip(x + 3, 0, 6) / 6,
    ("hard_swish",): lambda x: x * (np.clip(x + 3, 0, 6) / 6),
    ("tanh",): np.tanh,
    ("softplus",): softplus,
    ("softplus", ("beta", 2.0), ("threshold", 5.0)): lambda x: softplus(x, 2.0, 5.0),
    ("exp",): np.exp,
    ("expm1",): np.expm1,
    ("log",): np.log,
    ("log1p",): np.log1p,
    ("sqrt",): np.sqrt,
    ("rsqrt",): lambda x: 1 / np.sqrt(x),
    ("reciprocal",): lambda x: 1 / x,
    ("absolute",): np.abs,
    ("negate",): np.negative,
    ("sign",): lambda x: np.where(np.isnan(x), 0, np.sign(x)),
    ("square",): np.square,
    ("erf",): erf,
    **{("power", ("exponent", e)): lambda x, e=e: np.power(x, e)
       for e in (0.0, 1.0, 2.0, 3.0, 4.0, 0.5, -1.0, -2.0, 5.0, -3.0, 17.0, 1.5, 1 / 3, 2.7, -0.37)},
    ("power", ("exponent", -0.5)): lambda x: 1 / np.sqrt(x),
}


def points() -> np.ndarray:
    """Every 40,009th of all f32 numbers (all exponents), a dense grid where functions bend, and the special values."""
    spread = np.arange(0, 2 ** 32, 40_009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.concatenate([np.linspace(-110, 110, 60_001), np.linspace(-4, 4, 20_001), np.linspace(0.5, 2, 10_001)])
    special = [np.inf, -np.inf, np.nan, 0.0, -0.0, 88.0, -88.0, 88.7228, 88.7229, 89.0, -103.97, -104.0, -104.1, 1.0, -1.0,
               SMALLEST_STEP, -SMALLEST_STEP, 2.0 ** -126, 3.4028235e38]
    return np.concatenate([spread, near.astype(np.float32), np.array(special, np.float32)])


def apply(function, parameters, x, isa):
    layout = Dense(x.shape)
    kinds, work = elementwise_work(layout, [layout], lanes=isa.lanes)
    kernel = ElementwiseKernel("identity", kinds, (activation(function, dict(parameters)),))
    result = np.zeros_like(x)
    run_kernel(kernel, work.tables | {"first": x, "target": result}, work.items, isa)
    return result


@pytest.mark.parametrize("isa", NATIVE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_few_ulp_everywhere(case, isa):
    x = points()
    result = apply(case[0], case[1:], x, isa)
    with np.errstate(all="ignore"):
        exact = CASES[case](x.astype(np.float64))
        nearest = exact.astype(np.float32)
        step = np.maximum(np.spacing(np.abs(np.where(np.isfinite(nearest), nearest, 3e38)).astype(np.float32)), SMALLEST_STEP)
        error = np.abs(result.astype(np.float64) - exact)
    same = (result == nearest) | (np.isnan(result) & np.isnan(exact))
    # Next to the largest number, rounding may decide for infinity.
    allowed = 5 if case == ("gelu",) else 4
    close = np.isfinite(nearest) & ((error <= allowed * step) | (error <= SHORT.get(case[0], ABSOLUTE)))
    close |= (np.abs(exact) > 3.4028e38) & (np.abs(result) > 3.4028e38)
    wrong = np.flatnonzero(~(same | close))
    worst = wrong[:5]
    assert not len(wrong), f"{len(wrong)} of {len(x)}: at {x[worst]} got {result[worst]}, should be {exact[worst]}"


def test_all_functions_are_tested():
    assert {case[0] for case in CASES} == set(ACTIVATIONS)


def test_assembly_for_every_instruction_set():
    for function, *parameters in CASES:
        check_assembly(ElementwiseKernel("identity", (FULL,), (activation(function, dict(parameters)),)))
