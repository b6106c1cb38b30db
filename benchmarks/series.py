"""What ``cpu.py`` measures: the networks of the table, and the conditions under which one of them must not fall off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

TABLE_LEVELS = (0.0, 0.5, 0.75, 0.9)
SWEEP_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
ROUNDS = 21
RESNET = "torchvision:resnet50"
LARGE = (RESNET, "torchvision:vgg16", "torchvision:inception_v3")
SMALL = ("torchvision:regnet_x_1_6gf", "torchvision:efficientnet_b0", "torchvision:mobilenet_v2", "torchvision:densenet121")
ODD = ("channels_96", "channels_100", "maps_8", "maps_7")


@dataclass(frozen=True)
class Series:
    """One network at several sparsities (0: not pruned), all in one comparison.

    ``threads`` and ``size`` of 0 mean all usable CPUs and the network's own input size. Long calls need fewer ``rounds``.
    """

    group: str
    model: str
    levels: tuple[float, ...] = (0.5,)
    pattern: str = "block:8x8"
    batch: int = 1
    threads: int = 0
    size: int = 0
    rounds: int = ROUNDS

    @property
    def network(self) -> str:
        return self.model.rpartition(":")[2].replace("_", "-")

    @property
    def name(self) -> str:
        """Without the sparsity; results of the table of networks begin with ``cpu``, of conditions with ``condition``."""
        prefix = "condition" if self.group == "conditions" else "cpu"
        odd = [f"{word}{value}" for word, value in (("threads", self.threads), ("size", self.size)) if value]
        return "-".join([prefix, self.network, f"batch{self.batch}", *odd])

    def file_name(self, sparsity: float) -> str:
        """Where the comparison at one sparsity is written to."""
        how = f"{self._flat_pattern}-{sparsity * 100:.0f}" if sparsity else "dense"
        return self.name.replace(f"{self.network}-", f"{self.network}-{how}-", 1) + ".json"

    @property
    def curve_file(self) -> str:
        """Where time against sparsity is written to."""
        return f"sparsity-{self.network}-{self._flat_pattern}-batch{self.batch}.json"

    @property
    def _flat_pattern(self) -> str:
        return self.pattern.replace(":", "")


def all_series() -> Iterator[Series]:
    """Every series, the most important ones first."""
    yield from (Series("networks", model, SWEEP_LEVELS) for model in LARGE)
    yield from (Series("small-networks", model, TABLE_LEVELS[:3]) for model in SMALL)
    yield Series("conditions", RESNET, threads=1)
    yield Series("conditions", RESNET, size=225)
    yield from (Series("conditions", f"python:odd_networks:{name}") for name in ODD)
    yield Series("conditions", RESNET, batch=8, rounds=15)
    yield Series("conditions", RESNET, batch=32, rounds=7)


SERIES = tuple(all_series())
GROUPS = tuple(dict.fromkeys(series.group for series in SERIES))
