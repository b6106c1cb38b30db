"""Tasks on channels, and the sequence that starts and awaits them."""

from __future__ import annotations

from collections.abc import Iterator

from zellige.aie2.check.places import is_there
from zellige.aie2.device import KINDS, REPEAT_MOST, Device
from zellige.aie2.program import Channel, Program, Start


def refuse_channel(channel: Channel, device: Device) -> Iterator[str]:
    """Why there is no such channel."""
    tile = channel.tile
    if not is_there(device, tile):
        yield f"there is no tile for the channel {channel}"
        return
    kind = KINDS[device.kind(tile.row)]
    most = kind.inputs if channel.direction == "in" else kind.outputs
    if not 0 <= channel.number < most:
        yield f"there is no channel {channel}: a {device.kind(tile.row)} tile has {most} of that direction"
    if tile.row == 0 and tile.column not in device.shim_columns:
        yield f"there is no channel {channel}: the shim of column {tile.column} has no DMA; those of {device.shim_columns} have"


def tasks(program: Program, device: Device) -> Iterator[str]:
    for task in program.tasks.values():
        yield from (f"the task {task.name}: {sentence}" for sentence in refuse_channel(task.channel, device))
        numbers = [one.number for one in task.descriptors]
        if not numbers:
            yield f"the task {task.name} has no descriptor"
        if len(set(numbers)) < len(numbers):
            yield f"the task {task.name} has a descriptor twice: {numbers}"
        if not 1 <= task.repeat <= REPEAT_MOST:
            yield f"the task {task.name} repeats {task.repeat} times; 1 … {REPEAT_MOST} is possible"


def sequence(program: Program, device: Device) -> Iterator[str]:
    started: set[str] = set()
    for at, command in enumerate(program.sequence):
        if command.task not in program.tasks:
            yield f"command {at} of the sequence names the task {command.task}, which isn't there"
        elif isinstance(command, Start):
            started.add(command.task)
        elif command.task not in started:
            yield f"command {at} of the sequence awaits the task {command.task} before it starts it"
