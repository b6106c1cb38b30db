"""In what numbers a step computes: float32, or autocast to 16 bits, where weights stay float32.

Gradients of float16 are small enough to vanish, so the loss is scaled up, and gradients down again before anybody sees them
(Micikevicius et al., arXiv 1710.03740; PyTorch's ``GradScaler``). Where a scale was too large and gradients overflowed, others
leave the step out; here the same batch is done again with half the scale. So schemes see every step, gradients are always
finite, and a run that was interrupted still ends as one that wasn't.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.utils import get_total_norm

AUTOCAST = {"f32": None, "bf16": torch.bfloat16, "f16": torch.float16}
"""Precision → the type of activations, None for that of the weights."""


class Precision:
    """A precision on a device, and the scale of its losses."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._device, self._dtype = device.type, AUTOCAST[name]
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[object]:
        """Around a forward pass."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device, self._dtype)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What to start the backward pass from."""
        scaled: torch.Tensor = self._scaler.scale(loss)
        return scaled

    def unscaled(self, optimizer: torch.optim.Optimizer) -> bool:
        """Bring gradients back to their size; False if they overflowed, and the backward pass must be done again.

        Gradients are those of all processes already, so all come to the same answer.
        """
        if not self._scaler.is_enabled():
            return True
        self._scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        finite = bool(get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None).isfinite())
        self._scaler.update()
        return finite

    @property
    def spent(self) -> bool:
        """Whether the scale has gone below 1, where it no longer helps."""
        return bool(self._scaler.get_scale() < 1)

    def state_dict(self) -> dict[str, Any]:
        """Scale and how long it has held."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with that scale."""
        if state:
            self._scaler.load_state_dict(dict(state))
