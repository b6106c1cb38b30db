"""Which go first: those of lowest score, and among equals those of lower position. All patterns break ties this way."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Marks the ``count`` lowest of a row of scores: a bool tensor.

    >>> lowest(torch.tensor([2.0, 1.0, 1.0, 0.0, 1.0]), 3).tolist()
    [False, True, True, True, False]
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(count).values
    marked = scores < threshold
    equal = (scores == threshold).nonzero().squeeze(1)
    marked[equal[: count - int(marked.sum())]] = True
    return marked


def lowest_within(scores: torch.Tensor, sizes: torch.Tensor, budget: int) -> torch.Tensor:
    """Marks the lowest of a row of scores, in order, for as long as their sizes together stay within the budget.

    Scores of infinity are never marked.

    >>> lowest_within(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1, 4, 4]), 7).tolist()
    [False, True, False]
    """
    order = torch.argsort(scores, stable=True)
    fit = int((sizes[order].cumsum(0) <= budget).sum())
    marked = torch.zeros_like(scores, dtype=torch.bool)
    marked[order[: min(fit, int(scores.isfinite().sum()))]] = True
    return marked


def highest_of_few(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Marks the ``count`` highest along the last axis, a short one: a bool tensor of the same shape.

    >>> highest_of_few(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2).tolist()
    [[False, False, True, True]]
    """
    order = torch.argsort(scores, dim=-1, stable=True)
    marked = torch.zeros_like(scores, dtype=torch.bool)
    return marked.scatter_(-1, order[..., scores.shape[-1] - count:], True)


def best_spared(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The scores of all parts in a row, with infinity in place of the best of each part: the one that would go last.

    >>> best_spared([torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0])]).tolist()
    [1.0, 2.0, inf, inf]
    """
    row, start = torch.cat(list(parts)), 0
    for part in parts:
        row[start + int((part == part.max()).nonzero()[-1])] = torch.inf
        start += len(part)
    return row
