"""What tiles would leave of a weight, and whether that promises a gain: known before anything is timed.

The union over a tile's rows is what decides: of 8×8 blocks drawn evenly at 50 %, sixteen bands of rows share a tile of 128, and
a group of 8 columns goes only if all sixteen lack it, one group of 65 536. Blocks as tall as the tile lose nothing. Clustering
the rows lowers the union, by much only where little is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from zellige.cuda.tiling.tiles import Tiles, cut_tiles

WORTH_TIMING = 0.9
"""Of the dense multiplications: tiles that take more are not timed, by single layers and by networks alike."""

EFFICIENCY, EFFICIENCY_OF_BLOCKS = 0.65, 0.85
"""What the kernels reach of a dense product's multiplications per second: seen with single columns on an H200, and with whole steps
of 64 columns by the kernel of blocks on an H100, for 4096 tokens and layers of 4096² and more at 50 % (small layers less).
Estimates until a layer is timed."""

BLOCK_COLUMNS = 64

CUTS = ((128, 64, 64, False), (128, 8, 64, False), (128, 1, 64, False), (64, 64, 64, False), (64, 8, 64, False), (64, 1, 64, False),
        (128, 64, 64, True), (128, 8, 64, True), (128, 1, 64, True))
"""Rows of a tile, columns of a group and of a step, and whether rows are clustered: what is tried, the fastest kernels first."""


@dataclass(frozen=True)
class Outlook:
    """A cut, with the share of the dense multiplications that it takes (``work``, padding too) and the gain to expect."""

    tile: int
    group: int
    step: int
    clustered: bool
    work: float

    @property
    def gain(self) -> float:
        """How many times faster than the dense product, by estimate; infinite where nothing is left to multiply."""
        efficiency = EFFICIENCY_OF_BLOCKS if self.group >= BLOCK_COLUMNS else EFFICIENCY
        return efficiency / self.work if self.work else float("inf")

    @property
    def worth_timing(self) -> bool:
        return self.work < WORTH_TIMING

    def __str__(self) -> str:
        """In words.

        >>> print(Outlook(128, 64, 64, True, 0.8))
        tiles of 128 clustered rows × groups of 64 columns take 80% of the multiplications: about 1.1× to expect
        """
        rows = "clustered rows" if self.clustered else "rows"
        cut = f"tiles of {self.tile} {rows} × groups of {self.group} columns take {self.work:.0%} of the multiplications"
        return cut + (f": about {self.gain:.1f}× to expect" if self.gain > 1 else ": no gain expected")


def outlook(tiles: Tiles, clustered: bool = False) -> Outlook:
    """What a weight that is cut already promises."""
    return Outlook(tiles.tile, tiles.group, tiles.step, clustered, tiles.work)


def outlooks(weight: np.ndarray, cuts: Iterable[tuple[int, int, int, bool]] = CUTS) -> list[Outlook]:
    """What each cut of a weight promises, the least work first; of equal ones in the order given.

    >>> print(outlooks(np.kron(np.eye(2), np.ones((128, 64))))[0])
    tiles of 128 rows × groups of 64 columns take 50% of the multiplications: about 1.7× to expect
    >>> print(outlooks(np.ones((128, 64)), [(128, 8, 64, False)])[0])
    tiles of 128 rows × groups of 8 columns take 100% of the multiplications: no gain expected
    """
    return sorted((outlook(cut_tiles(weight, *cut), cut[3]) for cut in cuts), key=lambda found: found.work)
