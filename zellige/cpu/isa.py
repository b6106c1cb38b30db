"""Instruction sets as data: what a kernel must know of a CPU before it is emitted.

``band`` is the register tile of the band kernel: output rows × vectors of pixels that accumulate at once. It leaves registers
for the pixels of a column and a broadcast weight: 8 × 3 of AVX-512's 32, 4 × 3 of AVX2's 16, 8 × 3 of NEON's 32.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Isa:
    """One instruction set.

    ``lanes`` are f32 numbers in a vector; ``masks`` says that to load some of them costs no more than to load all. ``cpu`` and
    ``features`` are what LLVM is told when the code is made for another machine than this one; ``needs`` are the features that a
    machine must have to run it.
    """

    name: str
    triple: str
    lanes: int
    masks: bool
    registers: int
    band: tuple[int, int]
    cpu: str
    features: str
    needs: tuple[str, ...]

    @property
    def vector_bytes(self) -> int:
        return 4 * self.lanes


X86 = "x86_64-unknown-linux-gnu"
AVX512 = Isa("x86-64-v4", X86, lanes=16, masks=True, registers=32, band=(8, 3), cpu="x86-64-v4", features="-prefer-256-bit",
             needs=("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx2", "fma", "bmi2"))
AVX2 = Isa("x86-64-v3", X86, lanes=8, masks=False, registers=16, band=(4, 3), cpu="x86-64-v3", features="",
           needs=("avx2", "fma", "bmi2"))
NEON = Isa("aarch64", "aarch64-unknown-linux-gnu", lanes=4, masks=False, registers=32, band=(8, 3), cpu="generic", features="+neon",
           needs=("neon",))

ISAS: dict[str, Isa] = {isa.name: isa for isa in (AVX512, AVX2, NEON)}
