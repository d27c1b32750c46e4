"""Examples in docstrings run, and every class that a reader meets first has one."""

import doctest
import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path

import pytest

import smar
from tiny_line import Line
from tiny_place import furnish

DOORS = ("smar", "smar.model", "smar.training", "smar.search.local")
"""Modules whose public classes each have an example."""


def modules() -> list[str]:
    """Every module whose text has an example."""
    root = Path(smar.__file__).parent
    names = [found.name for found in pkgutil.walk_packages([str(root)], "smar.")]
    paths = {name: root.joinpath(*name.split(".")[1:]) for name in names}
    files = {name: path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for name, path in paths.items()}
    return [name for name in names if ">>> " in files[name].read_text(encoding="utf-8")]


def examples_of(door: str) -> dict[str, bool]:
    """Public classes of a module, and whether their docstring has an example."""
    module = importlib.import_module(door)
    public = {name: getattr(module, name) for name in module.__all__}
    classes = {name: value for name, value in public.items() if inspect.isclass(value)}
    if door != "smar":  # what is raised deep inside is an InputError, which has one
        classes = {name: value for name, value in classes.items() if not issubclass(value, Exception)}
    return {name: ">>> " in (value.__doc__ or "") for name, value in classes.items()}


@pytest.fixture(scope="module")
def place(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples' names mean something."""
    folder = furnish(line, tmp_path_factory.mktemp("docstrings"))
    for name in ("embeddings", "index"):  # examples write into them
        (folder / name).unlink()
        shutil.copytree(line.root / name, folder / name)
    return folder


@pytest.mark.parametrize("name", modules())
def test_examples_of_docstrings_run(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert done.attempted
    assert not done.failed


@pytest.mark.parametrize("door", DOORS)
def test_every_public_class_has_an_example(door: str) -> None:
    found = examples_of(door)
    assert found
    assert not [name for name, there in found.items() if not there]
