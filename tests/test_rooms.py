"""Who may enter which room: imports run downwards, and a compiled model needs numpy and llvmlite alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "zellige"

ROOMS = {
    # room       what lies directly below it
    "version":  [],
    "errors":   [],
    "figures":  ["errors"],
    "graph":    ["errors"],
    "passes":   ["graph"],
    "pack":     ["passes"],
    "cpu":      ["pack", "version"],            # backends do not know one another
    "cuda":     ["pack", "patterns"],           # patterns: fours are found by what chose them
    "aie2":     ["pack", "figures"],
    "profile":  ["cpu"],
    "engine":   ["cpu", "cuda", "aie2", "profile"],
    "patterns": ["errors"],
    "prune":    ["patterns", "graph", "figures", "cpu"],  # cpu: a search of its own runs as machine code
    "train":    ["prune"],
    "latency":  ["engine", "prune"],
    "api":      ["latency", "train"],
    "models":   ["pack", "prune"],
    "bench":    ["api", "models"],
    "study":    ["bench"],
    "terminal": ["bench"],
    "report":   ["bench"],
    "demo":     ["terminal"],
    "cli":      ["demo", "report", "study"],
    "__init__": ["study"],
}
"""A room may import what is below it, at any depth. ``import zellige`` is the API."""

RUNTIME = {"numpy", "llvmlite"}
"""All that the rooms which run a compiled model may import, besides Python's own library."""

LEAN = ["version", "errors", "graph", "passes", "pack", "cpu", "profile", "engine"]
"""The rooms which run a compiled model."""

WAYS_IN = ["graph/from_torch*.py", "graph/aten_*.py"]
"""Files of lean rooms that may import torch; nothing lean imports them."""

CALLED = "prune/__init__.py"
"""The package that is a function of the API as well: called, it passes the call on, so it may import what ``zellige`` may."""

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room_of(file: str) -> str:
    return "__init__" if file == CALLED else file.removesuffix(".py").split("/")[0]


def is_way_in(file: str) -> bool:
    return any(fnmatch(file, pattern) for pattern in WAYS_IN)


LEAN_FILES = [file for file in FILES if room_of(file) in LEAN and not is_way_in(file)]


@cache
def below(room: str) -> frozenset[str]:
    """Everything that ``room`` may import."""
    return frozenset().union(*({lower} | below(lower) for lower in ROOMS[room]))


def imports(source: str, file: str) -> Iterator[tuple[int, str]]:
    """The line and the full name of every import, inside functions too; relative ones resolved."""
    package = ["zellige", *file.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room_entered(name: str) -> str | None:
    """The room that an import of ``name`` enters; ``None`` if it leaves the package."""
    top, *rest = name.split(".")
    if top != "zellige":
        return None
    return rest[0] if rest and rest[0] in ROOMS else "api"


def trespasses(source: str, file: str) -> list[str]:
    """What ``source``, as a file of the package, imports that it may not."""
    room, found = room_of(file), []
    for line, name in imports(source, file):
        entered, top = room_entered(name), name.split(".")[0]
        if entered is not None and entered != room and entered not in below(room):
            found.append(f"{file}:{line}: {room} may not import {entered} ({name})")
        if room in LEAN and not is_way_in(file):
            if entered is None and top not in RUNTIME and top not in sys.stdlib_module_names:
                found.append(f"{file}:{line}: {room} may not import {top}")
            if is_way_in("/".join(name.split(".")[1:3]) + ".py"):
                found.append(f"{file}:{line}: {room} may not import {name}, which imports torch")
    return found


def test_no_room_lies_below_itself() -> None:
    for room in ROOMS:
        assert room not in below(room)
    for backend in ("cpu", "cuda", "aie2"):
        assert not below(backend) & {"cpu", "cuda", "aie2"}


def test_every_file_is_in_a_room() -> None:
    assert {room_of(file) for file in FILES} <= set(ROOMS)
    assert len(LEAN_FILES) > 20


@pytest.mark.parametrize("file", FILES)
def test_imports_run_downwards(file: str) -> None:
    assert trespasses((PACKAGE / file).read_text(encoding="utf-8"), file) == []


FOLDERS = ("tiling", "kernels", "operators", "layers", "network")
"""Of the cuda room, in the way of the data: each imports those before it alone."""


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("cuda/") and file.count("/") == 2])
def test_folders_of_the_cuda_room_import_those_before(file: str) -> None:
    folder = file.split("/")[1]
    entered = {name.split(".")[2] for _, name in imports((PACKAGE / file).read_text(encoding="utf-8"), file)
               if name.startswith("zellige.cuda.")}
    assert entered <= set(FOLDERS[:FOLDERS.index(folder) + 1])


@pytest.mark.parametrize("file, source", [
    ("graph/ir.py", "import torch"), ("graph/ir.py", "def f():\n    from torch import nn"),
    ("graph/ir.py", "from zellige.passes.fold import fold"), ("graph/ir.py", "from ..passes import fold"),
    ("graph/ir.py", "from .. import passes"), ("graph/ir.py", "import zellige"), ("graph/ir.py", "import scipy.sparse"),
    ("graph/ir.py", "from zellige.graph.from_torch import x"), ("graph/ir.py", "from .aten_table import TABLE"),
    ("cpu/kernels/band.py", "import zellige.cuda"), ("cpu/plan.py", "from zellige.engine import Engine"),
    ("engine.py", "import zellige.bench.clock"), ("patterns/block.py", "from zellige.graph import ir"),
    ("prune/prune.py", "from zellige.engine import Engine"), ("models/resolve.py", "from zellige import compile"),
])
def test_a_trespass_is_seen(file: str, source: str) -> None:
    assert len(trespasses(source, file)) == 1


@pytest.mark.parametrize("file, source", [
    ("graph/from_torch.py", "import torch"), ("graph/aten_table.py", "from zellige.graph.aten_call import Call"),
    ("engine.py", "from .cpu import isa\nimport os, numpy as np"), ("cli/run.py", "import zellige as zl, rich"),
    ("cpu/kernels/band.py", "from . import kernel\nfrom .. import isa\nfrom llvmlite import ir"),
    ("prune/prune.py", "import torch\nfrom zellige.graph import ir"), ("__init__.py", "from zellige.prune import x"),
])
def test_what_is_allowed(file: str, source: str) -> None:
    assert trespasses(source, file) == []


def test_a_compiled_model_needs_no_torch() -> None:
    """Every lean module is imported where nothing else than Python and the two packages can be."""
    modules = ["zellige", *(".".join(("zellige", *Path(file).with_suffix("").parts)).removesuffix(".__init__")
                            for file in LEAN_FILES)]
    script = f"""
import importlib, importlib.abc, sys
allowed = {{*sys.stdlib_module_names, *{sorted(RUNTIME)!r}, "zellige"}}
class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in allowed:
            raise ModuleNotFoundError(f"a compiled model may not need {{name}}", name=name)
sys.meta_path.insert(0, Guard())
for module in {modules!r}:
    importlib.import_module(module)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_zellige_imports_little() -> None:
    script = "import sys, zellige; print([name for name in ('torch', 'numpy', 'llvmlite') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_of_tests_have_names_of_their_own() -> None:
    """They are imported by their bare names, so that two of one name can't be collected together."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name not in ("__init__.py", "conftest.py")]
    assert sorted(set(names)) == sorted(names)
