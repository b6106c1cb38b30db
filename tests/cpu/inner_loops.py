"""The innermost loops of assembly, and what they keep on the stack.

Blocks of a loop need not lie together (rare ones are put behind the function's end), so loops are looked for in the graph of
jumps: a strongly connected part is a loop, and innermost if nothing connected is left of it without the block by which it is
entered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from zellige.cpu.isa import Isa

JUMP = re.compile(r"\s(j\w+|b|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)\s*$")
LEAVES = re.compile(r"\s(jmp|b|ret|retq|br|ud2)\b(?!\.)")
STACK = re.compile(r"\(%rsp\b|\[sp\b")
VECTOR = re.compile(r"%[xyz]mm\d|%k\d|\b[qdsv]\d")
STORES = {
    "x86_64": re.compile(r",\s*-?\w*\(%rsp[^)]*\)(?:\s*\{%k\d\})?\s*$"),
    "aarch64": re.compile(r"\s(?:str|stp|stur|st1)\w*\s.*\[sp\b")}
"""Instructions that write to the stack, by architecture."""

Blocks = dict[str, list[str]]
Edges = dict[str, set[str]]


def inner_loops(assembly: str, within: str = "") -> list[list[str]]:
    """The instructions of each innermost loop, over all functions of the text whose names hold ``within``."""
    return [[line for label in loop for line in blocks[label]]
            for blocks in _functions(assembly, within) for loop in _innermost(*_jumps(blocks))]


def spills(loop: list[str], isa: Isa) -> list[str]:
    """The instructions that put a vector or a mask aside on the stack.

    A constant that was put there before the loop and is read in it costs no more than one that is read from a table.
    """
    stores = STORES[isa.triple.split("-")[0]]
    return [line.strip() for line in loop if stores.search(line) and VECTOR.search(line)]


def on_stack(loop: list[str]) -> list[str]:
    """The instructions with a vector or mask that read or write the stack."""
    return [line.strip() for line in loop if STACK.search(line) and VECTOR.search(line)]


def _functions(assembly: str, within: str) -> Iterator[Blocks]:
    """The blocks of every function: label → instructions; one that follows a jump without a label has a number."""
    for function in re.split(r"\n(?=[A-Za-z_][\w.$]*:)", assembly):
        blocks: Blocks = {}
        if within not in function.partition(":")[0]:
            continue
        label = "entry"
        for line in function.splitlines():
            if match := re.match(r"(\.L\w+):", line):
                label = match.group(1)
            elif re.match(r"\s+[a-z]", line):
                blocks.setdefault(label, []).append(line)
                if JUMP.search(line) or LEAVES.search(line):
                    label = f"block {len(blocks)}"
        if blocks:
            yield blocks


def _jumps(blocks: Blocks) -> tuple[list[str], Edges]:
    """The labels in order, and from each block to which others control may go."""
    labels, edges = list(blocks), {}
    for label, following in zip(labels, [*labels[1:], ""], strict=True):
        last = blocks[label][-1]
        jump = JUMP.search(last)
        edges[label] = {jump.group(2)} & set(labels) if jump else set()
        if following and not LEAVES.search(last):
            edges[label].add(following)
    return labels, edges


def _innermost(labels: list[str], edges: Edges) -> Iterator[list[str]]:
    for part in _connected(labels, edges):
        outside = {target for label in edges if label not in part for target in edges[label]}
        entry = next((label for label in part if label in outside), part[0])
        within = [label for label in part if label != entry]
        inside = list(_innermost(within, {label: edges[label] & set(within) for label in within}))
        yield from inside or [part]


def _connected(labels: list[str], edges: Edges) -> Iterator[list[str]]:
    """The strongly connected parts with a loop in them, in the order of their first blocks."""
    reach = {label: _reachable(label, edges) for label in labels}
    seen: set[str] = set()
    for label in labels:
        if label in reach[label] and label not in seen:
            part = [other for other in labels if other in reach[label] and label in reach[other]]
            seen.update(part)
            yield part


def _reachable(start: str, edges: Edges) -> set[str]:
    found: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        label = waiting.pop()
        if label not in found:
            found.add(label)
            waiting += edges[label]
    return found
