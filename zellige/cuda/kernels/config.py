"""What a launch may choose: how many tokens a program takes, how deep its pipeline is, how its operands are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

SHARED_BYTES = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448, 103: 232_448, 120: 101_376}
"""Shared memory that one program may have, by compute capability (CUDA programming guide, technical specifications)."""

REGISTERS = 65_536
"""Registers of a multiprocessor, the same in every generation."""

BOXES_FROM = 90
"""The compute capability of the first GPUs that fetch by tensor descriptors."""

SUMS_PER_THREAD = 128
"""Most sums of float32 that a thread keeps in its 255 registers beside all else."""

SHAPES = ((128, 4, 3, 16), (256, 8, 4, 4), (128, 8, 3, 16), (256, 8, 3, 4), (256, 4, 4, 4), (128, 4, 4, 16), (64, 4, 4, 16))
"""Tokens, warps, stages and width worth timing, likeliest first. Two programs of 128 tokens share a multiprocessor, and one
multiplies while the other starts or ends; one of 256 fetches a quarter less for each multiplication."""


@dataclass(frozen=True, order=True)
class Config:
    """``tokens`` in a block; ``warps`` and pipeline ``stages`` of a program; ``width``: blocks of tokens that are done
    side by side, tile after tile (1: tiles are innermost), and of attention the keys that are walked at once; ``boxes``: operands
    come by tensor descriptors where they can."""

    tokens: int = 128
    warps: int = 8
    stages: int = 4
    width: int = 16
    boxes: bool = False

    def __str__(self) -> str:
        return f"{self.tokens}x{self.warps}w{self.stages}s/{self.width}" + ("+boxes" if self.boxes else "")

    def to_json(self) -> dict[str, int | bool]:
        return asdict(self)

    def numbers(self) -> list[int]:
        """As operators take it."""
        return [self.tokens, self.warps, self.stages, self.width, int(self.boxes)]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Config | None:
        """From ``numbers``; None if there are none."""
        return cls(numbers[0], numbers[1], numbers[2], numbers[3], bool(numbers[4])) if numbers else None

    def shared_bytes(self, tile: int, step: int, itemsize: int = 2) -> int:
        """What its pipeline takes, before the compiler adds its own."""
        return self.stages * (tile + self.tokens) * step * itemsize


def shared_limit(capability: int) -> int:
    """Bytes of shared memory that a program may have, at least, on a GPU of this compute capability."""
    return SHARED_BYTES.get(capability, min(SHARED_BYTES.values()))


def candidates(tile: int, step: int, tokens: int, capability: int) -> list[Config]:
    """The configurations worth timing for tiles of ``tile`` rows and so many ``tokens``, likeliest first."""
    shared = shared_limit(capability) - 1024
    found = []
    for block, warps, stages, width in SHAPES:
        config = Config(block, warps, stages, width, boxes=capability >= BOXES_FROM)
        too_wide = block >= 2 * max(tokens, 64)
        too_few = tile * block > SUMS_PER_THREAD * 32 * warps
        too_many = tile * block * 8 < SUMS_PER_THREAD * 32 * warps
        if not (too_wide or too_few or too_many) and config.shared_bytes(tile, step) <= shared:
            found.append(config)
    return found


def default_config(tile: int, step: int, tokens: int) -> Config:
    """What is taken where nobody has timed: no descriptors, three stages, the smallest block that holds the tokens."""
    return Config(tokens=64, warps=4, stages=3) if tokens <= 64 else Config(tokens=128, warps=8 if tile >= 128 else 4, stages=3)
