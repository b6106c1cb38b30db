"""What the machine is said to be: features, affinity, quotas and caches, from this machine and from made-up file systems."""

import os
from pathlib import Path

import pytest

from zellige.cpu import host
from zellige.cpu.isa import AVX2, AVX512, ISAS, NEON
from zellige.cpu.quota import granted_cpus
from zellige.errors import CompileError


@pytest.fixture
def fresh_host():
    """A host whose remembered answers are forgotten before and after."""
    remembered = (host.cpu_features, host.architecture, host.host_isa)
    for function in remembered:
        function.cache_clear()
    yield host
    for function in remembered:
        function.cache_clear()


def pretend(monkeypatch, architecture: str, *features: str) -> None:
    monkeypatch.setattr(host, "architecture", lambda: architecture)
    monkeypatch.setattr(host, "cpu_features", lambda: dict.fromkeys(features, True))
    monkeypatch.setattr(host, "host_isa", host.host_isa.__wrapped__)


def test_best_isa_runs_here_and_none_before_it_in_the_table():
    best = host.host_isa()
    assert host.runs_here(best)
    for isa in ISAS.values():
        if isa is best:
            break
        assert not host.runs_here(isa)


def test_features_are_those_of_the_kernel():
    flags = Path("/proc/cpuinfo").read_text()
    kernel_names = {"avx2": "avx2", "fma": "fma", "avx512f": "avx512f", "neon": "asimd"}
    known = kernel_names.keys() & host.cpu_features().keys()
    assert known
    for feature in known:
        assert host.cpu_features()[feature] == (f" {kernel_names[feature]} " in flags.replace("\n", " "))


@pytest.mark.parametrize("architecture, features, expected", [
    ("x86_64", AVX512.needs, AVX512), ("x86_64", AVX2.needs, AVX2), ("x86_64", AVX512.needs[1:], AVX2),
    ("aarch64", NEON.needs, NEON)])
def test_best_isa_of_other_machines(monkeypatch, architecture, features, expected):
    pretend(monkeypatch, architecture, *features)
    assert host.host_isa() is expected
    host.require(expected)


def test_a_machine_without_any_isa_is_told_what_it_lacks(monkeypatch):
    pretend(monkeypatch, "x86_64", "sse4.2")
    with pytest.raises(CompileError, match=r"x86-64-v3 lacks avx2, fma, bmi2.*aarch64 lacks aarch64"):
        host.host_isa()


def test_require_names_what_is_missing_and_what_to_do(monkeypatch):
    pretend(monkeypatch, "x86_64", *AVX2.needs)
    with pytest.raises(CompileError, match=r"x86-64-v4 can't run here.*lacks avx512f, avx512bw.*'cpu:x86-64-v3'"):
        host.require(AVX512)
    with pytest.raises(CompileError, match=r"aarch64 can't run here.*lacks aarch64"):
        host.require(NEON)


def test_features_that_llvm_can_not_tell_are_an_error(monkeypatch, fresh_host):
    def fail():
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr(host.llvm, "get_host_cpu_features", fail)
    with pytest.raises(CompileError, match="can't tell the features"):
        host.cpu_features()


def test_usable_cpus_respect_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert host.usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= host.usable_cpus() <= len(before)


@pytest.mark.parametrize("quota, expected", [(None, 8), (0.4, 1), (1.0, 1), (2.9, 2), (64.0, 8)])
def test_usable_cpus_respect_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(host, "granted_cpus", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert host.usable_cpus() == expected


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


VERSION_2 = {"proc/self/cgroup": "0::/app.slice/job\n",
             "proc/self/mountinfo": "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"}
VERSION_1 = {"proc/self/cgroup": "5:cpuset:/other\n4:cpuacct,cpu:/docker/abc\n0::/\n",
             "proc/self/mountinfo": "40 23 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
                                    "41 23 0:31 /docker/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n"}
GROUP_2, GROUP_1 = "sys/fs/cgroup/app.slice", "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize("files, expected", [
    ({}, None),
    (VERSION_2, None),
    (VERSION_2 | {f"{GROUP_2}/job/cpu.max": "max 100000\n"}, None),
    (VERSION_2 | {f"{GROUP_2}/job/cpu.max": "150000 100000\n"}, 1.5),
    (VERSION_2 | {f"{GROUP_2}/job/cpu.max": "max 100000\n", f"{GROUP_2}/cpu.max": "300000 100000\n"}, 3.0),
    (VERSION_2 | {f"{GROUP_2}/job/cpu.max": "200000 100000\n", f"{GROUP_2}/cpu.max": "50000 50000\n"}, 1.0),
    (VERSION_2 | {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4.0),  # the group itself is out of sight
    (VERSION_1 | {f"{GROUP_1}/cpu.cfs_quota_us": "-1\n", f"{GROUP_1}/cpu.cfs_period_us": "100000\n"}, None),
    (VERSION_1 | {f"{GROUP_1}/cpu.cfs_quota_us": "250000\n", f"{GROUP_1}/cpu.cfs_period_us": "100000\n"}, 2.5),
], ids=["no groups", "no quota", "max", "quota", "quota above", "tightest", "hidden group", "v1 unlimited", "v1 quota"])
def test_quota_of_control_groups(tmp_path, files, expected):
    assert granted_cpus(write(tmp_path, files)) == expected


def test_caches(tmp_path):
    sizes = [("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "1024K"), ("3", "Unified", "32768K")]
    files = {f"index{number}/{name}": f"{value}\n" for number, entry in enumerate(sizes)
             for name, value in zip(("level", "type", "size"), entry, strict=True)}
    assert host.caches(write(tmp_path, files)) == host.Caches(48 << 10, 1 << 20, 32 << 20)
    assert host.caches(tmp_path / "nowhere") == host.MODEST_CACHES
    here = host.caches()
    assert 8 << 10 <= here.level1 < here.level2
