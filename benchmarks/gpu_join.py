"""Two runs on one GPU as one file: what the later one left out stays as the earlier one found it, and says so."""

from __future__ import annotations

from typing import Any

EARLIER = "sections of an earlier run"
"""In the conditions: what was not run again. Layers that were not say so themselves, as their ``run``."""

SAME = ("gpu", "torch", "triton", "cuda")
"""Of the conditions: what must be alike in both."""


def joined(before: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """``facts`` of a run, and of ``before`` the sections and layers that it lacks.

    ``ValueError`` if the runs had another GPU or other libraries: their times can't stand in one table.
    """
    old, new = before["conditions"], facts["conditions"]
    unlike = [f"{name} {old.get(name)}, now {new.get(name)}" for name in SAME if old.get(name) != new.get(name)]
    if unlike:
        raise ValueError(f"expected results of the same GPU and libraries to join, got {'; '.join(unlike)}; write to another "
                         "directory")
    kept = [name for name in before if name not in facts and name not in ("conditions", "layers")]
    fresh = facts.get("layers", [])
    known = {key(layer) for layer in fresh}
    older = [layer | {"run": layer.get("run", "earlier")} for layer in before.get("layers", []) if key(layer) not in known]
    conditions = new | ({EARLIER: kept} if kept else {})
    return {"conditions": conditions, "layers": [*fresh, *older], **{name: before[name] for name in kept},
            **{name: value for name, value in facts.items() if name not in ("conditions", "layers")}}


def key(layer: dict[str, Any]) -> tuple[object, ...]:
    return tuple(layer.get(name) for name in ("name", "rows", "columns", "mask", "sparsity"))
