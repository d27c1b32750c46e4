"""Imports point one way, and the online path runs without torch."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import smar

PACKAGE = Path(smar.__file__).parent
BASE = {"smar", "core"}
"""The foundation; its modules import each other only."""
ALLOWED = {
    # parts of a work, in processes or on the nodes of a cluster
    "runners": set[str](),
    # folders in an object store
    "storage": set[str](),
    "data": {"runners", "storage"},
    "demo": {"data"},
    "model": {"data"},
    "search": {"data", "runners"},
    # The formats of query encoder and embeddings lie in smar.search, where they are read without torch.
    "export": {"data", "model", "search"},
    "training": {"data", "model", "export"},
    "evaluation": {"data", "model", "training", "runners"},
    "embedding": {"data", "model", "export", "runners", "search"},
    "serving": {"data", "search", "storage"},
    # The model worker of `smar serve`: a process of its own, as it loads torch and the query workers must not.
    "serving.writer": {"data", "model", "embedding", "search", "serving"},
    # the door of all rooms for a Python program; what stands in `smar` itself is loaded when it is used
    "api": {"data", "model", "training", "evaluation", "embedding", "runners", "search", "serving", "storage"},
    "smar": {"api", "data", "search", "serving"},
    "commands": {
        "api",
        "demo",
        "model",
        "evaluation",
        "export",
        "embedding",
        "runners",
        "search",
        "serving",
        "storage",
    },
    "cli": {"commands"},
    "__main__": {"cli"},
}
"""Part -> other parts that it may import, beside the foundation."""
ONLINE = ("data", "search", "serving")
HEAVY = {"torch", "transformers", "accelerate", "tensorboard"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """`data` for data/clicks.py, `cli` for cli.py, `smar` for the package's own __init__.py."""
    relative = path.relative_to(PACKAGE)
    if relative.parts[:2] == ("serving", "writer"):
        return "serving.writer"
    if len(relative.parts) > 1:
        return relative.parts[0]
    return "smar" if relative.stem == "__init__" else relative.stem


def dotted(path: Path) -> str:
    return ".".join(("smar", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imported(path: Path, names: bool = False) -> Iterator[str]:
    """Every module name that a file imports, wherever the import stands; with `names` what it takes out, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if names or node.module == "smar":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {name[1] if len(name) > 1 else "smar" for name in names if name[0] == "smar"} - {"__version__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    allowed = BASE | ALLOWED.get(part, set()) | {part}
    assert part in BASE | ALLOWED.keys(), f"{part}: give the new part its place in ALLOWED"
    assert parts_imported(path) <= allowed, f"{part} may import {sorted(allowed)} only"


def test_the_order_has_no_circle() -> None:
    order: list[str] = []
    left = dict(ALLOWED)
    while free := [part for part, parts in left.items() if parts <= set(order)]:
        order += free
        for part in free:
            del left[part]
    assert not left


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports inside functions and those for types count, too."""
    named = {dotted(path): path for path in modules()}
    graph = {
        name: {each for each in imported(path, names=True) if each in named and each != name}
        for name, path in named.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(named)  # CycleError names the circle


def test_no_two_modules_are_called_alike() -> None:
    counts = Counter(path.stem for path in modules() if path.stem not in ("__init__", "__main__"))
    assert not [name for name, count in counts.items() if count > 1]


def test_the_embedded_engine_has_one_door() -> None:
    """Nobody outside `search/local` imports from inside it."""
    through = {
        (str(path.relative_to(PACKAGE)), name)
        for path in modules()
        if not path.is_relative_to(PACKAGE / "search" / "local")
        for name in imported(path)
        if name.startswith("smar.search.local.")
    }
    assert not through


def test_engines_ask_nothing_of_the_embedded_one() -> None:
    """What every engine stands on does not know the embedded one."""
    shared = [path for path in modules() if path.parent == PACKAGE / "search"]
    assert shared
    assert not {(path.name, name) for path in shared for name in imported(path) if "search.local" in name}


@pytest.mark.parametrize("part", ONLINE)
def test_online_parts_name_no_heavy_package(part: str) -> None:
    found = {
        (path.name, name)
        for path in modules()
        if part_of(path) == part
        for name in imported(path)
        if name.split(".")[0] in HEAVY
    }
    assert not found


def test_online_parts_load_without_torch() -> None:
    """Every module of the online parts, in a process of its own: what their own imports load counts, too."""
    names = [dotted(path) for path in modules() if part_of(path) in ONLINE]
    code = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code, *names], check=True, capture_output=True, text=True).stdout
    assert "smar.serving.app" in loaded
    assert not HEAVY & {name.split(".")[0] for name in loaded.split()}


def test_help_loads_no_stage() -> None:
    """`smar --help` answers at once: the parser alone is loaded."""
    code = "import sys; from smar.commands.parser import parser; parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "transformers", "pyarrow", "faiss", "duckdb", "fastapi"} & set(loaded.split())
