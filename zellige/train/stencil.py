"""Writing zeros where a mask says so, in a tensor's own memory.

On CPUs a stencil holds a word of ones for every number that stays and a word of zeros for the others, and is anded to the bits: +0,
whatever was there, at the speed of a copy (``masked_fill_`` takes ten times as long there). On other devices it is a bool mask.
"""

from __future__ import annotations

import torch

WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers by their bytes."""


def stencil_of(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The stencil of a mask (True stays) for tensors that lie in memory as ``like`` does."""
    if like.device.type != "cpu":
        return torch.empty_like(like, dtype=torch.bool).copy_(~mask)
    return torch.empty_like(like, dtype=WORDS[like.itemsize]).copy_(mask).neg_()


def fits(stencil: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Whether a stencil is one for this tensor."""
    itemsize = stencil.dtype is torch.bool or stencil.itemsize == tensor.itemsize
    return itemsize and stencil.shape == tensor.shape and stencil.device == tensor.device


def blank(tensor: torch.Tensor, stencil: torch.Tensor) -> None:
    """Write zeros, in place; NaN and infinity are overwritten too.

    >>> weight = torch.tensor([-1.0, float("nan"), 3.0])
    >>> blank(weight, stencil_of(torch.tensor([False, False, True]), weight))
    >>> weight.tolist()
    [0.0, 0.0, 3.0]
    """
    if stencil.dtype is torch.bool:
        tensor.masked_fill_(stencil, 0)
    else:
        tensor.detach().view(stencil.dtype).bitwise_and_(stencil)
