"""The cost model: what it counts, what the fit finds, which constants a machine gets, and what it refuses."""

import json
import warnings
from dataclasses import asdict, astuple, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.cpu import calibrate as calibrate_module
from zellige.cpu import known_costs as known_module
from zellige.cpu import measure
from zellige.cpu.break_even import blocks_left
from zellige.cpu.calibrate import FEWEST, PRIOR, Sample, calibrate, chain, fit, smallest_error
from zellige.cpu.costs import LEVEL2, LEVEL3, LEVELS, MEMORY, Costs, Demand, Family, Levels
from zellige.cpu.host import host_isa
from zellige.cpu.isa import AVX512, ISAS
from zellige.cpu.known_costs import file_key, file_name, keep_costs, known_costs, parse_costs
from zellige.cpu.lower.lowering import Options
from zellige.cpu.plan import plan_graph
from zellige.cpu.pool import Pool
from zellige.cpu.speed import measure_bandwidth, measure_peak
from zellige.errors import ZelligeError
from zellige.graph.ir import Graph, TensorType
from zellige.graph.operators import make_node

ISA = host_isa()


# The formula


def test_a_call_takes_its_four_terms() -> None:
    costs = Costs(band=Family(2, 0.5, 0.25, 100), levels=Levels(1 << 20, 1 << 24, 64, 32, 8))
    demand = Demand("band", 1000, 3200, 6400)
    assert costs.cycles(demand, LEVEL3) == 2 * 1000 + 0.5 * 3200 / 32 + 0.25 * 6400 / 64 + 100
    assert costs.cycles(demand, MEMORY, share=0.5) == 0.5 * (2 * 1000 + 0.5 * 3200 / 8 + 0.25 * 6400 / 64) + 100


