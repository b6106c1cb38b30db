"""The plan of a batch: all images at once, or equal parts of them one after another, whichever is expected to be faster.

Layer by layer, the maps of many images fall out of the caches before the next layer reads them; depth first, they stay, and what
is read again for every part are the weights. A network that mixes its images (``passes/batch.py``) runs them all at once.

The cost model's constants are fitted to single images, whose maps stay in the caches. Here comes to it what maps cost that don't.
On two cores with a third level of 32 MB, ResNet-50 at half sparsity with eight images at a time took 23 µs more for every MB than
with two, in calls whose maps had more than 12 MB; in most others it took little more, or less.
"""

from __future__ import annotations

from dataclasses import replace

from zellige.cpu.calls import Call, LayerPlan, Plan
from zellige.cpu.costs import MEMORY
from zellige.cpu.isa import Isa
from zellige.cpu.lower.lowering import Options
from zellige.cpu.plan import plan_graph
from zellige.errors import CompileError
from zellige.graph.ir import Graph
from zellige.passes.batch import batch_of, with_batch

LARGEST_PART = 8  # beyond it, reading the weights again costs next to nothing
GAIN = 1.03       # what fewer images at a time must promise: the model is no more exact, and threads share more images better
BETWEEN = 2       # times a call's maps pass before what it writes is read again: a shortcut waits for the layers beside it
WAYS = 2          # of a byte to memory and back: what is written is fetched first, and what was written goes out later


def plan_batch(graph: Graph, isa: Isa, options: Options | None = None) -> Plan:
    """The plan of an optimised graph, for as many images at a time as pay.

    ``Options.images`` asks for a number. Raises what ``plan_graph`` raises, and ``CompileError`` if the batch can't be run with
    so many images at a time.
    """
    asked = options or Options()
    images = batch_of(graph)
    sizes = part_sizes(graph, images, asked.images)
    by_model = replace(asked, tune="model") if len(sizes) > 1 else asked
    size, best = sizes[0], plan_part(graph, images, sizes[0], isa, by_model)
    cycles = {size: expected_cycles(best)}
    for fewer in sizes[1:]:
        plan = plan_part(graph, images, fewer, isa, by_model)
        cycles[fewer] = expected_cycles(plan)
        if cycles[fewer] * GAIN < cycles[size]:
            size, best = fewer, plan
    if by_model.tune != asked.tune:
        best = plan_part(graph, images, size, isa, asked)
    best.batch = described(images, size, cycles)
    return best


def part_sizes(graph: Graph, images: int, asked: int | None) -> list[int]:
    """The numbers of images at a time to choose from, the largest first."""
    divisors = [size for size in range(images, 0, -1) if images % size == 0]
    if asked is None:
        return [size for size in divisors if size in (images, 1) or size <= LARGEST_PART]
    if asked not in divisors:
        possible = ", ".join(map(str, divisors))
        raise CompileError(f"graph {graph.name} can be run with {possible} images at a time, got images={asked}")
    return [asked]


def plan_part(graph: Graph, images: int, size: int, isa: Isa, options: Options) -> Plan:
    """The plan for so many of the images at a time. Its layers are those of the whole batch."""
    if size == images:
        return plan_graph(graph, isa, options)
    plan = plan_graph(with_batch(graph, size), isa, options)
    plan.parts = images // size
    plan.layers = [whole(layer, plan.parts) for layer in plan.layers]
    return plan


def whole(layer: LayerPlan, parts: int) -> LayerPlan:
    """What all parts of a batch do together in a layer."""
    return replace(layer, shape=(parts * layer.shape[0], *layer.shape[1:]), macs=parts * layer.macs,
                   kept_macs=parts * layer.kept_macs, cycles=parts * layer.cycles)


def expected_cycles(plan: Plan) -> float:
    """What is expected of one core for all calls and all parts."""
    return plan.parts * sum(plan.expected_cycles(call) + spilled_cycles(plan, call) for call in plan.calls)


def spilled_cycles(plan: Plan, call: Call) -> float:
    """What it takes to bring a call's maps to memory and back, if the caches don't keep them until they are read again."""
    levels = plan.costs.levels
    return WAYS * call.map_bytes / levels.memory_bytes if levels.holding(BETWEEN * call.map_bytes) == MEMORY else 0.0


def described(images: int, size: int, cycles: dict[int, float]) -> str:
    """What was chosen, and what is expected of the others; empty for a single image."""
    if images == 1:
        return ""
    others = ", ".join(f"{span / cycles[size]:.2f}× the cycles by {other}" for other, span in cycles.items() if other != size)
    return f"{images} images {'at once' if size == images else f'in sub-batches of {size}'}" + (others and f"; model: {others}")
