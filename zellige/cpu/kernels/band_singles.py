"""Single pixels of a tile of the band kernel: the rest of a map that would fill but a few lanes of a vector.

Here lanes run over the rows of the band: a single's sums are one short vector, and a column adds its weights, which lie
side by side, times the pixel. That is one multiply-add a column, where a vector takes as many as the band has rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ir

from zellige.cpu.emitter import F32, I32, I64, Emitter
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue


@dataclass(frozen=True, eq=False)
class Single:
    """The sums of one pixel, a lane for every row of the band, in a variable of type ``kind``."""

    b: Emitter
    kind: ir.VectorType
    sums: ir.Value

    @classmethod
    def start(cls, b: Emitter, bias: ir.Value, rows: int) -> Single:
        """Sums that begin with the bias of the band's rows."""
        kind = ir.VectorType(F32, rows)
        return cls(b, kind, b.variable(b.load(bias, typ=kind, align=4)))

    def add_column(self, place: ir.Value, inside: ir.Value | None, weights: ir.Value) -> None:
        """sums[row] += weights[row] · the pixel at ``place``, which counts as 0 if lane 0 of ``inside`` is not set."""
        b, kind = self.b, self.kind
        if inside is None:
            number = b.insert_element(ir.Constant(kind, ir.Undefined), b.load_scalar(place), ir.Constant(I32, 0))
        else:
            number = b.masked_load(place, inside, b.splat(0.0))
        pixel = b.shuffle(number, number, [0] * kind.count)
        total = b.intrinsic(f"llvm.fma.v{kind.count}f32", kind, pixel, b.load(weights, typ=kind, align=4),
                            b.load(self.sums, typ=kind))
        b.store(total, self.sums)

    def finish(self, epilogue: Epilogue, operands: list[tuple[ir.Value, ir.Value]], rows: ir.Value) -> ir.Value:
        """The results of all rows, as the first lanes of a vector.

        ``operands`` are where the epilogue's operands have the pixel in the plane of the band's first row, and the step to
        the next plane. The band has ``rows`` real rows: for others the last real one is read again.
        """
        b, count = self.b, self.kind.count
        total = b.load(self.sums, typ=self.kind)
        wide = b.shuffle(total, total, [min(lane, count - 1) for lane in range(b.isa.lanes)])
        last = b.sub(rows, ir.Constant(I64, 1))

        def gather(number: int) -> ir.Value:
            place, step = operands[number]
            vector = b.splat(0.0)
            for row in range(count):
                index = ir.Constant(I64, row)
                real = b.select(b.icmp_signed("<", index, rows), index, last)
                vector = b.insert_element(vector, b.load_scalar(b.at(place, real, step)), ir.Constant(I32, row))
            return vector

        return emit_epilogue(b, epilogue, wide, gather)
