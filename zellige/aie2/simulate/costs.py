"""What things cost that have no width: cycles between the words and the products. All are estimates, from no chip."""

from __future__ import annotations

from dataclasses import dataclass

from zellige.aie2.device import Device


@dataclass(frozen=True)
class Costs:
    """In cycles of the array's clock."""

    descriptor: float = 4
    """Of a DMA, from the last word of a descriptor to the first of the next."""
    lock: float = 4
    """Of a core that acquires or releases one: "ACQ" holds the semaphore unit for 4 cycles (AIE2Schedule.td of llvm-aie)."""
    call: float = 20
    """Of the call of the kernel, beside what ``step_cycles`` says it does."""
    start: float = 16
    """Of the host's controller that starts a task: registers written through the array's configuration network."""
    packet: float = 1
    """The word in front of what goes through a flow with a number."""


IDEAL = Costs(descriptor=0, lock=0, call=0, start=0, packet=0)


def costs_of(device: Device) -> Costs:
    """Those above; none, on a device that is ideal."""
    return IDEAL if device.ideal else Costs()
