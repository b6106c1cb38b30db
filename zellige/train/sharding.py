"""Parameters that several processes share out among them (``fully_shard``): the whole of one, and this process's part.

Distributed tensors keep rows and columns, so that a mask can be cut as its parameter is. Nothing is sent for that: every process
has whole masks.
"""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that lies in this process, all of it for an ordinary one; writing to it writes to the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_part(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Cuts a whole tensor, the same in every process, as ``like`` is cut."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).to_local()


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor. For a distributed one, every process must ask."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor is distributed."""
    return isinstance(tensor, DTensor)
