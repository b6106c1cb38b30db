"""Fitting the cost model's constants to this machine: generated layers of all kernel families, timed as networks are.

Two chains of layers, from 224² to 7² pixels and 32 to 512 channels, run with Winograd and without: one whose weights come
from memory anew each time, one whose few weights stay in the cache. Every layer finds the caches as its neighbour left them,
so it is timed under the conditions of a network. Bandwidths are measured. The constants of each family are the non-negative
ones of the smallest squared relative error, to which a deviation from the defaults adds a little: what the layers can't tell
apart stays as it was.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from itertools import combinations

import numpy as np

from zellige.cpu.break_even import blocks_left
from zellige.cpu.calls import Call, Plan
from zellige.cpu.code import build_kernels
from zellige.cpu.costs import FAMILIES, LEVEL2, LEVEL3, MEMORY, OTHERS, Costs, Family, Levels
from zellige.cpu.host import caches, usable_cpus
from zellige.cpu.isa import Isa
from zellige.cpu.lower.lowering import Options
from zellige.cpu.plan import plan_graph
from zellige.cpu.pool import Pool
from zellige.cpu.program import Program, Tables, largest_share
from zellige.cpu.speed import cycles_per_second, measure_bandwidth, measure_peak
from zellige.errors import ZelligeError
from zellige.graph.ir import Attribute, Graph, Node, TensorType
from zellige.graph.operators import make_node

STAGES = ((224, 32), (112, 64), (56, 96), (28, 160), (14, 320), (7, 512))  # pixels a side, channels
HEAVY, LIGHT = (0.0, 0.5, 0.75), (0.9, 0.8, 0.95)  # sparsities of the layers of the two chains, in turn
CLASSES = (2048, 1000, 4096, 512)  # features of the linear layers
ROUNDS = 25
QUANTILE = 0.25  # of the times of a call: less than the median is disturbed by others
STEADY = 0.85  # of the highest peak of multiply-adds must be reached each time
FEWEST = 4  # calls of a family to fit as many constants; with fewer it has those of the defaults
PRIOR = 0.03  # of the weight of all calls has the wish to stay with the defaults, constant by constant
STEPS = np.array([1.0, 1.0, 1.0, 1e4])  # that far from its default, a constant must bring the calls
GAIN = 0.03                             # so much nearer to what was measured


@dataclass(frozen=True)
class Sample:
    """A timed call: its family, the cycles that each of the four constants multiplies, and those that it took (or seconds, before
    the clock is known)."""

    family: str
    features: tuple[float, ...]
    cycles: float


@dataclass(frozen=True)
class Calibration:
    """The fitted constants, and per family how many calls they were fitted to and the mean relative error that is left."""

    costs: Costs
    errors: dict[str, tuple[int, float]]


def calibrate(isa: Isa, threads: int | None = None) -> Calibration:
    """Fit the model to this machine, with all of the usable CPUs or so many threads. It takes a few seconds.

    Raises ``ZelligeError`` on a machine that is too busy to be measured.
    """
    pool = Pool(threads or usable_cpus())
    peaks = [measure_peak(pool, isa)]
    bare = Costs(levels=measured_levels(pool, isa))
    timed: list[Sample] = []
    for sparsities in (HEAVY, LIGHT):
        for winograd in (True, False):
            timed += timed_calls(chain(sparsities), isa, Options(winograd=winograd, costs=bare), pool)
            peaks.append(measure_peak(pool, isa))
    if min(peaks) < STEADY * max(peaks):
        raise ZelligeError(f"this machine is too busy to be measured: {pool.threads} threads did between {min(peaks):.0f} and "
                           f"{max(peaks):.0f} GFLOP/s of the same work. Stop what else runs, and try again")
    rate = cycles_per_second(max(peaks), pool.threads, isa)
    return fit(bare, [replace(sample, cycles=sample.cycles * rate) for sample in timed])


def measured_levels(pool: Pool, isa: Isa) -> Levels:
    """The caches' sizes and the bytes that a core reads from each level in a cycle while the others do."""
    bandwidth, sizes = measure_bandwidth(pool, isa), caches()
    rate = cycles_per_second(measure_peak(pool, isa), pool.threads, isa) * pool.threads / 1e9
    return Levels(sizes.level2, sizes.level3, *(round(bandwidth[level] / rate, 2) for level in (LEVEL2, LEVEL3, MEMORY)))


def timed_calls(graph: Graph, isa: Isa, options: Options, pool: Pool) -> list[Sample]:
    """The calls of a graph's plan and about what each takes in its place, in seconds."""
    plan = plan_graph(graph, isa, options)
    code, libraries = build_kernels(plan.kernels, isa)
    program = Program(plan, Tables(plan), code, pool)
    arrays = [np.zeros(kind.shape, np.float32) for kind in (*graph.inputs.values(), *map(graph.type_of, graph.outputs))]
    sides = (("input", len(graph.inputs)), ("output", len(graph.outputs)))
    places = [(side, index) for side, count in sides for index in range(count)]
    for array, place in zip(arrays, places, strict=True):
        program.bind(program.patches(*place), array.ctypes.data)
    stamps = np.array([program.run_timed() for _ in range(ROUNDS + 1)][1:])
    spans = np.quantile(np.diff(stamps, axis=1), QUANTILE, axis=0) / 1e9
    del libraries
    return [sample(plan, call, pool.threads, float(span)) for call, span in zip(plan.calls, spans, strict=True) if span > 0]


