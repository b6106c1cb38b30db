"""Descriptors: their numbers, what the fields of their registers can hold, and whether they stay inside buffers that they reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zellige.aie2.device import ADVANCE_MOST, KINDS, WORD, Device, TileKind
from zellige.aie2.program import Buffer, Channel, Descriptor, HostBuffer, Program, Tile
from zellige.aie2.simulate.memory import merged

NEIGHBOURLY = 4
"""Channels of a memory tile below this reach the memories and locks of the tiles to the east and west (AM020, AM027)."""


def descriptors(program: Program, device: Device) -> Iterator[str]:
    buffers: dict[str, Buffer | HostBuffer] = {one.name: one for one in program.buffers}
    buffers.update((one.name, one) for one in program.host)
    locks = {one.name: one.tile for one in program.locks}
    for task in program.tasks.values():
        kind = KINDS[device.kind(task.channel.tile.row)]
        reached = _reached(task.channel, device)
        for one in task.descriptors:
            sentences = [*_number(task.channel, one, kind), *_pattern(one, kind), *_place(one, buffers.get(one.buffer), reached),
                         *_locks(one, locks, reached)]  # fmt: skip
            yield from (f"the task {task.name} on {task.channel}, descriptor {one.number}: {sentence}" for sentence in sentences)


def _number(channel: Channel, one: Descriptor, kind: TileKind) -> Iterator[str]:
    if not 0 <= one.number < kind.descriptors:
        yield f"a tile of its kind has descriptors 0 … {kind.descriptors - 1}"
    elif kind.parity and (one.number >= kind.descriptors // 2) != channel.number % 2:
        half = kind.descriptors // 2
        yield f"even channels use descriptors 0 … {half - 1}, odd ones {half} … {kind.descriptors - 1}"


def _pattern(one: Descriptor, kind: TileKind) -> Iterator[str]:
    counted = [(size, stride) for size, stride in one.dimensions if size != 1]
    if any(size < 1 or stride < 1 for size, stride in one.dimensions):
        yield f"sizes and strides are at least 1; it has {one.dimensions}"
        return
    if len(counted) > kind.dimensions:
        yield f"{len(counted)} dimensions; {kind.dimensions} are possible"
    if any(stride > kind.strides for _, stride in counted):
        yield f"a stride of {max(stride for _, stride in counted)} words; {kind.strides} is possible"
    side_by_side = len(merged(one.dimensions)) == 1 and merged(one.dimensions)[0][1] == 1
    if not side_by_side and any(size > kind.sizes for size, _ in counted[1:]):
        yield f"an inner dimension of {max(size for size, _ in counted[1:])} words; {kind.sizes} are possible"
    count, stride = one.advance
    if not 1 <= count <= ADVANCE_MOST or not 0 <= stride <= kind.strides:
        yield f"it advances {count} times by {stride} words; {ADVANCE_MOST} times by {kind.strides} is possible"


def _place(one: Descriptor, buffer: Buffer | HostBuffer | None, reached: set[Tile]) -> Iterator[str]:
    if buffer is None:
        yield f"there is no buffer {one.buffer}"
        return
    if isinstance(buffer, HostBuffer):
        if reached:
            yield f"the buffer {one.buffer} is in external memory, which only shims reach"
    elif buffer.tile not in reached:
        yield f"the channel doesn't reach the buffer {one.buffer} at {buffer.tile}"
    if one.offset % WORD or one.offset < 0:
        yield f"it starts at byte {one.offset}, which is no whole number of words"
    if one.offset + one.reach > buffer.size:
        yield f"it goes to byte {one.offset + one.reach} of {one.buffer}, which has {buffer.size}"


def _locks(one: Descriptor, locks: Mapping[str, Tile], reached: set[Tile]) -> Iterator[str]:
    for does, lock in (("acquires", one.acquire), ("releases", one.release)):
        if lock is not None and lock not in locks:
            yield f"it {does} the lock {lock}, which isn't there"
        elif lock is not None and locks[lock] not in reached:
            yield f"it {does} the lock {lock} at {locks[lock]}, which the channel doesn't reach"


def _reached(channel: Channel, device: Device) -> set[Tile]:
    """Tiles whose memory a channel reaches: none, for a shim's."""
    tile, kind = channel.tile, device.kind(channel.tile.row)
    if kind == "memory" and channel.number < NEIGHBOURLY:
        return {Tile(tile.column + step, tile.row) for step in (-1, 0, 1)}
    return set() if kind == "shim" else {tile}
