"""What the channels of the overlay do in a phase: chains for all of them, and whose turn the slots of rings are afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from zellige.aie2.device import KINDS, WORD
from zellige.aie2.lowering.chains import Chain, Dimensions, Move, Object, Turns, Visit, evenly, linear, pattern, runs
from zellige.aie2.lowering.descriptors import shares
from zellige.aie2.lowering.packets import Parcel, batches, listeners, order
from zellige.aie2.lowering.resident import Box, Resident
from zellige.aie2.lowering.schedule import Cell, Schedule
from zellige.aie2.overlay import DEPTH, ROWS_PER_MEMORY, TO_ALL, memory_shares, resident_buffer, results_output
from zellige.aie2.packet import GROUP
from zellige.aie2.phase import Region
from zellige.aie2.program import Channel, Descriptor
from zellige.aie2.tensor import Tensor

SHIM_CHAIN = 2
"""Descriptors of a chain of a shim: half of what its channel has, so that the next task can wait behind the one that runs."""

RESULTS_CHAIN = 1
"""The same of a memory tile's channels that take in results."""

Effect = Literal["host", "resident", "read"]
"""What others may have to wait for: results are in host memory; or in memory tiles; what stayed in memory tiles has been read."""


def idle(column: int, number: int) -> str:
    """The host buffer that takes what an idle column sends through one of its memory tiles."""
    return f"idle{column}.{number}"


@dataclass(frozen=True)
class Stream:
    """All that a channel does in a phase. ``what`` is for names. ``needs``: phases before must be done with what it reads or
    overwrites; ``effect``: what others may wait for; ``ahead``: it brings packets, the first of which may come while the phase
    before is at work."""

    what: str
    channel: Channel
    chains: tuple[Chain, ...]
    needs: bool = False
    effect: Effect | None = None
    ahead: bool = False


@dataclass(frozen=True)
class Fill:
    """Zeros that a phase brings to all resident buffers before it does anything else: from byte ``at`` of each on, from a host
    buffer of zeros."""

    at: int
    dimensions: Dimensions
    zeros: str


def _ahead(stream: Stream, each: float) -> Stream:
    """What brings packets, one every ``each`` steps, some steps before they are needed, though not before the phase begins. Whoever
    then waits for a task with an earlier packet, waits for a core to be done with the last but ``DEPTH`` before that: for steps
    that have been started."""
    chains = (replace(one, position=min(one.position, max(one.position - DEPTH * each, each / DEPTH))) for one in stream.chains)
    return replace(stream, chains=tuple(chains), ahead=True)


