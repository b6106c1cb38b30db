"""Profiles: bytes, floors, what bounds a layer, and how far the model was off."""

import json
from dataclasses import replace

import numpy as np
import pytest
from engine_checks import compiled
from small_networks import Build

from zellige.cpu.calls import LayerPlan
from zellige.cpu.costs import LEVEL2, LEVEL3, MEMORY, Costs, Levels
from zellige.cpu.program import largest_share
from zellige.cpu.speed import Bandwidth
from zellige.graph.ir import Graph
from zellige.profile import MULTIPLY_ADDS, Machine, Profile

LEVELS = Levels(level2=1 << 20, level3=32 << 20)
BANDWIDTH = Bandwidth(level2=400.0, level3=200.0, memory=50.0)


def network() -> Graph:
    b = Build(1, 16, 12, 12, dtype="float32")
    return b.done(b("max_pool2d", b.conv(b.activation(b.conv(b.x, 32, 3), "relu"), 16), kernel=(2, 2), stride=(2, 2)))


@pytest.fixture(scope="module")
def engine():
    return compiled(network(), threads=2)


@pytest.fixture(scope="module")
def profile(engine) -> Profile:
    return engine.profile(rounds=3)


def layer(macs: int, path: str = "dense") -> LayerPlan:
    return LayerPlan("conv", "conv2d", (1, 8, 8, 8), "dense", 1.0, path, "", macs, macs, 0.0)


@pytest.mark.parametrize(("macs", "path", "weights", "maps", "home", "floor", "bound"), [
    (50_000_000, "dense", 0, 0, LEVEL3, 1000.0, MULTIPLY_ADDS),                   # 100 MFLOP at 100 GFLOP/s
    (50_000_000, "winograd", 0, 0, LEVEL3, 250.0, MULTIPLY_ADDS),                 # a quarter of them
    (50_000_000, "small winograd", 0, 0, LEVEL3, 1000 / 2.25, MULTIPLY_ADDS),     # four ninths
    (1000, "dense", 10_000_000, 100_000, MEMORY, 200.25, MEMORY),                 # 10 MB at 50 GB/s, 0.1 MB at 400
    (1000, "dense", 10_000_000, 100_000, LEVEL3, 50.25, LEVEL3),
    (1000, "dense", 10_000, 400_000, LEVEL3, 1.05, LEVEL2),                       # mostly maps, which fit L2
    (1000, "dense", 10_000, 40_000_000, LEVEL3, 800.05, MEMORY),
])
def test_floors_are_rooflines(engine, macs, path, weights, maps, home, floor, bound) -> None:
    program = engine._program
    plan = replace(program.plan, home=home, costs=Costs(levels=LEVELS))
    machine = Machine(type("Program", (), {"plan": plan, "pool": program.pool})(), 100.0, BANDWIDTH, 4000.0)
    assert machine.floor(layer(macs, path), weights, maps) == (pytest.approx(floor), bound)


def test_rows_say_what_calls_move(engine, profile) -> None:
    calls = engine._program.plan.calls
    for row in profile.rows:
        mine = [call for call in calls if call.label == row.name]
        assert row.weight_bytes == sum(call.demand.weight_bytes for call in mine)
        assert row.map_bytes == sum(call.map_bytes for call in mine)
        if row.microseconds:
            assert row.gigabytes_per_second == pytest.approx((row.weight_bytes + row.map_bytes) / row.microseconds / 1e3)
        if row.op == "conv2d":
            assert row.weight_bytes > 0 and row.map_bytes > 0 and row.floor_microseconds > 0 and row.bound
    assert profile.floor_microseconds == pytest.approx(sum(row.floor_microseconds for row in profile.rows))


def test_the_prediction_is_the_plans_for_the_busiest_thread(engine, profile) -> None:
    plan = engine._program.plan
    for row in profile.rows:
        cycles = sum(plan.costs.cycles(call.demand, plan.home, largest_share(call, profile.threads))
                     for call in plan.calls if call.label == row.name)
        rate = profile.peak_gflops * 1e3 / (4 * engine._compiled.isa.lanes * profile.threads)
        assert row.predicted_microseconds == pytest.approx(cycles / rate)


def test_the_errors_are_means_over_layers(profile) -> None:
    first = next(row for row in profile.rows if row.op)
    off = [(10.0, 9.0), (30.0, 39.0), (0.0, 1.0)]
    rows = [replace(first, microseconds=measured, predicted_microseconds=predicted) for measured, predicted in off]
    small = replace(profile, rows=(*rows, replace(first, op="", microseconds=5.0, predicted_microseconds=50.0)))
    assert small.mean_error == pytest.approx((0.1 + 0.3) / 2) and small.weighted_error == pytest.approx((1 + 9) / 40)
    assert replace(profile, rows=()).mean_error == replace(profile, rows=()).weighted_error == 0
    read = json.loads(json.dumps(small.to_json()))
    assert read["mean_error"] == small.mean_error and read["weighted_error"] == small.weighted_error
    assert read["bandwidth"]["memory"] == profile.bandwidth.memory and read["home"] == profile.home
    assert f"mean error of a layer {small.mean_error:.1%}, weighted by time {small.weighted_error:.1%}" in str(small)


def test_shares_follow_the_split() -> None:
    call = type("Call", (), {"costs": np.array([3000, 3000, 6000, 12000])})()
    assert largest_share(call, 1) == 1 and largest_share(call, 2) == 0.5
    assert largest_share(type("Call", (), {"costs": np.array([1, 1])})(), 2) == 1  # too little to be shared out
