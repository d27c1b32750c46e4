"""The page on settings says every key with its default, and no key that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from smar.commands.parser import parser
from smar.core.sections.section import Section
from smar.core.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| `(.*?)` \|", re.MULTILINE)


def leaves(section: Section, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Full key and default of every setting."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_yaml(value: object) -> str:
    """A default as it would be typed into the file, on one line."""
    if isinstance(value, tuple):
        value = [part.model_dump(exclude_defaults=True) if isinstance(part, Section) else part for part in value]
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return text.removesuffix("...").strip()


def test_every_setting_is_documented() -> None:
    documented = dict(ROW.findall(PAGE))
    assert documented == {key: as_yaml(default) for key, default in leaves(Settings())}


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_commands_can_be_typed(page: Path) -> None:
    """Every indented or fenced line that starts with `smar` is a command the parser takes."""
    import shlex

    lines = re.findall(r"^(?: {4}|\$ )?smar ([a-z]+ .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for text in lines:
        words = shlex.split(text.split("  #")[0])
        assert parser().parse_args(words).command == words[0]


def test_three_ways_to_read_name_files_that_there_are() -> None:
    """Each in at most ten of them."""
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Three ways to read")[1]
    ways = re.findall(r"^\*\*(.+?)\*\*: (.+?)\n\n", section.split("\n## ")[0] + "\n\n", re.MULTILINE | re.DOTALL)
    files = {way: re.findall(r"`([\w/]+\.py)`", told) for way, told in ways}
    assert list(files) == ["Query to hits", "Title to index", "Batch to loss"]
    for way, named in files.items():
        assert 5 <= len(named) <= 10, way
        assert [name for name in named if not (ROOT / "src" / "smar" / name).is_file()] == []
