"""What the weights say of a group's units: members, one for each axis of a weight on which the units have lines.

A slot is where a unit may stand. In a member, a slot covers one line or several (a channel behind a flatten covers all its
pixels), and a unit that stands there adds what its lines hold to the pieces that they fall into: the slot's window. Members of
one line a slot whose pieces are the same slots are put side by side into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zellige.prune.permutation.weights import PlacedWeight


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines of a weight that a group's units have along an axis, at first the i-th unit those of the i-th slot."""

    weight: PlacedWeight
    axis: int
    group: torch.Tensor
    """The group of the weight in which each line lies: units × lines."""
    line: torch.Tensor
    """The number of each line in its group: units × lines."""

    def place(self, order: torch.Tensor) -> None:
        """Lets the units stand in that order."""
        self.weight.placed[self.axis][self.group, self.line] = self.line[order]


@dataclass(frozen=True, eq=False)
class Member:
    """What units add to blocks, and what blocks are above the threshold.

    ``added[kind, unit]`` is what a unit adds to the pieces of a window, one after the other, at a slot of that ``kind``;
    ``window[slot]`` says which rows of ``excess`` these are. Windows of fewer pieces end in a row that nothing is added to.
    """

    added: torch.Tensor
    kind: torch.Tensor
    window: torch.Tensor
    excess: torch.Tensor

    @property
    def features(self) -> int:
        return self.added.shape[2]

    @property
    def simple(self) -> bool:
        """Whether a unit adds the same wherever it stands."""
        return len(self.added) == 1


def even_length(members: Sequence[Member]) -> int | None:
    """How many neighbouring slots make a piece, if that is so in all weights alike, but for a shorter piece at the end."""
    if len(members) != 1 or members[0].window.shape[1] > 1:
        return None
    piece = members[0].window[:, 0]
    length = int((piece == 0).sum())
    return length if torch.equal(piece, torch.div(torch.arange(len(piece)), length, rounding_mode="floor")) else None


def member_of(lines: Lines) -> Member:
    """How the lines are at present, for units in their first order."""
    weight, axis = lines.weight, lines.axis
    sums = weight.sums(axis)
    blocks, sizes = weight.blocks_of(axis, sums), weight.sizes(axis)
    excess = blocks - sizes * weight.threshold(blocks, sizes)
    of_lines = sums[lines.group, lines.line]
    piece = lines.group * weight.pieces[axis] + torch.div(lines.line, weight.lengths[axis], rounding_mode="floor")
    if piece.shape[1] == 1:
        return Member(of_lines.transpose(0, 1), torch.zeros(len(piece), dtype=torch.long), piece, excess)
    return _of_windows(of_lines, piece, excess)


def _of_windows(of_lines: torch.Tensor, piece: torch.Tensor, excess: torch.Tensor) -> Member:
    """A member whose slots cover several lines: slots are of one kind if their lines fall into pieces alike."""
    found = [np.unique(of_slot, return_inverse=True) for of_slot in piece.numpy()]
    width = max(len(pieces) for pieces, _ in found)
    window = torch.full((len(found), width), len(excess))
    kinds: dict[bytes, int] = {}
    kind = torch.zeros(len(found), dtype=torch.long)
    added = []
    for slot, (pieces, local) in enumerate(found):
        window[slot, : len(pieces)] = torch.from_numpy(pieces)
        key = local.tobytes()
        if key not in kinds:
            kinds[key] = len(kinds)
            into = torch.zeros(len(of_lines), width, of_lines.shape[2])
            for at, where in enumerate(local.ravel().tolist()):
                into[:, where] += of_lines[:, at]
            added.append(into.flatten(1))
        kind[slot] = kinds[key]
    nothing = torch.zeros(1, excess.shape[1])
    return Member(torch.stack(added), kind, window, torch.cat([excess, nothing]))


def side_by_side(members: Sequence[Member]) -> list[Member]:
    """The members, those of like pieces as one."""
    alike: dict[bytes, list[tuple[Member, torch.Tensor]]] = {}
    others = []
    for member in members:
        if member.window.shape[1] > 1:
            others.append(member)
            continue
        pieces, first, local = np.unique(member.window[:, 0].numpy(), return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))[local.ravel()]
        alike.setdefault(rank.tobytes(), []).append((member, torch.from_numpy(pieces[np.argsort(first)])))
    joined = []
    for key, rows in alike.items():
        window = torch.from_numpy(np.frombuffer(key, dtype=np.int64).copy())[:, None]
        excess = torch.cat([member.excess[pieces] for member, pieces in rows], 1)
        joined.append(Member(torch.cat([member.added for member, _ in rows], 2), rows[0][0].kind, window, excess))
    return [*joined, *others]
