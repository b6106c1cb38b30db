"""The fastest that a core can multiply and add: a loop of nothing else, to measure others by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel

CHAINS = 12  # independent sums: enough to hide the latency, few enough for any register file
TURNS = 1024


@dataclass(frozen=True)
class PeakKernel(Kernel):
    """An item is ``TURNS`` turns of ``CHAINS`` vector FMAs; ``result`` takes a vector for every thread."""

    SLOTS: ClassVar[tuple[str, ...]] = ("result",)

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, thread = self.entry(module, isa)
        result = b.at(self.slot(b, slots, "result"), thread, isa.lanes)
        factor = b.load_vector(result)
        sums = [b.variable(b.splat(float(chain))) for chain in range(CHAINS)]
        with b.loop(begin, end), b.loop(0, TURNS):
            for place in sums:
                b.store(b.multiply_add(factor, factor, b.load(place, typ=b.vector)), place)
        total = b.splat(0.0)
        for place in sums:
            total = b.fadd(total, b.load(place, typ=b.vector))
        b.store_vector(total, result)
        b.ret_void()


def flops_of_item(isa: Isa) -> int:
    return 2 * CHAINS * TURNS * isa.lanes


