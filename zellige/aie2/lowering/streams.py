"""What the channels of the overlay do in a phase: chains for all of them, and whose turn the slots of rings are afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from zellige.aie2.device import KINDS
from zellige.aie2.lowering.chains import Chain, Dimensions, Move, Object, Turns, Visits, linear, pattern, runs
from zellige.aie2.lowering.packets import Parcel, batches, listeners, order
from zellige.aie2.lowering.schedule import Schedule
from zellige.aie2.overlay import DEPTH, ROWS_PER_MEMORY, TO_ALL, memory_shares, results_output
from zellige.aie2.packet import GROUP
from zellige.aie2.phase import Region
from zellige.aie2.program import Channel, Descriptor
from zellige.aie2.tensor import Tensor

SHIM_CHAIN = 2
"""Descriptors of a chain of a shim: half of what its channel has, so that the next task can wait behind the one that runs."""


def idle(column: int, number: int) -> str:
    """The host buffer that takes what an idle column sends through one of its memory tiles."""
    return f"idle{column}.{number}"


@dataclass(frozen=True)
class Stream:
    """All that a channel does in a phase. ``what`` is for names. ``needs``: it reads results of phases before; ``gives``: it
    writes results; ``ahead``: it brings packets, the first of which may come while the phase before is at work."""

    what: str
    channel: Channel
    chains: tuple[Chain, ...]
    needs: bool = False
    gives: bool = False
    ahead: bool = False


def _ahead(stream: Stream, each: float) -> Stream:
    """What brings packets, one every ``each`` steps, some steps before they are needed, though not before the phase begins. Whoever
    then waits for a task with an earlier packet, waits for a core to be done with the last but ``DEPTH`` before that: for steps
    that have been started."""
    chains = (replace(one, position=min(one.position, max(one.position - DEPTH * each, each / DEPTH))) for one in stream.chains)
    return replace(stream, chains=tuple(chains), ahead=True)


@dataclass(frozen=True)
class Lowering:
    """A scheduled phase, where its tensors lie, its packets (by the column that sends them), and the turns of all rings."""

    schedule: Schedule
    tensors: Mapping[str, Tensor]
    parcels: Mapping[int, Parcel]
    turns: Turns

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
                    sends += runs([Visits(name, batch.starts, moves[0].dimensions)], SHIM_CHAIN, begins, each / len(rows))
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

    def _activations(self, column: int) -> list[Stream]:
        schedule, on = self.schedule, self.schedule.on
        ring, boxes = f"memory{column}.activations", len(schedule.parts) // schedule.tiling.together
        apart = memory_shares(on).activations
        sends, into, out = [], [], []
        for first, count, position in self._kinds():
            sends += runs(self._visits(column, first, count), SHIM_CHAIN, position, 1 / boxes)
            incoming: tuple[Move, ...] = (Move(0, self._folded(first)),)
            if schedule.phase.residual is not None:
                incoming += (Move(schedule.box_bytes(first), linear(schedule.residual_bytes(first))),)
            times = count * schedule.steps * boxes
            into.append(([Object(ring, incoming, apart)], times, position, 1 / boxes))
            out.append(([Object(ring, self._to_cores(first), apart)], times, position, 1 / boxes))
        found = [
            Stream(f"activations shim {column}", Channel(on.shim(column), "out", 0), tuple(sends), needs=True),
            Stream(f"activations in {column}", Channel(on.memory(column), "in", 0), tuple(self.turns.chains(True, into))),
            Stream(f"activations out {column}", Channel(on.memory(column), "out", 0), tuple(self.turns.chains(False, out))),
        ]
        for row in range(schedule.listening):
            chains = self.turns.chains(True, self._core_activations(row, column))
            found.append(Stream(f"activations core {column}.{row}", Channel(on.core(row, column), "in", 0), tuple(chains)))
        return found

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

    def _visits(self, column: int, first: int, count: int) -> list[Visits]:
        """Where the shim finds the objects of alike passes: parts of the source, and the residual after them."""
        schedule, phase = self.schedule, self.schedule.phase
        share, boxes = schedule.share(column), schedule.parts[:: schedule.tiling.together]
        tiles = [(top, left) for top in share.tops for left in share.lefts]
        source, residual = [], []
        for number in range(first, first + count):
            own = schedule.shared(number)[0]
            for top, left in tiles:
                for part in boxes:
                    at = (top * phase.stride[0] + part.row, own if phase.own else part.group, left * phase.stride[1])
                    source.append(self._offset(phase.source, *at))
                if phase.residual is not None:
                    residual.append(self._offset(phase.residual, top, own, left))
        size = (schedule.object_rows, schedule.box_groups(first), schedule.object_width)
        found = [Visits(phase.source.tensor, tuple(source), self._host_pattern(phase.source, *size))]
        if phase.residual is not None:
            size = (schedule.tiling.height, schedule.shared(first)[1], schedule.tiling.width)
            found.append(Visits(phase.residual.tensor, tuple(residual), self._host_pattern(phase.residual, *size)))
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
        words, found = linear(schedule.result_bytes), []
        for sender in dict.fromkeys(on.sender(row) for row in range(schedule.rows)):
            leaving, coming = [], []
            for first, count, position in self._kinds():
                rows = [cell.row for cell in schedule.passes[first] if on.sender(cell.row) == sender]
                cycle = (count * schedule.steps, float(position), 1.0)
                leaving.append(([Object(f"core{column}.{row}.results", (Move(0, words),)) for row in rows], *cycle))
                coming.append(([Object(f"memory{column}.results{row}", (Move(0, words),)) for row in rows], *cycle))
            core, memory = Channel(on.core(sender, column), "out", 0), on.result_memory(sender, column)
            found += [Stream(f"results core {column}.{sender}", core, tuple(self.turns.chains(False, leaving))),
                      Stream(f"results in {column}.{sender}", Channel(memory, "in", on.results_input(sender)),
                             tuple(self.turns.chains(True, coming)))]  # fmt: skip
        for number in range(on.memories):
            found += self._results_out(column, number)
        return found

    def _results_out(self, column: int, number: int) -> list[Stream]:
        """Through one memory tile: for every step what is new of the results of its rows, one after another."""
        schedule, on, tiling, target = self.schedule, self.schedule.on, self.schedule.tiling, self.schedule.phase.target
        share, tensor = schedule.share(column), self.tensors[self.schedule.phase.target.tensor]
        above, before = share.skip
        height, width, line = tiling.height - above, tiling.width - before, tiling.width * GROUP
        out, into = [], []
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
            out.append((objects, count * schedule.steps, float(position), 1.0))
            offsets = [self._offset(target, top + above, passed[cells[0].row].first + passed[cells[0].row].skip, left + before)
                       for passed in schedule.passes[first : first + count] for top in share.tops for left in share.lefts]
            if share.idle:
                visits = Visits(idle(column, number), (0,) * len(offsets), linear(groups * height * width * GROUP))
            else:
                size = [(groups, tensor.line), (height, tensor.row), (width, GROUP)]
                visits = Visits(target.tensor, tuple(offsets), pattern(size, KINDS["shim"]))
            into += runs([visits], SHIM_CHAIN, position, 1.0)
        channel = Channel(on.memory(column, number), "out", results_output(number))
        return [Stream(f"results out {column}.{number}", channel, tuple(self.turns.chains(False, out))),
                Stream(f"results shim {column}.{number}", Channel(on.shim(column), "in", number), tuple(into), gives=True)]
