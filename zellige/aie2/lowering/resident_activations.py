"""How activations go to cores from where they stay in memory tiles; or some of them do, and others come from host memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from zellige.aie2.lowering.chains import Chain, Move, Visit, runs
from zellige.aie2.lowering.descriptors import shares
from zellige.aie2.lowering.resident import Box
from zellige.aie2.lowering.streams import Lowering
from zellige.aie2.lowering.to_cores import parts_to_cores, to_rows
from zellige.aie2.overlay import TO_ALL, memory_shares
from zellige.aie2.phase import Region


def to_cores_mixed(lowering: Lowering, column: int, first: int, count: int, position: int, ring: bool) -> list[Chain]:
    """In alike passes. ``ring``: something comes from host memory, an object for every tile."""
    share = len(shares(lowering.schedule.on, lowering.schedule.on.memory(column))["out", 0])
    tiles, visits, steps = lowering.tiles(column), list[Visit](), list[float]()
    longest, parts = 0, len(lowering.schedule.parts)
    for step, (number, tile) in enumerate(product(range(first, first + count), tiles)):
        found = _Tile(lowering, column, number, *tile).visits(ring)
        longest = max(longest, len(found))
        visits += [visit for _, visit in found]
        steps += [position + step + part / parts for part, _ in found]
    return runs(visits, share // 2 if longest <= share // 2 else share, steps.__getitem__)


Due = list[tuple[int, Visit]]
"""Visits, and the part that each belongs to. Chains of different columns begin with different parts, and their cores take the same
packets: whoever waits for one must have started all those that begin before."""


@dataclass(frozen=True)
class _Tile:
    """A tile of a column in a pass: where it begins."""

    lowering: Lowering
    column: int
    number: int
    top: int
    left: int

    def visits(self, ring: bool) -> Due:
        """Its parts, and before the last of them the residual. What comes from the ring, of which it is the turn, waits for it, and
        gives it back."""
        schedule, name = self.lowering.schedule, f"memory{self.column}.activations"
        slot = self.lowering.turns.take(name, False) * memory_shares(schedule.on).activations if ring else 0

        def held(moves: Sequence[Move], part: int) -> Due:
            return [(part, Visit(name, slot + move.offset, move.dimensions, move.packet)) for move in moves]

        def parts(begin: int, count: int) -> Due:
            if schedule.stays.source:
                return self._parts(begin, count)
            return held(parts_to_cores(schedule, self.number, begin, count), begin)

        count, residual = len(schedule.parts), schedule.phase.residual
        if residual is None:
            found = parts(0, count)
        else:
            height, width = schedule.tiling.height, schedule.tiling.width
            at = 0 if schedule.stays.source else schedule.box_bytes(self.number)
            if schedule.stays.residual:
                y, x = residual.y + self.top, residual.x + self.left
                between = [(count - 1, visit) for visit in self._rows(residual, y, height, x, width)]
            else:
                between = held(to_rows(schedule, self.number, height, width, at), count - 1)
            found = [*parts(0, count - 1), *between, *parts(count - 1, 1)]
        places = [at for at, (_, one) in enumerate(found) if one.buffer == name]
        if places:
            first, last = places[0], places[-1]
            found[first] = (found[first][0], replace(found[first][1], acquire=f"{name}.full"))
            found[last] = (found[last][0], replace(found[last][1], release=f"{name}.empty"))
        return found

    def _parts(self, begin: int, count: int) -> Due:
        """So many parts of the source from one on, out of resident buffers; those of the same rows together."""
        schedule, source = self.lowering.schedule, self.lowering.schedule.phase.source
        height, width, found, done = schedule.object_rows, schedule.object_width, Due(), 0
        while done < count:
            part = schedule.parts[begin + done]
            y, x = source.y + self.top * schedule.phase.stride[0] + part.row, source.x + self.left
            if schedule.phase.own:
                found += [(begin + done, visit) for visit in self._rows(source, y, height, x, width)]
                done += 1
            else:
                alike = sum(one.row == part.row for one in schedule.parts[begin + done : begin + count])
                box = Box(y, height, source.group + part.group, schedule.tiling.part[0], x, width)
                reads = self.lowering.residents[source.tensor].reads(self.column, box, TO_ALL, alike, schedule.tiling.apart)
                found += [(begin + done + number * alike // len(reads), visit) for number, visit in enumerate(reads)]
                done += alike
        return found

    def _rows(self, of: Region, y: int, height: int, x: int, width: int) -> list[Visit]:
        """To each row of the overlay the groups that it computes, out of resident buffers."""
        resident, schedule = self.lowering.residents[of.tensor], self.lowering.schedule
        return [visit for cell in schedule.passes[self.number] for visit in
                resident.reads(self.column, Box(y, height, of.group + cell.first, schedule.tiling.groups, x, width), 1 + cell.row)]
