"""Flows: between channels that are there, each of which has one source; and descriptors that send what some flow takes."""

from __future__ import annotations

from collections.abc import Iterator

from zellige.aie2.check.tasks import refuse_channel
from zellige.aie2.device import PACKET_MOST, Device
from zellige.aie2.program import Channel, Program


def flows(program: Program, device: Device) -> Iterator[str]:
    packets: dict[Channel, list[int | None]] = {}
    sources: dict[Channel, Channel] = {}
    for flow in program.flows:
        for channel, direction in ((flow.source, "out"), *((one, "in") for one in flow.destinations)):
            yield from (f"{flow}: {sentence}" for sentence in refuse_channel(channel, device))
            if channel.direction != direction:
                yield f"{flow}: {channel} goes the other way"
        if not flow.destinations or len(set(flow.destinations)) < len(flow.destinations):
            yield f"{flow} has no destination, or one twice"
        if flow.packet is not None and not 0 <= flow.packet <= PACKET_MOST:
            yield f"{flow}: packet numbers are 0 … {PACKET_MOST}"
        packets.setdefault(flow.source, []).append(flow.packet)
        for one in flow.destinations:
            if sources.setdefault(one, flow.source) != flow.source:
                yield f"{flow}: {one} has a source already, {sources[one]}"
    for source, numbers in packets.items():
        if len(set(numbers)) < len(numbers) or (None in numbers and len(numbers) > 1):
            yield f"{source} has flows that its words can't be told apart for: packets {numbers}"
    yield from _descriptors(program, packets, sources)


def _descriptors(program: Program, packets: dict[Channel, list[int | None]], sources: dict[Channel, Channel]) -> Iterator[str]:
    for task in program.tasks.values():
        if task.channel.direction == "in":
            if task.channel not in sources:
                yield f"the task {task.name} waits at {task.channel}, to which no flow goes"
            marked = [one.number for one in task.descriptors if one.packet is not None]
            if marked:
                yield f"the task {task.name} on {task.channel} receives; its descriptors {marked} mark packets"
            continue
        known = packets.get(task.channel, [])
        for one in task.descriptors:
            if one.packet not in known:
                yield f"the task {task.name} sends packets {one.packet} from {task.channel}, whose flows take {known or 'nothing'}"
