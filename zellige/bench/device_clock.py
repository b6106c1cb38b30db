"""What a call takes on the GPU, by events: some calls are queued one behind the other, so that what the host does for one passes
while the GPU is busy with the one before. Networks that take the GPU less than the host are bound by the host, here as in use.
"""

from __future__ import annotations

import torch

from zellige.bench.clock import Call, Turn

CALLS = 5
DEVICE_TURN = Turn(idle_seconds=0.0, discarded_calls=0, least_calls=3, least_seconds=0.0)
"""No gap: nothing of one engine runs on behind its calls, and a GPU that idles lowers its clocks."""


def device_lap(call: Call) -> float:
    """Milliseconds of one call: device time of ``CALLS`` of them behind one that is not counted."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    call()
    start.record()
    for _ in range(CALLS):
        call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / CALLS