@given(st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_more_bytes_never_come_from_nearer(one: int, other: int) -> None:
    levels = Levels()
    near, far = (LEVELS.index(levels.holding(size)) for size in sorted((one, other)))
    assert near <= far


def test_a_level_holds_three_quarters_of_its_size() -> None:
    levels = Levels(level2=1 << 20, level3=32 << 20)
    assert [levels.holding(size) for size in (3 << 18, (3 << 18) + 1, 24 << 20, (24 << 20) + 1)] == [LEVEL2, LEVEL3, LEVEL3, MEMORY]
    assert replace(levels, level3=0).holding(1 << 20) == MEMORY


# What a plan asks of a machine


def convolution(sparsity: float, channels: int = 64, side: int = 28) -> Graph:
    """One 3 × 3 convolution."""
    x, weight = TensorType((1, channels, side, side)), TensorType((channels, channels, 3, 3))
    node = make_node("conv", "conv2d", ["x", "w"], [x, weight], {"padding": (1, 1, 1, 1)})
    return Graph("net", {"x": x}, {"conv": node}, ("conv",), {"w": blocks_left(weight.shape, sparsity)})


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_demands_count_what_calls_move(sparsity: float) -> None:
    plan = plan_graph(convolution(sparsity), AVX512, Options(winograd=False))
    demand = next(call for call in plan.calls if type(call.kernel).__name__ == "BandKernel").demand
    kept = 4 * 64 * 64 * 9 * (1 - sparsity)
    assert kept <= demand.weight_bytes <= 1.2 * kept + 20_000  # offsets, items and vectors lie beside the weights
    maps = 2 * 4 * 64 * 28 * 28
    assert maps <= demand.map_bytes <= 1.4 * maps  # margins are read too
    assert plan.layers[0].cycles == pytest.approx(sum(plan.expected_cycles(call) for call in plan.calls if call.label == "conv"))


def test_the_choice_follows_the_constants() -> None:
    graph = convolution(0.0)
    dear, cheap = Family(work=100.0), Family(work=0.01)
    direct = Costs(band=cheap, winograd_group=dear, winograd_strip=dear)
    winograd = Costs(band=dear, winograd_group=cheap, winograd_strip=cheap)
    assert [plan_graph(graph, AVX512, Options(costs=costs)).layers[0].path for costs in (direct, winograd)] == ["dense", "winograd"]
    asked = [plan_graph(graph, AVX512, Options(path=path)).layers[0].path for path in ("dense", "winograd", "no such path")]
    assert asked[:2] == ["dense", "winograd"] and asked[2] in asked[:2]


def test_paths_are_timed_on_the_threads_that_will_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []
    monkeypatch.setattr(measure, "Pool", lambda threads: pools.append(threads) or Pool(threads))
    measured = plan_graph(convolution(0.5), ISA, Options(tune="measure", threads=3)).layers[0]
    assert pools == [3] and measured.reason.count(" µs") == 3 and measured.path in ("sparse", "winograd", "small winograd")


def test_a_plan_knows_where_its_weights_stay() -> None:
    few, many = Levels(level2=1 << 10, level3=1 << 20), Levels(level2=1 << 10, level3=1 << 12)
    homes = [plan_graph(convolution(0.0), AVX512, Options(costs=Costs(levels=levels))).home for levels in (few, many)]
    assert homes == [LEVEL3, MEMORY]


# The fit


@given(st.lists(st.floats(0, 3), min_size=4, max_size=4), st.integers(0, 1000))
def test_constants_that_are_there_are_found(constants: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.uniform(1, 100, (12, 4))
    found = smallest_error(features, features @ constants)
    np.testing.assert_allclose(found, constants, atol=1e-9)


def test_the_fit_leaves_what_it_was_not_shown() -> None:
    generator = np.random.default_rng(0)
    truth, before = Family(1.5, 0.5, 0.25, 4000.0), Costs()
    features = generator.uniform(1e4, 1e5, (50, 3))
    samples = [Sample("band", (*row, 1.0), float(np.dot((*row, 1.0), astuple(truth)))) for row in features]
    samples += [Sample("pool", (100.0, 1.0, 1.0, 1.0), 500.0)] * (FEWEST - 1)
    found = fit(before, samples)
    assert found.costs.pool == before.pool and found.costs.levels == before.levels and list(found.errors) == ["band"]
    calls, error = found.errors["band"]
    assert calls == 50 and error < PRIOR
    assert found.costs.band.work == pytest.approx(truth.work, rel=0.1)


def test_generated_layers_are_the_same_every_time() -> None:
    one, other = chain((0.0, 0.5)), chain((0.0, 0.5))
    assert str(one) == str(other)
    assert all(np.array_equal(one.constants[name], other.constants[name]) for name in one.constants)


def test_a_busy_machine_is_not_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([500.0, 250.0] * 3)
    monkeypatch.setattr(calibrate_module, "measure_peak", lambda pool, isa: next(peaks))
    monkeypatch.setattr(calibrate_module, "timed_calls", lambda *_: [])
    with pytest.raises(ZelligeError, match="between 250 and 500 GFLOP/s"):
        calibrate(ISA, threads=1)


@pytest.mark.full
def test_a_calibration_predicts_the_layers_it_was_fitted_to() -> None:
    try:
        found = calibrate(ISA)
    except ZelligeError as error:  # others compute here, too
        assert "busy" in str(error)
        pytest.skip(f"calibration is NOT TESTED: {error}")
    assert {"band", "winograd_group", "matrix_vector", "depthwise", "copy"} <= set(found.errors)
    assert all(error < 0.6 for _, error in found.errors.values())  # a busy machine is allowed for


def test_bandwidths_and_peak_are_measured() -> None:
    pool = Pool(1)
    bandwidth = measure_bandwidth(pool, ISA)
    assert min(bandwidth[level] for level in LEVELS) > 0.1 and measure_peak(pool, ISA) > 0.1
    assert all(level in str(bandwidth) for level in LEVELS)


# The file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    known_module._warn.cache_clear()
    return tmp_path / "cache"


FITTED = Costs(band=Family(1.25, 0.5, 0.125, 1000.0))


def test_kept_constants_are_used(cache: Path) -> None:
    before = known_costs(ISA)
    assert before.costs == Costs(levels=before.costs.levels) and "defaults" in before.origin
    path = keep_costs(ISA, FITTED)
    assert path.parent == cache and path.stat().st_mode & 0o077 == 0
    assert known_costs(ISA).costs == FITTED and str(path) in known_costs(ISA).origin


def test_another_cpu_has_the_defaults(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep_costs(ISA, FITTED)
    monkeypatch.setattr("zellige.cpu.toolchain.host.cpu_name", lambda: "another-cpu", raising=True)
    assert file_key(ISA)[:16] not in path.name
    assert "defaults" in known_costs(ISA).origin
    copied = cache / file_name(file_key(ISA))
    copied.write_bytes(path.read_bytes())
    copied.chmod(0o600)
    with pytest.warns(RuntimeWarning, match="another"):
        assert "defaults" in known_costs(ISA).origin


def test_other_instruction_sets_have_the_defaults(cache: Path) -> None:
    keep_costs(ISA, FITTED)
    assert all(known_costs(isa).costs != FITTED for isa in ISAS.values() if isa != ISA)


def content(**changes: object) -> bytes:
    value = {"format": known_module.FORMAT, "key": "k", "cpu": "c", "isa": "i", "costs": asdict(FITTED)} | changes
    return json.dumps({key: part for key, part in value.items() if part is not None}).encode()


def test_what_is_written_is_read() -> None:
    assert parse_costs(content(), "k") == FITTED


@pytest.mark.parametrize("wrong", [
    b"", b"{", b"[]", b"\xff", content(format="zellige costs 1"), content(key="other"), content(cpu=None), content(more=1),
    content(costs={}), content(costs=asdict(FITTED) | {"more": {}}), content(costs=asdict(FITTED) | {"band": 3}),
    content(costs=asdict(FITTED) | {"band": {"work": 1.0}}),
    *(content(costs=asdict(FITTED) | {"band": asdict(FITTED.band) | {"work": value}}) for value in (-1.0, True, "1", None, 1e13)),
    content(costs=asdict(FITTED) | {"levels": asdict(FITTED.levels) | {"memory_bytes": 0}}),
    content().replace(b"1.25", b"NaN"), content().replace(b"1.25", b"1e999"),
])
def test_anything_else_is_refused(wrong: bytes) -> None:
    with pytest.raises(ZelligeError):
        parse_costs(wrong, "k")


def test_a_damaged_file_is_refused_with_one_warning(cache: Path) -> None:
    path = keep_costs(ISA, FITTED)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(RuntimeWarning, match="--calibrate"):
        assert "defaults" in known_costs(ISA).origin
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "defaults" in known_costs(ISA).origin


def test_a_file_that_others_may_write_is_not_read(cache: Path) -> None:
    keep_costs(ISA, FITTED).chmod(0o666)
    assert "defaults" in known_costs(ISA).origin
