"""The choice of tilings: a search over all that fit, for the least estimated time.

The estimate is simple: in every step, the slowest of the cores' work and of the streams that it needs; or, over the whole phase,
shims and external memory; and the filling of the pipeline. The simulator gives the time of what was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, inf

import numpy as np

from zellige.aie2.cycles import step_cycles
from zellige.aie2.device import WORD, Device
from zellige.aie2.lowering.packets import pays
from zellige.aie2.lowering.parts import Counts
from zellige.aie2.lowering.schedule import NOTHING_STAYS, VARIED, Schedule, Stays, Tiling
from zellige.aie2.overlay import DEPTH, ROWS_PER_MEMORY, Overlay, memory_shares
from zellige.aie2.packet import ALIGNMENT, GROUP, MAXIMUM, PRODUCT, TABLE, Header, Packet, packet_size
from zellige.aie2.phase import Array, Phase
from zellige.aie2.simulate.costs import costs_of
from zellige.errors import CompileError

NEAR = 1.3
"""Overlapping parts are tried where others come so near to the best."""

CHAIN = 8
"""Descriptors that a core has for its activations (``sequence.py``). Where there is a residual, a part needs one; or two, if there
is an odd number of them, as slots alternate."""


BOXES = 4
"""Objects of a memory tile that parts come in, at most, if there is the choice: more would be more tasks."""


@dataclass(frozen=True)
class Estimate:
    """Cycles of a phase, and what each thing alone would take: ``work`` of the slowest cores, ``activations`` and ``packets``
    through streams, ``shim`` (activations from external memory), ``results``, and ``external`` memory."""

    cycles: float
    alone: tuple[tuple[str, float], ...]

    @property
    def bound(self) -> str:
        """What takes most; ``fill`` if that is less than half of the whole."""
        name, most = max(self.alone, key=lambda one: one[1])
        return name if most > self.cycles / 2 else "fill"


def packet_bytes(phase: Phase, groups: int, taps: Array) -> Array:
    """Bytes of packets with so many taps ([…, parts]): exact, or a few more."""
    parts = [(part == 0, part == taps.shape[-1] - 1) for part in range(taps.shape[-1])]
    second = phase.residual is not None
    size = {(first, last): packet_size(phase.operation, groups, 0, first, last, 1 + (last and second))
            for first, last in dict.fromkeys(parts)}
    each = 2 + (GROUP * GROUP if phase.operation == PRODUCT else 0)
    return np.asarray(np.array([size[part] for part in parts]) + each * taps + ALIGNMENT * (taps > 0))


@cache
def step_line(device: Device, operation: int, height: int, width: int, stride: int, first: bool, last: bool,
              terms: int) -> tuple[float, float, float]:
    """What a step takes: cycles for each tap, for each group, and for itself."""
    def cycles(groups: int, taps: int) -> float:
        counts = np.zeros(groups, np.uint16)
        counts[0] = taps
        header = Header(0, operation, 1, terms, int(last), groups, height, width, 1, 1, stride, int(first), int(last), 0, 0)
        zeros, ones = np.zeros((groups, GROUP), np.int32), np.ones((groups, GROUP), np.int32)
        offsets, blocks = np.zeros(taps, np.uint16), np.zeros((taps, GROUP, GROUP), np.int8)
        return step_cycles(Packet(header, counts, offsets, blocks, zeros, ones, ones, zeros, blocks[0, 0]), device)

    one, costs = cycles(1, 1), costs_of(device)
    call = costs.call + 2 * costs.lock * (1 + last)  # an object's lock is acquired and released
    return cycles(1, 2) - one, cycles(2, 1) - one, call + 2 * one - cycles(1, 2) - cycles(2, 1) + one


@dataclass(frozen=True, eq=False)
class _Cut:
    """What of a tiling doesn't depend on its tiles: the schedule with any, taps of the fullest cell of each pass and part, and
    the sizes of packets."""

    schedule: Schedule
    taps: Array
    packet: float
    """Bytes of the largest, for a core."""
    homes: tuple[Array, Array]
    """Bytes that the busiest shim sends for each pass and part: where all packets of a row have one size, and where each has its
    own."""
    all_packets: tuple[float, float]
    """Bytes of all packets, sent once."""


def _cut(phase: Phase, on: Overlay, counts: Counts, groups: int, part: tuple[int, int], apart: int, stays: Stays) -> _Cut:
    schedule = Schedule(phase, on, Tiling((1, 1), 1, 1, groups, part, apart), stays)
    taps = counts.taps(schedule)
    own = packet_bytes(phase, groups, taps)
    alike = np.broadcast_to(own.max(axis=(0, 2), keepdims=True), own.shape)
    homes = np.array([on.home(row) for row in range(own.shape[1])])
    busiest = [np.max([sizes[:, homes == home].sum(axis=1) for home in set(homes.tolist())], axis=0) for sizes in (alike, own)]
    return _Cut(schedule, taps.max(axis=1), float(own.max()), (busiest[0], busiest[1]), (float(alike.sum()), float(own.sum())))


@dataclass(frozen=True, eq=False)
class _Tiles:
    """All tiles that are tried, as arrays of one number each."""

    columns: tuple[tuple[int, int], ...]
    height: Array
    width: Array
    steps: Array
    lines: Mapping[tuple[bool, bool], Array]
    """Cycles of steps (``step_line``), [tiles, 3], for parts that are (first, last)."""

    def only(self, chosen: Array) -> _Tiles:
        columns = tuple(one for one, kept in zip(self.columns, chosen, strict=True) if kept)
        lines = {part: cycles[chosen] for part, cycles in self.lines.items()}
        return _Tiles(columns, self.height[chosen], self.width[chosen], self.steps[chosen], lines)


def _timed(phase: Phase, on: Overlay, found: list[tuple[tuple[int, int], int, int, int]]) -> _Tiles:
    """Tiles (columns, height, width, steps), with the cycles of their steps."""
    columns, height, width, steps = zip(*found, strict=True)
    lines = {(first, last): np.array([step_line(on.device, phase.operation, *size, phase.stride[0], first, last, terms)
                                      for size in zip(height, width, strict=True)])
             for first in (True, False) for last, terms in ((True, 1 + (phase.residual is not None)), (False, 1))}
    return _Tiles(columns, np.array(height), np.array(width), np.array(steps), lines)


def _lengths(size: int) -> list[int]:
    """Of tiles, one for each number of tiles: the least that make so many."""
    return sorted({ceil(size / count) for count in range(1, size + 1)})


def _tiles(phase: Phase, on: Overlay, stays: Stays) -> _Tiles:
    found = [((down, across), height, width, ceil(ceil(phase.height / down) / height) * ceil(ceil(phase.width / across) / width))
             for down, across in ([(on.columns, 1)] if stays.any else _splits(on, phase))
             for height in _lengths(ceil(phase.height / down)) for width in _lengths(ceil(phase.width / across))
             if height * width * GROUP <= on.core_memory.results]
    return _timed(phase, on, found)


def _splits(on: Overlay, phase: Phase) -> Iterator[tuple[int, int]]:
    """How columns may share the result: (down, across)."""
    for down in range(1, min(on.columns, phase.height) + 1):
        across = min(on.columns // down, phase.width)
        if down == 1 or down * across > on.columns // 2:
            yield down, across


def _parts(phase: Phase) -> list[tuple[int, int]]:
    """Groups and window rows of the parts that are tried, the largest first."""
    windows = [rows for rows in range(phase.window[0], 0, -1) if phase.window[0] % rows == 0]
    if phase.operation in (MAXIMUM, TABLE):
        windows = windows[:1]
    if phase.own:
        return [(phase.source.groups, rows) for rows in windows]
    sizes = sorted({ceil(phase.source.groups / count) for count in range(1, phase.source.groups + 1)}, reverse=True)
    return [(size, phase.window[0]) for size in sizes] + [(1, rows) for rows in windows[1:]]


@dataclass(frozen=True, eq=False)
class Choice:
    """A schedule, what it should take, and the order of result groups that it is meant for: their numbers, as they should lie."""

    schedule: Schedule
    estimate: Estimate
    order: tuple[int, ...]


def choose(phase: Phase, on: Overlay, free: bool = False, stays: Stays = NOTHING_STAYS, counts: Counts | None = None) -> Choice:
    """The best schedule of a phase. ``free``: its result groups may be put into another order, so that cores have as much to do as
    each other. ``stays``: which of its values are in memory tiles. ``counts``: those of the phase, if somebody has them already.

    Raises ``CompileError`` if none fits.
    """
    search = _Search(phase, on, free, stays, counts or Counts(phase))
    rows = min(on.rows, ROWS_PER_MEMORY if phase.own else on.rows)
    for groups in sorted({ceil(phase.groups / (count * rows)) for count in range(1, phase.groups + 1)}):
        dealt = search.dealt(groups)
        for part in _parts(phase):
            found = search.attempt(dealt, groups, part, part[0])
            if not dealt.dense and not phase.own and part[0] > 1 and found < NEAR * search.best:
                for apart in sorted({ceil(3 * part[0] / 4), ceil(part[0] / 2)} - {part[0]}):
                    search.attempt(dealt, groups, part, apart)
    if search.tiling is None:
        raise CompileError(f"node {phase.node!r}: no tile of it, however small, fits the memories of {on}")
    dealt = search.dealt(search.tiling.groups)
    schedule = _together(Schedule(phase, on, search.tiling, stays), dealt)
    return Choice(schedule, estimate(schedule, dealt), dealt.order)


@dataclass
class _Search:
    """The best tiling so far."""

    phase: Phase
    on: Overlay
    free: bool
    stays: Stays
    counts: Counts
    best: float = inf
    tiling: Tiling | None = None

    def __post_init__(self) -> None:
        self._tiles = _tiles(self.phase, self.on, self.stays)
        self._room = min(self.on.core_memory.weights, memory_shares(self.on).weights)

    def dealt(self, groups: int) -> Counts:
        """The counts of taps, of result groups in the order that suits such cells."""
        return self.counts.dealt(groups) if self.free else self.counts

    def attempt(self, counts: Counts, groups: int, part: tuple[int, int], apart: int) -> float:
        """Try all tiles; cycles of the best, 0 if packets are too large for now, and ``inf`` if none fits."""
        cut = _cut(self.phase, self.on, counts, groups, part, apart, self.stays)
        if not cut.schedule.stays_whole:
            return inf
        if cut.packet > self._room:
            return 0.0 if cut.packet < 2 * self._room else inf
        tiles = self._tiles.only(_fits(cut, self._tiles))
        if not tiles.columns:
            return inf
        cycles = _estimate(cut, tiles)["cycles"]
        at = int(np.argmin(cycles))
        if cycles[at] < self.best:
            self.best = float(cycles[at])
            self.tiling = Tiling(tiles.columns[at], int(tiles.height[at]), int(tiles.width[at]), groups, part, apart)
        return float(cycles[at])


def fits(schedule: Schedule) -> bool:
    """Whether a schedule keeps to all capacities."""
    cut, one = _alone(schedule, Counts(schedule.phase))
    room = min(schedule.on.core_memory.weights, memory_shares(schedule.on).weights)
    agrees = schedule.stays_whole and (not schedule.stays.any or schedule.tiling.columns == (schedule.on.columns, 1))
    return agrees and cut.packet <= room and bool(_fits(cut, one)[0])


def estimate(schedule: Schedule, counts: Counts | None = None) -> Estimate:
    """What a schedule should take."""
    found = {name: float(cycles[0]) for name, cycles in _estimate(*_alone(schedule, counts or Counts(schedule.phase))).items()}
    return Estimate(found.pop("cycles"), tuple(found.items()))


def _alone(schedule: Schedule, counts: Counts) -> tuple[_Cut, _Tiles]:
    """The tiling of a schedule, as the only one that is tried."""
    phase, on, tiling = schedule.phase, schedule.on, schedule.tiling
    cut = _cut(phase, on, counts, tiling.groups, tiling.part, tiling.apart, schedule.stays)
    return cut, _timed(phase, on, [(tiling.columns, tiling.height, tiling.width, schedule.steps)])


def _together(schedule: Schedule, counts: Counts) -> Schedule:
    """With parts in objects of a memory tile as ``_in_box`` says."""
    cut, one = _alone(schedule, counts)
    return replace(schedule, tiling=replace(schedule.tiling, together=int(_in_box(cut, _objects(cut, one)[0])[0])))


def _in_box(cut: _Cut, read: Array) -> Array:
    """How many parts lie in an object of a memory tile: few, as cores begin when the first object is there; where parts overlap,
    as many as it holds, as what they share then comes once; all, where a residual comes with the last."""
    schedule, most = cut.schedule, memory_shares(cut.schedule.on).activations
    tiling, count = schedule.tiling, len(schedule.parts)
    if schedule.phase.residual is not None:
        return np.full(len(read), count)
    many = 1 if schedule.phase.own or tiling.part[1] < schedule.phase.window[0] else count
    tried = [size for size in range(1, many + 1) if many % size == 0]
    few = [] if tiling.apart < tiling.part[0] else [size for size in tried if count <= BOXES * size]
    found = np.ones(len(read), np.int64)
    for together in (*tried, *reversed(few)):
        found = np.where(read * (tiling.part[0] + tiling.apart * (together - 1)) <= most, together, found)
    return found


def _objects(cut: _Cut, tiles: _Tiles) -> tuple[Array, Array]:
    """Bytes of activations for a group, and of a result's group, for each tile."""
    phase, part_rows = cut.schedule.phase, cut.schedule.tiling.part[1]
    rows = (tiles.height - 1) * phase.stride[0] + part_rows
    columns = cut.schedule.fold * -(-((tiles.width - 1) * phase.stride[1] + phase.window[1]) // cut.schedule.fold)
    return GROUP * rows * columns, GROUP * tiles.height * tiles.width


def _fits(cut: _Cut, tiles: _Tiles) -> Array:
    """Which tiles keep to all capacities."""
    schedule, core, memory = cut.schedule, cut.schedule.on.core_memory, memory_shares(cut.schedule.on)
    parts, size = len(schedule.parts), schedule.tiling.groups
    read, result = _objects(cut, tiles)
    in_pass = max(schedule.shared(number)[1] for number in range(len(schedule.passes)))
    fine = (read * schedule.object_groups <= core.activations) & (result * size <= min(core.results, memory.results))
    fine &= read * (in_pass if schedule.phase.own else schedule.tiling.part[0]) <= memory.activations
    if parts > 1:
        fine &= 4 * result * size <= core.accumulators
    if schedule.stays.result and schedule.stays.out:
        fine &= _apart(schedule.phase, schedule.on, tiles)
    if schedule.phase.residual is not None:
        if parts * (1 + parts % DEPTH) > CHAIN or schedule.tiling.part[1] != schedule.phase.window[0]:
            return np.zeros_like(fine)
        whole = in_pass if schedule.phase.own else schedule.tiling.part[0] + schedule.tiling.apart * (parts - 1)
        fine &= read * whole + result * in_pass <= memory.activations
        fine &= read * schedule.object_groups + result * size <= core.activations
    return np.asarray(fine)


def _apart(phase: Phase, on: Overlay, tiles: _Tiles) -> Array:
    """Which tiles lie side by side in all columns: where results stay and leave as well, they can't be written a second time."""
    each = ceil(phase.height / on.columns)
    whole = (each * on.columns == phase.height) & (each % tiles.height == 0)
    return np.asarray(((tiles.height == each) | whole) & (phase.width % tiles.width == 0))


def _work(cut: _Cut, tiles: _Tiles) -> Array:
    """Cycles of the slowest core in a step: [tiles, passes, parts]."""
    parts, groups = len(cut.schedule.parts), cut.schedule.tiling.groups
    lines = np.stack([tiles.lines[part == 0, part == parts - 1] for part in range(parts)], axis=1)[:, None]
    return lines[..., 0] * cut.taps + lines[..., 1] * groups + lines[..., 2]


def _estimate(cut: _Cut, tiles: _Tiles) -> dict[str, Array]:
    """The estimates of tiles: ``cycles``, and what each thing alone would take."""
    schedule, phase, on, stays = cut.schedule, cut.schedule.phase, cut.schedule.on, cut.schedule.stays
    parts, size, passes = len(schedule.parts), schedule.tiling.groups, schedule.passes
    shim = on.device.shim_bytes / on.device.clock
    external = (on.device.ddr_bytes or inf) / on.device.clock
    read, result = _objects(cut, tiles)
    rows = np.array([len(cells) for cells in passes])
    work = _work(cut, tiles)
    arriving = (read * schedule.object_groups / WORD)[:, None, None] * (rows if phase.own else np.ones_like(rows))[:, None]
    arriving = np.broadcast_to(arriving, work.shape).copy()
    residual = (result * size / WORD)[:, None] * rows if phase.residual is not None else np.zeros((len(tiles.columns), len(rows)))
    arriving[:, :, -1] += residual
    each = np.maximum(work, arriving)
    again = tiles.steps if parts > 1 else np.ones_like(tiles.steps)
    varied = (again * len(passes) * parts <= VARIED) & (on.rows <= on.columns) & pays(cut.all_packets[1], cut.all_packets[0])
    sending = np.where(varied[:, None, None], cut.homes[1], cut.homes[0]) / min(WORD, (1 + schedule.halved) * shim)
    if parts > 1:
        stepping = np.maximum(each, sending).sum(axis=(1, 2)) * tiles.steps
    else:
        in_pass = each.sum(axis=2) * tiles.steps[:, None]
        stepping = (np.maximum(in_pass, sending[:, :, 0]) if len(passes) > 1 else in_pass).sum(axis=1)
    groups = sum(schedule.shared(number)[1] if phase.own else schedule.tiling.part[0] for number in range(len(passes)))
    boxes = tiles.steps * ((not stays.source) * read * groups * parts + (not stays.residual) * WORD * residual.sum(axis=1))
    results = tiles.steps * result * size
    leaving = results * np.minimum(rows, ROWS_PER_MEMORY).sum() / min(WORD, shim) if stays.out else results * len(rows) / WORD
    alone = {
        "work": work.sum(axis=(1, 2)) * tiles.steps, "activations": arriving.sum(axis=(1, 2)) * tiles.steps,
        "packets": again * sending.sum(axis=(1, 2)), "shim": boxes / shim, "results": leaving,
        "external": (on.columns * (boxes + stays.out * results * rows.sum()) + again * np.where(varied, *cut.all_packets[::-1]))
        / external,
    }
    box = schedule.tiling.part[0] + schedule.tiling.apart * (_in_box(cut, read) - 1)
    source = read * (schedule.object_groups if phase.own else box)
    first = (not stays.source) * source + (not stays.residual) * WORD * residual.max(axis=1)
    fill = first / shim + read * schedule.object_groups / WORD + work[:, -1, -1] + (1 + stays.out) * result * size / WORD
    return {"cycles": np.maximum(stepping, np.maximum.reduce(list(alone.values()))) + fill, **alone}
