"""How many CPUs the control groups of this process grant it: the CPU bandwidth controller of Linux, versions 1 and 2.

A process in a container often sees every CPU of the machine and may use the time of only a few. Threads beyond that quota
would be stopped in the middle of a layer while the others spin at its barrier, so they are not started at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def granted_cpus(root: Path = ROOT) -> float | None:
    """The tightest quota from this process's group up to the topmost one, in CPUs; None where nothing limits it.

    ``root`` is where ``proc`` and the control group file systems are looked up.
    """
    quotas = [quota for mount, group in _hierarchies(root) for quota in _quotas(mount, group)]
    return min(quotas, default=None)


def _hierarchies(root: Path) -> Iterator[tuple[Path, Path]]:
    """Where each hierarchy that limits CPU time is mounted, and the directory of this process's group in it."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):  # hierarchy number : controllers : path of the group
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            groups["cgroup" if controllers else "cgroup2"] = path
    for line in _lines(root / "proc/self/mountinfo"):  # …, 3: root, 4: mount point, … - type, source, options
        before, _, after = line.partition(" - ")
        top, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind not in groups or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        mount = root / point.lstrip("/")
        group = mount / groups[kind].removeprefix(top.rstrip("/")).lstrip("/")
        yield mount, group if group.is_dir() else mount


def _quotas(mount: Path, group: Path) -> Iterator[float]:
    """Every quota from a group up to where its hierarchy is mounted."""
    for directory in (group, *group.parents):
        fields = " ".join(_lines(directory / "cpu.max")).split()
        if not fields:
            fields = [*_lines(directory / "cpu.cfs_quota_us"), *_lines(directory / "cpu.cfs_period_us")]
        if len(fields) == 2 and fields[0] not in ("max", "-1"):
            yield int(fields[0]) / int(fields[1])
        if directory == mount:
            return


def _lines(path: Path) -> list[str]:
    """A file's lines; none where the kernel does not offer it."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