@dataclass(frozen=True)
class Lowering:
    """A scheduled phase, where its tensors lie in host memory and in memory tiles, its packets (by the column that sends them),
    and the turns of all rings. ``fills`` come first. ``reuses``: its results overwrite what stayed there before."""

    schedule: Schedule
    tensors: Mapping[str, Tensor]
    parcels: Mapping[int, Parcel]
    turns: Turns
    residents: Mapping[str, Resident]
    fills: Sequence[Fill] = ()
    reuses: bool = False

    @property
    def ready(self) -> float:
        """The step in which packets of the next phase may start: as many packets before the end as ``_ahead`` says."""
        schedule = self.schedule
        return len(schedule.passes) * schedule.steps * (1 - DEPTH / schedule.packets)

    def streams(self) -> list[Stream]:
        """Packets first: they may come before what the phase reads is there."""
        on = self.schedule.on
        found = [stream for column in self.parcels for stream in self._packets(column)]
        for column in range(on.columns):
            found += self._zeros(column)
            found += self._activations(column)
            found += self._results(column)
        return [stream for stream in found if stream.chains]

    def _kinds(self) -> list[tuple[int, int, int]]:
        """Passes that are alike: the first, how many, and the step in which they begin."""
        return [(first, count, first * self.schedule.steps) for first, count in self.schedule.kinds()]

    def _packets(self, column: int) -> list[Stream]:
        schedule, on, parcel = self.schedule, self.schedule.on, self.parcels[column]
        ring, name, numbered = f"memory{column}.weights", f"{schedule.phase.name}.packets{column}", on.rows > on.columns
        sends, into, out, cores = [], [], [], {row: [] for row in parcel.rows}  # type: ignore[var-annotated]
        each = 1.0
        for first, count, position in self._kinds():
            rows = [row for row in listeners(schedule, first) if on.home(row) == column]
            if not rows:
                continue
            due = order(schedule, first, count)
            each = schedule.steps * count / len(due)
            for batch in batches(parcel, due, len(rows)):
                begins, moves = position + each * batch.at, [Move(0, linear(size)) for size in batch.sizes]
                if len(moves) == 1:
                    visits = [Visit(name, start, moves[0].dimensions) for start in batch.starts]
                    sends += runs(visits, SHIM_CHAIN, evenly(begins, each / len(rows)))
                else:
                    each_own = (Descriptor(number, name, batch.starts[number], one.dimensions) for number, one in enumerate(moves))
                    sends.append(Chain(begins, tuple(each_own)))
                into.append(([Object(ring, (one,)) for one in moves], batch.times * len(rows), begins, each / len(rows)))
                leaving = [Object(ring, (replace(one, packet=row if numbered else None),)) for one in moves for row in rows]
                out.append((leaving, batch.times, begins, each))
                for row in rows:
                    cores[row].append((moves, batch.times, begins))
        first_memory = on.memory(column)
        found = [
            Stream(f"packets shim {column}", Channel(on.shim(column), "out", 1), tuple(sends)),
            Stream(f"packets in {column}", Channel(first_memory, "in", 1), tuple(self.turns.chains(True, into))),
            Stream(f"packets out {column}", Channel(first_memory, "out", 1), tuple(self.turns.chains(False, out))),
        ]
        for row, cycles in cores.items():
            for of in range(on.columns):
                to = f"core{of}.{row}.weights"
                chains = self.turns.chains(True, [([Object(to, (move,)) for move in moves], times, begins, each)
                                                  for moves, times, begins in cycles])
                found.append(Stream(f"packets core {of}.{row}", Channel(on.core(row, of), "in", 1), tuple(chains)))
        return [_ahead(stream, each) for stream in found]

    def _zeros(self, column: int) -> list[Stream]:
        """What comes before all activations."""
        on, buffer = self.schedule.on, resident_buffer(column)
        sends, into = [], []
        for fill in self.fills:
            brought = Descriptor(0, buffer, fill.at, fill.dimensions)
            sends.append(Chain(0.0, (Descriptor(0, fill.zeros, 0, linear(WORD * brought.words)),)))
            into.append(Chain(0.0, (brought,)))
        return [Stream(f"zeros shim {column}", Channel(on.shim(column), "out", 0), tuple(sends), needs=True),
                Stream(f"zeros in {column}", Channel(on.memory(column), "in", 0), tuple(into), needs=True, effect="resident")]

    def _activations(self, column: int) -> list[Stream]:
        schedule, on = self.schedule, self.schedule.on
        ring, apart = f"memory{column}.activations", memory_shares(on).activations
        sends, into, out = [], [], list[Chain]()
        kept = schedule.stays.source or schedule.stays.residual
        for first, count, position in self._kinds():
            visits, incoming = self._visits(column, first, count), self._incoming(first)
            sends += runs(visits, SHIM_CHAIN, evenly(position, count * schedule.steps / max(1, len(visits))))
            times = count * schedule.steps * (1 if schedule.stays.source else self._boxes)
            if incoming:
                into.append(([Object(ring, incoming, apart)], times, position, count * schedule.steps / times))
            if kept:
                out += self._mixed(column, first, count, position)
            else:
                out += self.turns.chains(False, [([Object(ring, self._to_cores(first), apart)], times, position, 1 / self._boxes)])
        found = [
            Stream(f"activations shim {column}", Channel(on.shim(column), "out", 0), tuple(sends), needs=True),
            Stream(f"activations in {column}", Channel(on.memory(column), "in", 0), tuple(self.turns.chains(True, into)),
                   needs=bool(self.fills)),
            Stream(f"activations out {column}", Channel(on.memory(column), "out", 0), tuple(out), needs=kept,
                   effect="read" if kept else None),
        ]  # fmt: skip
        for row in range(schedule.listening):
            chains = self.turns.chains(True, self._core_activations(row, column))
            found.append(Stream(f"activations core {column}.{row}", Channel(on.core(row, column), "in", 0), tuple(chains)))
        return found

    @property
    def _boxes(self) -> int:
        """Objects of a memory tile that the parts of a tile come in."""
        return len(self.schedule.parts) // self.schedule.tiling.together

    def _incoming(self, first: int) -> tuple[Move, ...]:
        """How an object comes into a memory tile: of the source, with the residual behind it; but not what stays there."""
        schedule, at, found = self.schedule, 0, list[Move]()
        if not schedule.stays.source:
            found.append(Move(0, self._folded(first)))
            at = schedule.box_bytes(first)
        if schedule.phase.residual is not None and not schedule.stays.residual:
            found.append(Move(at, linear(schedule.residual_bytes(first))))
        return tuple(found)

    def _mixed(self, column: int, first: int, count: int, position: float) -> list[Chain]:
        """How activations go to cores in alike passes, where they come from resident buffers, or some of them do."""
        schedule, channel = self.schedule, Channel(self.schedule.on.memory(column), "out", 0)
        most = len(shares(schedule.on, channel.tile)[channel.direction, channel.number])
        found, steps, ring = list[Visit](), list[float](), bool(self._incoming(first))
        for step, (number, (top, left)) in enumerate(product(range(first, first + count), self._tiles(column))):
            visits = self._tile(column, number, top, left, ring)
            most = most // 2 if step == 0 and len(visits) <= most // 2 else most
            found += visits
            steps += [position + step] * len(visits)
        return runs(found, most, steps.__getitem__)

    def _tile(self, column: int, number: int, top: int, left: int, ring: bool) -> list[Visit]:
        """What goes to cores for a tile: its parts, and before the last of them the residual."""
        schedule, tiling, phase = self.schedule, self.schedule.tiling, self.schedule.phase
        name = f"memory{column}.activations"
        slot = self.turns.take(name, False) * memory_shares(schedule.on).activations if ring else 0

        def from_ring(moves: Sequence[Move]) -> list[Visit]:
            return [Visit(name, slot + move.offset, move.dimensions, move.packet) for move in moves]

        def parts(begin: int, size: int) -> list[Visit]:
            if schedule.stays.source:
                return self._resident_parts(column, number, begin, size, (top, left)) if size else []
            return from_ring(self._parts_to_cores(number, begin, size))

        count = len(schedule.parts)
        if phase.residual is None:
            found = parts(0, count)
        else:
            at = 0 if schedule.stays.source else schedule.box_bytes(number)
            if schedule.stays.residual:
                y, x = phase.residual.y + top, phase.residual.x + left
                between = self._resident_rows(column, number, phase.residual, y, tiling.height, x, tiling.width)
            else:
                between = from_ring(self._to_rows(number, tiling.height, tiling.width, at))
            found = [*parts(0, count - 1), *between, *parts(count - 1, 1)]
        held = [at for at, one in enumerate(found) if one.buffer == name]
        if held:
            found[held[0]] = replace(found[held[0]], acquire=f"{name}.full")
            found[held[-1]] = replace(found[held[-1]], release=f"{name}.empty")
        return found

    def _resident_parts(self, column: int, number: int, begin: int, size: int, tile: tuple[int, int]) -> list[Visit]:
        """So many parts of the source from one on, out of resident buffers."""
        schedule, phase = self.schedule, self.schedule.phase
        found, done = [], 0
        while done < size:
            part = schedule.parts[begin + done]
            y, x = phase.source.y + tile[0] * phase.stride[0] + part.row, phase.source.x + tile[1]
            if phase.own:
                found += self._resident_rows(column, number, phase.source, y, schedule.object_rows, x, schedule.object_width)
                done += 1
                continue
            alike = sum(one.row == part.row for one in schedule.parts[begin + done : begin + size])
            box = Box(y, schedule.object_rows, phase.source.group + part.group, schedule.tiling.part[0], x, schedule.object_width)
            found += self.residents[phase.source.tensor].reads(column, box, TO_ALL, alike, schedule.tiling.apart)
            done += alike
        return found

    def _resident_rows(self, column: int, number: int, of: Region, y: int, rows: int, x: int, width: int) -> list[Visit]:
        """To each row of the overlay the groups that it computes, out of resident buffers."""
        resident, groups = self.residents[of.tensor], self.schedule.tiling.groups
        return [visit for cell in self.schedule.passes[number]
                for visit in resident.reads(column, Box(y, rows, of.group + cell.first, groups, x, width), 1 + cell.row)]

    def _tiles(self, column: int) -> list[tuple[int, int]]:
        """Where the tiles of a column begin."""
        share = self.schedule.share(column)
        return [(top, left) for top in share.tops for left in share.lefts]

    def _folded(self, first: int) -> Dimensions:
        """Where the columns of a line go to in an object of a memory tile: to all those that one stride keeps apart."""
        schedule = self.schedule
        lines, each = schedule.object_rows * schedule.box_groups(first), schedule.object_width // schedule.fold
        return pattern([(lines, schedule.object_width * GROUP), (each, GROUP), (schedule.fold, each * GROUP)], KINDS["memory"])

    def _core_activations(self, row: int, column: int) -> list[tuple[list[Object], int, float, float]]:
        schedule, cycles = self.schedule, []
        ring, parts = f"core{column}.{row}.activations", len(schedule.parts)
        part = Object(ring, (Move(0, linear(schedule.object_bytes)),))
        last = Object(ring, (Move(0, linear(schedule.object_bytes + schedule.result_bytes)),))
        for first, count, position in self._kinds():
            active = row < len(schedule.passes[first])
            if active and schedule.phase.residual is not None:
                cycles.append(([part] * (parts - 1) + [last], count * schedule.steps, float(position), 1.0))
            elif active or not schedule.phase.own:
                cycles.append(([part], count * schedule.steps * parts, float(position), 1 / parts))
        return cycles

    def _visits(self, column: int, first: int, count: int) -> list[Visit]:
        """Where the shim finds the objects of alike passes: parts of the source, and the residual after them; what doesn't stay."""
        schedule, phase = self.schedule, self.schedule.phase
        boxes = schedule.parts[:: schedule.tiling.together]
        size = (schedule.object_rows, schedule.box_groups(first), schedule.object_width)
        source = self._host_pattern(phase.source, *size)
        residual = phase.residual if phase.residual is not None and not schedule.stays.residual else None
        found = []
        for number in range(first, first + count):
            own, groups = schedule.shared(number)
            for top, left in self._tiles(column):
                for part in boxes if not schedule.stays.source else ():
                    at = (top * phase.stride[0] + part.row, own if phase.own else part.group, left * phase.stride[1])
                    found.append(Visit(phase.source.tensor, self._offset(phase.source, *at), source))
                if residual is not None:
                    size = (schedule.tiling.height, groups, schedule.tiling.width)
                    offset = self._offset(residual, top, own, left)
                    found.append(Visit(residual.tensor, offset, self._host_pattern(residual, *size)))
        return found

    def _offset(self, region: Region, y: int, group: int, x: int) -> int:
        return self.tensors[region.tensor].offset(region.y + y, region.group + group, region.x + x)

    def _host_pattern(self, region: Region, rows: int, groups: int, width: int) -> tuple[tuple[int, int], ...]:
        tensor = self.tensors[region.tensor]
        return pattern([(rows, tensor.row), (groups, tensor.line), (width, GROUP)], KINDS["shim"])

    def _to_cores(self, first: int) -> tuple[Move, ...]:
        """How an object of a memory tile goes to cores: all parts to all of them, or each row's groups to it. The residual, each
        row's groups to it, comes before the last part."""
        schedule, tiling = self.schedule, self.schedule.tiling
        if schedule.phase.residual is None:
            return self._parts_to_cores(first, 0, tiling.together)
        residual = self._to_rows(first, tiling.height, tiling.width, schedule.box_bytes(first))
        return (*self._parts_to_cores(first, 0, tiling.together - 1), *residual,
                *self._parts_to_cores(first, tiling.together - 1, 1))

    def _parts_to_cores(self, first: int, part: int, count: int) -> tuple[Move, ...]:
        """So many parts from one on."""
        schedule = self.schedule
        if not count:
            return ()
        if schedule.phase.own:
            return self._to_rows(first, schedule.object_rows, schedule.object_width)
        groups, line = schedule.tiling.part[0], schedule.object_width * GROUP
        parts = [(count, schedule.tiling.apart * line), (schedule.object_rows, schedule.box_groups(first) * line), (groups, line),
                 (schedule.object_width, GROUP)]
        return (Move(part * schedule.tiling.apart * line, pattern(parts, KINDS["memory"]), TO_ALL),)

    def _to_rows(self, first: int, height: int, width: int, at: int = 0) -> tuple[Move, ...]:
        """To each row the groups that it computes, of what lies from byte ``at`` of an object on, and has those of all."""
        schedule, line = self.schedule, width * GROUP
        start, groups = schedule.shared(first)
        size = pattern([(height, groups * line), (schedule.tiling.groups, line), (width, GROUP)], KINDS["memory"])
        return tuple(Move(at + (cell.first - start) * line, size, 1 + cell.row) for cell in schedule.passes[first])

    def _results(self, column: int) -> list[Stream]:
        schedule, on = self.schedule, self.schedule.on
        words, found, stays = linear(schedule.result_bytes), [], self.schedule.stays.result
        for sender in dict.fromkeys(on.sender(row) for row in range(schedule.rows)):
            leaving, coming, kept = [], [], list[Chain]()
            for first, count, position in self._kinds():
                rows = [cell.row for cell in schedule.passes[first] if on.sender(cell.row) == sender]
                cycle = (count * schedule.steps, float(position), 1.0)
                leaving.append(([Object(f"core{column}.{row}.results", (Move(0, words),)) for row in rows], *cycle))
                coming.append(([Object(f"memory{column}.results{row}", (Move(0, words),)) for row in rows], *cycle))
                if stays and rows:
                    kept += runs(self._resident_results(column, sender, first, count), RESULTS_CHAIN, evenly(position, 1.0))
            core, memory = Channel(on.core(sender, column), "out", 0), on.result_memory(sender, column)
            taken = Channel(memory, "in", on.results_input(sender))
            found.append(Stream(f"results core {column}.{sender}", core, tuple(self.turns.chains(False, leaving))))
            if stays:
                found.append(Stream(f"results in {column}.{sender}", taken, tuple(kept), needs=self.reuses, effect="resident"))
            else:
                found.append(Stream(f"results in {column}.{sender}", taken, tuple(self.turns.chains(True, coming))))
        for number in range(on.memories if schedule.stays.out else 0):
            found += self._results_out(column, number)
        return found

    def _resident_results(self, column: int, row: int, first: int, count: int) -> list[Visit]:
        """Where results of a row go to in the resident buffer. If they go on to host memory, in step with those that leave."""
        schedule, target, ring = self.schedule, self.schedule.phase.target, f"memory{column}.results{row}"
        resident, tiling = self.residents[target.tensor], schedule.tiling
        locks = (f"{ring}.empty", f"{ring}.full") if schedule.stays.out else (None, None)
        size = resident.written(tiling.height, tiling.groups, tiling.width)
        return [Visit(resident_buffer(column), resident.offset(column, top, target.group + schedule.passes[number][row].first, left),
                      size, None, *locks)
                for number in range(first, first + count) for top, left in self._tiles(column)]

    def _results_out(self, column: int, number: int) -> list[Stream]:
        """Through one memory tile: for every step what is new of the results of its rows, one after another."""
        schedule, on, tiling, target = self.schedule, self.schedule.on, self.schedule.tiling, self.schedule.phase.target
        share, tensor = schedule.share(column), self.tensors[self.schedule.phase.target.tensor]
        above, before = share.skip
        height, width, line = tiling.height - above, tiling.width - before, tiling.width * GROUP
        out, into = list[Chain](), []
        for first, count, position in self._kinds():
            cells = [cell for cell in schedule.passes[first] if cell.row // ROWS_PER_MEMORY == number]
            if not cells:
                continue
            objects, groups = [], 0
            for cell in cells:
                new = tiling.groups - cell.skip
                size = [(new, line), (height, tiling.groups * line), (width, GROUP)]
                at = above * tiling.groups * line + cell.skip * line + before * GROUP
                objects.append(Object(f"memory{column}.results{cell.row}", (Move(at, pattern(size, KINDS["memory"])),)))
                groups += new
            if schedule.stays.result:
                out += runs(self._resident_out(column, first, count), len(cells), evenly(position, 1 / len(cells)))
            else:
                out += self.turns.chains(False, [(objects, count * schedule.steps, float(position), 1.0)])
            offsets = [self._offset(target, top + above, passed[cells[0].row].first + passed[cells[0].row].skip, left + before)
                       for passed in schedule.passes[first : first + count] for top, left in self._tiles(column)]
            if share.idle:
                visits = [Visit(idle(column, number), 0, linear(groups * height * width * GROUP)) for _ in offsets]
            else:
                size = [(groups, tensor.line), (height, tensor.row), (width, GROUP)]
                visits = [Visit(target.tensor, offset, pattern(size, KINDS["shim"])) for offset in offsets]
            into += runs(visits, SHIM_CHAIN, evenly(position, 1.0))
        channel = Channel(on.memory(column, number), "out", results_output(number))
        return [Stream(f"results out {column}.{number}", channel, tuple(out)),
                Stream(f"results shim {column}.{number}", Channel(on.shim(column), "in", number), tuple(into), effect="host")]

    def _resident_out(self, column: int, first: int, count: int) -> list[Visit]:
        """The same from the resident buffer, as results come in there."""
        schedule, target, above = self.schedule, self.schedule.phase.target, self.schedule.share(column).skip[0]
        resident, tiling = self.residents[target.tensor], schedule.tiling
        size = resident.read(tiling.height - above, tiling.groups, tiling.width)

        def visit(cell: Cell, top: int, left: int) -> Visit:
            ring, at = f"memory{column}.results{cell.row}", resident.offset(column, top + above, target.group + cell.first, left)
            return Visit(resident_buffer(column), at, size, None, f"{ring}.full", f"{ring}.empty")

        return [visit(cell, top, left) for number in range(first, first + count) for top, left in self._tiles(column)
                for cell in schedule.passes[number]]