def sample(plan: Plan, call: Call, threads: int, span: float) -> Sample:
    demand = call.demand
    return Sample(demand.family, plan.costs.features(demand, plan.home, largest_share(call, threads)), span)


# The fit


def fit(costs: Costs, samples: list[Sample]) -> Calibration:
    """The constants of every family that has samples enough; the others stay as they are."""
    fitted: dict[str, Family] = {}
    errors = {}
    for name in sorted({*FAMILIES.values(), OTHERS}):
        mine = [sample for sample in samples if sample.family == name]
        if len(mine) < FEWEST:
            continue
        features, cycles = np.array([sample.features for sample in mine]), np.array([sample.cycles for sample in mine])
        relative = features / cycles[:, None]
        prior = np.diag(np.sqrt(PRIOR * (relative ** 2).sum(0) + len(mine) * (GAIN / STEPS) ** 2))
        constants = smallest_error(np.concatenate([relative, prior]),
                                   np.concatenate([np.ones(len(mine)), prior @ np.array(astuple(costs.family(name)))]))
        fitted[name] = Family(*(float(f"{constant:.4g}") for constant in constants))
        errors[name] = (len(mine), float(np.abs(features @ constants / cycles - 1).mean()))
    return Calibration(replace(costs, **fitted), errors)  # type: ignore[arg-type]


def smallest_error(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x ≥ 0 of the smallest |matrix · x − target|: with so few columns, the best of all sets of those that are not 0.

    >>> smallest_error(np.array([[1.0, 2.0], [1.0, -1.0], [1.0, -1.0]]), np.ones(3)).round(3).tolist()
    [1.0, 0.0]
    """
    count = matrix.shape[1]
    best, least = np.zeros(count), float((target ** 2).sum())
    for size in range(1, count + 1):
        for columns in map(list, combinations(range(count), size)):
            found = np.linalg.lstsq(matrix[:, columns], target, rcond=None)[0]
            error = float(((matrix[:, columns] @ found - target) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = np.zeros(count), error
                best[columns] = found
    return best


# The layers


class Chain:
    """A graph that grows layer by layer, each reading the one before."""

    def __init__(self, shape: tuple[int, ...], sparsities: tuple[float, ...]) -> None:
        self.inputs = {"x": TensorType(shape)}
        self.nodes: dict[str, Node] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.last, self.kind, self.sparsities = "x", self.inputs["x"], sparsities

    def add(self, operator: str, weight: tuple[int, ...] = (), **attributes: Attribute) -> None:
        """Append a layer; one with weights has the next sparsity."""
        name = f"{operator}{len(self.nodes)}"
        operands, kinds = [self.last], [self.kind]
        if weight:
            sparsity = self.sparsities[len(self.constants) % len(self.sparsities)] if weight[1] > 1 else 0.0
            self.constants[f"{name}.weight"] = blocks_left(weight, sparsity)
            operands.append(f"{name}.weight")
            kinds.append(TensorType(weight))
        node = make_node(name, operator, operands, kinds, attributes)
        self.nodes[name], self.last, self.kind = node, name, node.type

    def done(self) -> Graph:
        return Graph("calibration", self.inputs, self.nodes, (self.last,), self.constants)


def chain(sparsities: tuple[float, ...]) -> Graph:
    """Of every stage: 1 × 1 to more channels and back, 3 × 3, both at all sparsities; depthwise, an activation by itself, pools,
    and a stride to the next."""
    side, channels = STAGES[0]
    layers = Chain((1, channels, side, side), sparsities)
    for number, (_, channels) in enumerate(STAGES):
        for _ in sparsities:
            layers.add("conv2d", (2 * channels, channels, 1, 1))
            layers.add("conv2d", (channels, 2 * channels, 1, 1))
            layers.add("conv2d", (channels, channels, 3, 3), padding=(1, 1, 1, 1))
        layers.add("conv2d", (channels, 1, 3, 3), padding=(1, 1, 1, 1), groups=channels)
        layers.add("activation", function="relu")
        layers.add("average_pool2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
        if number + 1 < len(STAGES):
            following = STAGES[number + 1][1]
            if number % 2:
                layers.add("max_pool2d", kernel=(2, 2), stride=(2, 2))
                layers.add("conv2d", (following, channels, 1, 1))
            else:
                layers.add("conv2d", (following, channels, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    layers.add("mean", dimensions=(2, 3), keep=False)
    for features in CLASSES:
        layers.add("linear", (features, layers.kind.shape[1]))
    return layers.done()
