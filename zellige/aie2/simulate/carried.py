"""Which channels carry packets: those into rings of weights, whoever sends to them, whoever fills what that reads, and so on.

What a step costs stands in its packet. So all that a program's time depends on comes out right if nothing else is moved.
"""

from __future__ import annotations

from zellige.aie2.program import Channel, Program


def packet_channels(program: Program) -> set[Channel]:
    """All channels through which anything goes that a core may read as a packet."""
    sources = {one: flow.source for flow in program.flows for one in flow.destinations}
    filled: dict[str, set[Channel]] = {}
    read: dict[Channel, set[str]] = {}
    for task in program.tasks.values():
        for descriptor in task.descriptors:
            if task.channel.direction == "in":
                filled.setdefault(descriptor.buffer, set()).add(task.channel)
            else:
                read.setdefault(task.channel, set()).add(descriptor.buffer)
    found: set[Channel] = set()
    seen: set[str] = set()
    due = [slot for core in program.cores for slot in core.weights.slots]
    while due:
        buffer = due.pop()
        if buffer in seen:
            continue
        seen.add(buffer)
        for channel in filled.get(buffer, set()):
            found |= {channel, sources[channel]}
            due += read.get(sources[channel], set())
    return found
