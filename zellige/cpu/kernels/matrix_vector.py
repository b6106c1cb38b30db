"""Products of a sparse matrix with one vector or a few: classifiers, squeeze-and-excitation, maps of one pixel.

There are too few pixels here to fill lanes, so lanes run over the eight output rows of a band and inputs are broadcast.
Every weight is read once and used once for each token: the layer is bound by memory, so weights lie in one stream in the
order of their use, and a list entry names some neighbouring columns at once, to keep the indices small beside the weights. Where
few kept columns have kept neighbours, as in blocks of 8 × 1, an entry names each of its columns.

    for item in items:                            a band and a few tokens
        for entry of the band:                    some columns × 8 rows of weights
            for column of the entry:
                sums[token][chain] += weights[column] · x[token][column]
        target[token] = epilogue(bias + sum of the chains)

Several chains of sums for each token hide the latency of the additions; they are added in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import llvmlite.ir as ir

from zellige.cpu.emitter import I32, I64, POINTER, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue, operand_count
from zellige.cpu.kernels.kernel import Kernel

ROWS = 8            # output rows of a band: lanes of a vector
CHAINS = 8          # sums that accumulate at once
BAND_FIELDS = 4     # first entry, end of entries, first output row, rows
ITEM_FIELDS = 3     # band, first token, tokens


class Entry(NamedTuple):
    """The columns of a list entry: how many, and whether each is named or they are neighbours, of which the first is."""

    columns: int
    named: bool = False

    @property
    def names(self) -> int:
        """Elements of ``columns`` that it takes."""
        return self.columns if self.named else 1


@dataclass(frozen=True)
class MatrixVectorKernel(Kernel):
    """One variant: what a list entry is, the token counts it knows, the epilogue.

    ``source`` and ``target`` are dense, tokens × features; ``columns`` are those that entries name; ``weights`` are
    [entry][column of the entry][8 rows].
    """

    entry_kind: Entry
    tokens: tuple[int, ...] = (1,)
    epilogue: Epilogue = ()

    SLOTS: ClassVar[tuple[str, ...]] = (
        "source", "target", "items", "bands", "columns", "weights", "bias", "source_token", "target_token",
        "operand0", "operand1")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        eight = replace(isa, lanes=ROWS)
        bodies = {count: self._emit_tokens(module, eight, count) for count in self.tokens}
        b, slots, begin, end, _ = self.entry(module, eight)
        items, bands = self.slot(b, slots, "items"), self.slot(b, slots, "bands")
        with b.loop(begin, end) as index:
            item = b.at(items, index, ITEM_FIELDS, I32)
            band, token, tokens = (b.load_index(item, field) for field in range(ITEM_FIELDS))
            for count, body in bodies.items():
                with b.if_then(b.icmp_signed("==", tokens, ir.Constant(I64, count))):
                    b.call(body, (slots, b.at(bands, band, BAND_FIELDS, I32), token))
        b.ret_void()

    def _emit_tokens(self, module: ir.Module, isa: Isa, tokens: int) -> ir.Function:
        """One band for so many tokens: ``body(slots, band, first token)``."""
        b = Emitter(module, isa, f"{self.symbol}_tokens{tokens}", [POINTER, POINTER, I64], internal=True)
        slots, band, token = b.function.args
        first, last, first_row, rows = (b.load_index(band, field) for field in range(BAND_FIELDS))
        columns, weights = self.slot(b, slots, "columns"), self.slot(b, slots, "weights")
        source_token = self.slot(b, slots, "source_token", I64)
        sources = [b.at(self.slot(b, slots, "source"), b.mul(b.add(token, ir.Constant(I64, each)), source_token))
                   for each in range(tokens)]
        bias = b.load_vector(b.at(self.slot(b, slots, "bias"), first_row))
        count = self.entry_kind.columns
        chains = max(1, min(count, CHAINS // tokens))
        sums = [[b.variable(bias if chain == 0 else b.splat(0.0)) for chain in range(chains)] for _ in range(tokens)]
        with b.loop(first, last) as entry:
            names = b.at(columns, entry, self.entry_kind.names, I32)
            entry_weights = b.at(weights, entry, count * ROWS)
            for member in range(count):
                weight = b.load_vector(b.at(entry_weights, member, ROWS))
                named, beside = (member, 0) if self.entry_kind.named else (0, member)
                for each in range(tokens):
                    x = b.splat(b.load_scalar(b.at(sources[each], b.load_index(names, named)), beside))
                    place = sums[each][member % chains]
                    b.store(b.multiply_add(weight, x, b.load(place, typ=b.vector)), place)
        mask = b.icmp_signed(">", self._splat_index(b, rows), ir.Constant(ir.VectorType(I64, ROWS), list(range(ROWS))))
        for each in range(tokens):
            parts = [b.load(place, typ=b.vector) for place in sums[each]]
            while len(parts) > 1:
                parts = [b.fadd(left, right) for left, right in zip(parts[::2], parts[1::2], strict=True)]
            self._emit_store(b, slots, b.add(token, ir.Constant(I64, each)), first_row, parts[0], mask)
        b.ret_void()
        return b.function

    def _splat_index(self, b: Emitter, value: ir.Value) -> ir.Value:
        kind = ir.VectorType(I64, ROWS)
        single = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        return b.shuffle(single, single, [0] * ROWS)

    def _emit_store(self, b: Emitter, slots: ir.Value, token: ir.Value, row: ir.Value, total: ir.Value,
                    mask: ir.Value) -> None:
        """The band's rows of one token, through the epilogue; rows past the last are not written."""
        offset = b.add(b.mul(token, self.slot(b, slots, "target_token", I64)), row)
        operands = [self.slot(b, slots, f"operand{number}") for number in range(operand_count(self.epilogue))]
        value = emit_epilogue(b, self.epilogue, total,
                              lambda number: b.masked_load(b.at(operands[number], offset), mask, b.splat(0.0)))
        b.masked_store(value, b.at(self.slot(b, slots, "target"), offset), mask)
