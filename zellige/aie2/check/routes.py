"""Routes through the stream switches: every flow gets a port from each switch to the next, and there are only so many.

A source has one tree to all its destinations: packets with numbers share it, and go on where a switch lets their number through.
Trees are found as PathFinder does (McMurchie, Ebeling): each by shortest paths, over again while some link has more than it can
hold, links getting dearer the more and the longer they are wanted. Memory tiles let streams through without a change of the port's
number; as those run in straight columns, numbers can always be found where the count is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from math import inf

from zellige.aie2.check.places import is_there
from zellige.aie2.device import Device
from zellige.aie2.program import Channel, Program, Tile

Link = tuple[Tile, Tile]
"""From a switch to the next."""

SIDES = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
PATIENCE = 6
"""Rounds without any progress after which nothing better is looked for."""


def ports(program: Program, device: Device) -> Iterator[str]:
    """Links that more streams need than there are ports."""
    trees = routes(program, device)
    users: dict[Link, list[Channel]] = {}
    for source, tree in trees.items():
        for link in tree:
            users.setdefault(link, []).append(source)
    for link, sources in sorted(users.items()):
        most = capacity(link, device)
        if len(sources) > most:
            yield (f"the switch of {link[0]} has {most} ports to the {_side(link)}, and the streams from "
                   f"{', '.join(map(str, sources))} all need one")  # fmt: skip


def capacity(link: Link, device: Device) -> int:
    """How many streams go from a switch to its neighbour."""
    kind, side = device.kind(link[0].row), _side(link)
    if not is_there(device, link[1]) or (kind == "memory" and side in ("east", "west")):
        return 0
    return device.ports[tuple(SIDES).index(side)]


def routes(program: Program, device: Device) -> dict[Channel, frozenset[Link]]:
    """A tree for every source; with links that hold too much, if it can't be helped."""
    wanted: dict[Channel, set[Tile]] = {}
    for flow in program.flows:
        wanted.setdefault(flow.source, set()).update(one.tile for one in flow.destinations)
    router = _Router(device)
    trees: dict[Channel, frozenset[Link]] = {}
    best, least, waited = trees, inf, 0
    while least and waited < PATIENCE:
        for source in wanted:
            router.use(trees.get(source, frozenset()), -1)
            trees[source] = router.tree(source.tile, wanted[source])
            router.use(trees[source], 1)
        excess = router.grow_dearer()
        best, least, waited = (dict(trees), excess, 0) if excess < least else (best, least, waited + 1)
    return best


class _Router:
    """What links hold, and what they cost."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._used: dict[Link, int] = {}
        self._dearer: dict[Link, float] = {}
        self._pressure = 0.5
        self._capacity: dict[Link, int] = {}

    def use(self, tree: frozenset[Link], count: int) -> None:
        for link in tree:
            self._used[link] = self._used.get(link, 0) + count

    def grow_dearer(self) -> int:
        """How many streams too many links hold, together; those will cost more."""
        over = {link: used - self._of(link) for link, used in self._used.items() if used > self._of(link)}
        for link, excess in over.items():
            self._dearer[link] = self._dearer.get(link, 0.0) + excess
        self._pressure *= 1.5
        return sum(over.values())

    def tree(self, source: Tile, destinations: set[Tile]) -> frozenset[Link]:
        """To the nearest destination first, then from anywhere on the tree to the next."""
        found: set[Link] = set()
        reached, left = {source}, set(destinations) - {source}
        while left:
            path = self._path(reached, left)
            found.update(path)
            reached.update(link[1] for link in path)
            left -= reached
        return frozenset(found)

    def _path(self, starts: set[Tile], ends: set[Tile]) -> list[Link]:
        best: dict[Tile, float] = dict.fromkeys(starts, 0.0)
        came: dict[Tile, Tile] = {}
        due = [(0.0, tile) for tile in sorted(starts)]
        while due:
            cost, tile = heappop(due)
            if tile in ends:
                return _back(came, tile)
            if cost > best[tile]:
                continue
            for across, up in SIDES.values():
                link = (tile, Tile(tile.column + across, tile.row + up))
                if self._of(link):
                    total = cost + self._cost(link)
                    if total < best.get(link[1], inf):
                        best[link[1]], came[link[1]] = total, tile
                        heappush(due, (total, link[1]))
        raise AssertionError("the switches of a device hang together")

    def _of(self, link: Link) -> int:
        if link not in self._capacity:
            self._capacity[link] = capacity(link, self._device)
        return self._capacity[link]

    def _cost(self, link: Link) -> float:
        excess = max(0, self._used.get(link, 0) + 1 - self._of(link))
        return (1.0 + self._dearer.get(link, 0.0)) * (1.0 + self._pressure * excess)


def _back(came: Mapping[Tile, Tile], tile: Tile) -> list[Link]:
    path = []
    while tile in came:
        path.append((came[tile], tile))
        tile = came[tile]
    return path


def _side(link: Link) -> str:
    step = (link[1].column - link[0].column, link[1].row - link[0].row)
    return next(side for side, across in SIDES.items() if across == step)
