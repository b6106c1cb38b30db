"""Batches in parts: the same bits as each part alone, on guarded memory, with any number of threads; and when they are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_checks import assert_close, assert_holds, assert_writes_inside, compiled, random_inputs, run_guarded
from hypothesis import assume, given
from hypothesis import strategies as st
from operator_networks import OperatorGenerator
from small_networks import Build
from test_object import run_here, shapes_of

from zellige.cpu.batch import expected_cycles, part_sizes, plan_batch, plan_part
from zellige.cpu.costs import Costs, Levels
from zellige.cpu.host import host_isa
from zellige.cpu.lower.lowering import Options
from zellige.cpu.object import build_object
from zellige.engine import load
from zellige.errors import CompileError
from zellige.graph.ir import Graph
from zellige.passes.batch import batch_of, with_batch
from zellige.passes.pipeline import optimize

ISA = host_isa()
CROWDED = Costs(levels=Levels(level2=1 << 14, level3=1 << 17, memory_bytes=1.0))
"""Of a machine whose caches hold the maps of one image of ``maps``, but not of two, and whose memory is slow."""
ROOMY = Costs(levels=Levels(level2=1 << 28, level3=1 << 30))


def maps(images: int) -> Graph:
    """A residual network; each map of an image has 32 KB."""
    b = Build(images, 8, 32, 32, dtype="float32")
    y = b.activation(b.conv(b.x, 8, 3, padding=(1, 1, 1, 1)), "relu")
    y = b("add", b.conv(y, 8, 3, bias=True, padding=(1, 1, 1, 1)), b.x)
    y = b("max_pool2d", y, kernel=(2, 2), stride=(2, 2))
    mean = b("mean", y, dimensions=(2, 3), keep=False)
    return optimize(b.done(b("linear", mean, b.random(10, 8)), y))


def classifier(images: int) -> Graph:
    """All weights, and next to no maps."""
    b = Build(images, 512, dtype="float32")
    return optimize(b.done(b("linear", b.x, b.random(1024, 512))))


@given(seed=st.integers(0, 2**20))
def test_generated_networks_in_parts(seed):
    graph = OperatorGenerator(seed).network(6)
    images = batch_of(optimize(graph))
    assume(images > 1)
    engine = assert_holds(graph, images=1)
    assert engine._compiled.plan.parts == images


@pytest.mark.parametrize("part", [1, 2, 3, 6])
def test_parts_are_the_bits_of_each_alone(part):
    graph = maps(6)
    engine, alone = compiled(graph, threads=2, images=part), compiled(with_batch(graph, part), threads=2, images=part)
    x, = random_inputs(graph)
    runs = [run_guarded(alone, [x[start:start + part]], at_end=True) for start in range(0, 6, part)]
    for got, expected in zip(run_guarded(engine, [x], at_end=False), zip(*runs, strict=True), strict=True):
        np.testing.assert_array_equal(got, np.concatenate(expected))


def test_parts_write_inside_of_their_buffers():
    assert_writes_inside(maps(4), images=2)


def test_calls_that_do_not_meet_the_caller_share_their_slots():
    program = compiled(maps(4), images=1)._program
    count, meets = len(program.plan.calls), [call.meets_caller for call in program.plan.calls]
    assert len(program._calls) == 4 * count and any(meets) and not all(meets)
    for part in range(1, 4):
        slots = [call.slots for call in program._calls[part * count:(part + 1) * count]]
        assert [own != first.slots for own, first in zip(slots, program._calls, strict=False)] == meets


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("images", [1, 2])
def test_objects_run_in_parts(images, threads):
    graph = maps(4)
    inputs = random_inputs(graph)
    code = build_object(graph, ISA, "net", Options(images=images), threads)
    assert_close(graph, inputs, run_here(code, shapes_of(graph), inputs, threads))


def test_the_choice_follows_the_caches():
    few, many = (plan_batch(maps(8), ISA, Options(costs=costs)) for costs in (CROWDED, ROOMY))
    assert few.parts > 1 and few.batch.startswith(f"8 images in sub-batches of {8 // few.parts}; model: ")
    assert many.parts == 1 and many.batch.startswith("8 images at once; model: ")
    assert few.batch.count("× the cycles by") == many.batch.count("× the cycles by") == 3


def test_the_choice_is_the_best_but_for_small_gains():
    for costs in (CROWDED, ROOMY, Costs()):
        options = Options(costs=costs)
        plans = [plan_part(maps(8), 8, size, ISA, options) for size in (8, 4, 2, 1)]
        chosen = plan_batch(maps(8), ISA, options)
        assert expected_cycles(chosen) <= 1.1 * min(map(expected_cycles, plans))
        assert expected_cycles(chosen) <= expected_cycles(plans[0])


def test_weights_that_are_read_for_every_part_keep_a_batch_together():
    plan = plan_batch(classifier(8), ISA, Options(costs=CROWDED))
    assert plan.parts == 1 and plan.batch.startswith("8 images at once")


def test_a_measured_plan_has_the_size_of_the_model():
    plans = [plan_batch(maps(2), ISA, Options(costs=CROWDED, tune=tune, threads=1)) for tune in ("model", "measure")]
    assert plans[0].parts == plans[1].parts == 2 and plans[0].batch == plans[1].batch
    assert "measured" in plans[1].layers[0].reason and "measured" not in plans[0].layers[0].reason


def test_large_batches_have_parts_of_few_images():
    assert part_sizes(maps(2), 48, None) == [48, 8, 6, 4, 3, 2, 1]
    assert part_sizes(maps(2), 7, None) == [7, 1] and part_sizes(maps(2), 1, None) == [1]


def test_one_image_has_nothing_to_choose():
    plan = plan_batch(maps(1), ISA)
    assert plan.parts == 1 and plan.batch == ""


def test_mixed_images_run_at_once():
    b = Build(4, 8, 6, 6, dtype="float32")
    graph = optimize(b.done(b("softmax", b.conv(b.x, 8, 3), dimension=0)))
    plan = plan_batch(graph, ISA, Options(costs=CROWDED))
    assert plan.parts == 1 and plan.batch == ""
    with pytest.raises(CompileError, match="can be run with 1 images at a time, got images=2"):
        plan_batch(graph, ISA, Options(images=2))


@pytest.mark.parametrize("images", [0, -1, 3, 8])
def test_numbers_that_do_not_divide_a_batch_are_refused(images):
    with pytest.raises(CompileError, match=f"graph small can be run with 4, 2, 1 images at a time, got images={images}"):
        plan_batch(maps(4), ISA, Options(images=images))


def test_layers_and_profiles_are_of_the_whole_batch():
    parts, whole = (compiled(maps(4), images=images) for images in (1, 4))
    for own, other in zip(parts.layers, whole.layers, strict=True):
        assert (own.name, own.shape, own.macs) == (other.name, other.shape, other.macs)
    profile = parts.profile(rounds=2)
    assert profile.batch == parts.batch == "4 images in sub-batches of 1" and profile.batch in str(profile).splitlines()
    calls = parts._program.plan.calls
    for row in profile.rows:
        assert row.map_bytes == 4 * sum(call.map_bytes for call in calls if call.label == row.name)
        assert row.weight_bytes == 4 * sum(call.demand.weight_bytes for call in calls if call.label == row.name)


def test_times_of_a_layer_are_sums_over_parts(monkeypatch):
    engine = compiled(maps(4), images=2)
    count = len(engine._program.plan.calls)
    stamps = np.concatenate([[0], np.cumsum(np.arange(2 * count) + 1)]) * 1000
    monkeypatch.setattr(engine._program, "run_timed", lambda: stamps)
    total = engine.profile(rounds=2).total_microseconds
    assert total == pytest.approx((stamps[-1] - stamps[0]) / 1e3)


def test_a_loaded_file_runs_the_same_parts(tmp_path: Path):
    engine = compiled(maps(8), costs=CROWDED)
    engine.save(tmp_path / "net.zlg")
    again = load(tmp_path / "net.zlg", threads=1)
    fresh = compiled(maps(8))
    inputs = random_inputs(engine.graph)
    assert again.batch == fresh.batch and again.input_shapes == [(8, 8, 32, 32)]
    for ours, right in zip(again(*inputs), fresh(*inputs), strict=True):
        np.testing.assert_array_equal(ours, right)
    crowded = compiled(load(tmp_path / "net.zlg").graph, costs=CROWDED)
    assert crowded.batch == engine.batch
    for ours, right in zip(crowded(*inputs), engine(*inputs), strict=True):
        np.testing.assert_array_equal(ours, right)
