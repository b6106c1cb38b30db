"""Reading memory as fast as a core can: a loop of loads and little else, to measure bandwidths by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel

CHAINS = 8          # independent sums: an addition takes longer than a load
ITEM_VECTORS = 256  # that an item reads


@dataclass(frozen=True)
class StreamKernel(Kernel):
    """An item adds up ``ITEM_VECTORS`` neighbouring vectors of ``source``; ``result`` takes a vector for every thread."""

    SLOTS: ClassVar[tuple[str, ...]] = ("source", "result")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, thread = self.entry(module, isa)
        source = self.slot(b, slots, "source")
        sums = [b.variable(b.splat(0.0)) for _ in range(CHAINS)]
        with b.loop(begin, end) as item:
            start = b.at(source, item, ITEM_VECTORS * isa.lanes)
            with b.loop(0, ITEM_VECTORS // CHAINS) as turn:
                vectors = b.at(start, turn, CHAINS * isa.lanes)
                for number, place in enumerate(sums):
                    value = b.load_vector(b.at(vectors, number * isa.lanes))
                    b.store(b.fadd(b.load(place, typ=b.vector), value), place)
        total = b.splat(0.0)
        for place in sums:
            total = b.fadd(total, b.load(place, typ=b.vector))
        b.store_vector(total, b.at(self.slot(b, slots, "result"), thread, isa.lanes))
        b.ret_void()


def bytes_of_item(isa: Isa) -> int:
    return 4 * ITEM_VECTORS * isa.lanes
