"""Lowering: programs, checked and simulated, give what the int8 reference gives: layer kind by layer kind, and small networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from families import torchvision_model
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered import POWERS, SMALL, assert_runs_right, pruned, residual_block
from placed_layers import PLACED, placed_layers, placed_networks
from quantized_layers import quantized
from small_networks import Build

from zellige.aie2.device import DEVICES
from zellige.aie2.lowering.lower import lower
from zellige.aie2.lowering.packets import parcels
from zellige.aie2.lowering.plan import plan
from zellige.aie2.lowering.residency_search import choose_residency, nothing_stays
from zellige.aie2.lowering.schedule import Tiling
from zellige.aie2.lowering.tiling import estimate, fits
from zellige.aie2.overlay import overlay
from zellige.errors import CompileError
from zellige.graph.from_torch import from_torch
from zellige.graph.quantized import QuantizedGraph
from zellige.passes.pipeline import optimize
from zellige.passes.quantize import quantize

OVERLAYS = st.sampled_from([overlay(DEVICES[device], rows, columns) for device, rows, columns in
                            [("paper", 1, 1), ("paper", 2, 2), ("paper", 5, 3), ("paper", 2, 4), ("paper", 3, 1), ("npu1", 3, 2),
                             ("ve2302", 2, 3)]])


@pytest.mark.parametrize("op", PLACED)
@settings(max_examples=4)
@given(st.data())
def test_layers_run_right(op, data):
    """Whatever is drawn has a place, and runs."""
    assert_runs_right(quantized(data.draw(placed_layers(op)), POWERS), data.draw(OVERLAYS))


@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 2), (2, 4), (6, 3)])
def test_a_network_runs_right_in_little_memory(rows, columns):
    """Tiles, passes and parts everywhere."""
    on = replace(overlay(DEVICES["paper"], rows, columns), core_memory=SMALL)
    graph = quantized(residual_block(), POWERS)
    planned = plan(graph, on)
    assert max(len(schedule.parts) for schedule in planned.schedules) > 1 and max(one.steps for one in planned.schedules) > 1
    assert_runs_right(graph, on, planned)


@pytest.mark.parametrize("rows, columns", [(3, 1), (5, 1), (6, 2)])
def test_all_rows_have_packets_before_a_step_is_done(rows, columns):
    """A column that sends to three rows or more, in more steps than it has descriptors for: rows without groups listen too."""
    b = Build(1, 8, 17, 11)
    x = b("conv2d", b("conv2d", b.x, b.random(8, 8, 1, 1)), b.random(8, 8, 1, 1))
    graph = quantized(b.done(b("conv2d", x, b.random(8, 8, 3, 3), padding=(1, 1, 1, 1))), POWERS)
    on = replace(overlay(DEVICES["paper"], rows, columns), core_memory=SMALL)
    for choose in (choose_residency, nothing_stays):
        assert_runs_right(graph, on, plan(graph, on, choose))


@pytest.mark.parametrize("rows, size, apart, together", [(1, 6, 3, 1), (2, 9, 5, 2), (2, 7, 4, 5)])
def test_parts_may_overlap(rows, size, apart, together):
    b = Build(1, 160, 5, 6)
    graph = quantized(b.done(b("conv2d", b.x, pruned(b, 32, 160, 1, 0))), POWERS)
    on = replace(overlay(DEVICES["paper"], rows, 2), core_memory=replace(SMALL, activations=2048))
    (schedule,) = plan(graph, on).schedules
    schedule = replace(schedule, tiling=Tiling((1, 2), 3, 2, 2, (size, 1), apart, together))
    assert fits(schedule) and len(schedule.parts) > 2
    assert_runs_right(graph, on, replace(plan(graph, on), schedules=(schedule,)))


@pytest.mark.parametrize("rows, size", [(1, 8), (2, 4), (2, 3), (3, 2)])
def test_a_residual_comes_with_the_last_part(rows, size):
    b = Build(1, 64, 5, 6)
    graph = quantized(optimize(b.done(b("add", b("conv2d", b.x, pruned(b, 64, 64, 1, 0)), b.x))), POWERS)
    on = overlay(DEVICES["paper"], rows, 2)
    (schedule,) = plan(graph, on).schedules
    parts = -(-8 // size)
    schedule = replace(schedule, tiling=Tiling((1, 2), 3, 2, 2, (size, 1), size, parts))
    assert fits(schedule) and len(schedule.parts) == parts and schedule.phase.residual is not None
    assert_runs_right(graph, on, replace(plan(graph, on), schedules=(schedule,)))


def test_packets_may_have_sizes_of_their_own():
    b = Build(1, 256, 4, 6)
    graph = quantized(b.done(b("conv2d", b.x, pruned(b, 128, 256, 1, 0))), POWERS)
    on = overlay(DEVICES["paper"], 2, 2)
    (schedule,) = plan(graph, on).schedules
    few, many = (replace(schedule, tiling=Tiling((1, 2), height, 3, 4, (size, 1), size, 2)) for height, size in ((4, 4), (1, 2)))
    assert few.varied and not many.varied and fits(few) and fits(many)
    assert len(set(parcels(few)[0].sizes.ravel().tolist())) > 3 and len(set(parcels(many)[0].sizes.ravel().tolist())) == 1
    for tried in (few, many):
        assert_runs_right(graph, on, replace(plan(graph, on), schedules=(tried,)))


@settings(max_examples=8)
@given(placed_networks(5), OVERLAYS)
def test_generated_networks_run_right(graph, on):
    assert_runs_right(quantized(graph, POWERS), on)


@settings(max_examples=8)
@given(placed_networks(4), OVERLAYS)
def test_optimized_networks_run_right(graph, on):
    assert_runs_right(quantized(optimize(graph), POWERS), on)


def test_the_same_network_gives_the_same_program():
    graph, on = quantized(residual_block(), POWERS), overlay(DEVICES["npu1"], 2, 2)
    one, other = lower(graph, on), lower(graph, on)
    assert str(one) == str(other)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(one.host, other.host, strict=True) if a.data is not None)


def test_a_softmax_stays_with_the_host():
    b = Build(1, 8, 3, 3)
    logits = b("linear", b("reshape", b.x, shape=(1, 72)), b.random(10, 72))
    program = lower(quantized(b.done(b("softmax", logits, dimension=1)), POWERS), overlay(DEVICES["npu1"], 1, 1))
    assert list(program.outputs) == [logits]


def test_what_has_no_place_is_named():
    b = Build(1, 8, 3, 3)
    graph = quantized(b.done(b("channel_shuffle", b.x, groups=2, name="mixed")), POWERS)
    with pytest.raises(CompileError, match=r"node 'mixed' \(channel_shuffle, from module net.part\) can't run on AIE2"):
        lower(graph, overlay(DEVICES["npu1"], 1, 1))
    with pytest.raises(CompileError, match="can't run on AIE2: supported are conv2d, "):
        lower(graph, overlay(DEVICES["npu1"], 1, 1))


@pytest.mark.parametrize("shape, said", [
    ((8,), r"got \[8\]; only channels and maps of them are lowered"), ((1, 8, 3), r"got \[1, 8, 3\]; only channels and maps"),
    ((2, 8, 3, 3), r"got \[2, 8, 3, 3\]; only batches of one image are lowered")])
def test_only_maps_of_one_image_are_lowered(shape: tuple[int, ...], said: str) -> None:
    b = Build(*shape)
    with pytest.raises(CompileError, match=f"value '{b.x}': expected a value of .*{said}"):
        lower(quantized(b.done(b.activation(b.x, "relu")), POWERS), overlay(DEVICES["npu1"], 1, 1))


def network(name: str, side: int) -> QuantizedGraph:
    """A network of torchvision's with random weights, of which half of the blocks are zero in all convolutions but the first."""
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    graph = quantize(optimize(from_torch(torchvision_model(name), (images,))), [[images.numpy()]], POWERS)
    random, nodes = np.random.default_rng(0), dict(graph.nodes)
    for node in [node for node in graph if node.op == "conv2d"][1:]:
        outputs, inputs = node.weight.shape[:2]
        kept = random.random((-(-outputs // 8), -(-inputs // 8))) < 0.5
        mask = np.kron(kept, np.ones((8, 8), np.int8))[:outputs, :inputs, None, None]
        nodes[node.name] = replace(node, weight=node.weight * mask)
    return replace(graph, nodes=nodes)


@pytest.mark.full
@pytest.mark.parametrize("name, side", [("resnet50", 64), ("vgg16", 32), ("inception_v3", 107)])
def test_small_images_run_right(name, side):
    graph = network(name, side)
    for rows, columns in ((2, 2), (5, 4)):
        assert_runs_right(graph, overlay(DEVICES["paper"], rows, columns))


@pytest.mark.full
@pytest.mark.parametrize("name, side", [("resnet50", 224), ("vgg16", 224), ("inception_v3", 299)])
def test_no_network_fails_on_any_overlay(name, side):
    """Every phase has a schedule that fits; larger overlays are estimated to be faster."""
    graph, last = network(name, side), np.inf
    for size in range(1, 9):
        planned = plan(graph, overlay(DEVICES["paper"], size, size))
        assert all(fits(schedule) for schedule in planned.schedules)
        cycles = sum(estimate(schedule).cycles for schedule in planned.schedules)
        assert cycles < last
        last = cycles
