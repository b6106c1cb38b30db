"""The cost model's constants, and what they make of a call: cycles of one core, in which it multiplies and adds two vectors.

A kernel's tables say how many cycles its items would take if nothing kept it waiting (``Call.costs``). What a call takes is

    work · those cycles + weights · (bytes of tables ÷ bandwidth) + maps · (bytes of maps ÷ bandwidth) + call

with four constants for every family of kernels: ``work`` is what its inner loop falls short by, ``weights`` and ``maps`` are the
shares of the way of bytes that computing does not hide, ``call`` the cycles of beginning and ending. The bandwidth is that of the
level where the bytes are: tables where those of the whole network stay between two runs, maps where the call's own do.

The defaults were fitted to every call of ResNet-50, Inception V3 and VGG-16, dense and with half and nine tenths of their blocks
zero, on two Zen 5 cores; ``calibrate.py`` fits others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zellige.cpu.kernels.band import BandKernel
from zellige.cpu.kernels.copy import CopyKernel, FillKernel
from zellige.cpu.kernels.depthwise import DepthwiseKernel
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.matrix_vector import MatrixVectorKernel
from zellige.cpu.kernels.pool import PoolKernel
from zellige.cpu.kernels.row_winograd import RowWinogradKernel
from zellige.cpu.kernels.winograd import WinogradGroup, WinogradStrip

LEVEL2, LEVEL3, MEMORY = LEVELS = ("L2", "L3", "memory")

FAMILIES: dict[type[Kernel], str] = {
    BandKernel: "band", WinogradGroup: "winograd_group", WinogradStrip: "winograd_strip",
    RowWinogradKernel: "winograd_strip", MatrixVectorKernel: "matrix_vector", DepthwiseKernel: "depthwise", PoolKernel: "pool",
    CopyKernel: "copy", FillKernel: "copy",
}
OTHERS = "others"


def family_of(kernel: Kernel) -> str:
    """Which constants of ``Costs`` a kernel has."""
    return FAMILIES.get(type(kernel), OTHERS)


@dataclass(frozen=True)
class Demand:
    """What a call asks of a core: cycles of computing, and bytes of tables (weights above all) and of maps."""

    family: str
    cycles: float
    weight_bytes: int
    map_bytes: int


@dataclass(frozen=True)
class Family:
    """The four constants of a family of kernels."""

    work: float = 1.0
    weights: float = 0.0
    maps: float = 0.0
    call: float = 0.0


@dataclass(frozen=True)
class Levels:
    """The bytes that each level of caches holds, one core's second and everybody's third, and how many of them a core reads in a
    cycle while the others read too."""

    level2: int = 1 << 20
    level3: int = 32 << 20
    level2_bytes: float = 60.0
    level3_bytes: float = 28.0
    memory_bytes: float = 10.0

    def holding(self, size: int) -> str:
        """Where so many bytes stay that are used again and again: a level keeps what fills no more than three quarters of it."""
        if 4 * size <= 3 * self.level2:
            return LEVEL2
        return LEVEL3 if 4 * size <= 3 * self.level3 else MEMORY

    def bytes_per_cycle(self, level: str) -> float:
        return {LEVEL2: self.level2_bytes, LEVEL3: self.level3_bytes, MEMORY: self.memory_bytes}[level]


@dataclass(frozen=True)
class Costs:
    """All constants of the model."""

    band: Family = Family(1.06, 0.11, 0.08, 3600)
    winograd_group: Family = Family(1.1, 0.09, 1.3, 3000)
    winograd_strip: Family = Family(1.14, 0.0, 1.6, 3000)
    matrix_vector: Family = Family(1.2, 0.4, 0.0, 1500)
    depthwise: Family = Family(0.91, 0.0, 0.2, 2000)
    pool: Family = Family(1.0, 0.4, 0.33, 2100)
    copy: Family = Family(0.55, 0.0, 1.2, 1300)
    others: Family = Family(0.95, 2.0, 0.1, 1600)
    levels: Levels = field(default_factory=Levels)

    def family(self, name: str) -> Family:
        family = getattr(self, name)
        assert isinstance(family, Family)
        return family

    def features(self, demand: Demand, home: str, share: float = 1.0) -> tuple[float, float, float, float]:
        """The cycles that each of the four constants multiplies; ``home`` is the level where the network's weights stay."""
        levels = self.levels
        return (share * demand.cycles, share * demand.weight_bytes / levels.bytes_per_cycle(home),
                share * demand.map_bytes / levels.bytes_per_cycle(levels.holding(demand.map_bytes)), 1.0)

    def cycles(self, demand: Demand, home: str, share: float = 1.0) -> float:
        """What a call takes of one core: of all the items, or of the share that it has of them."""
        family = self.family(demand.family)
        work, weights, maps, call = self.features(demand, home, share)
        return family.work * work + family.weights * weights + family.maps * maps + family.call * call
