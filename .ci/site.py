"""What mkdocs is told beside mkdocs.yml: pages that are also read in the repository become those of a site."""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
EXAMPLE = re.compile(r"(?m)^( *)>>> (?:.*\S.*(?:\n|\Z))+")


class Examples(griffe.Extension):
    """An example in a docstring becomes a block of code; a page would take its arrows for quotations."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that a page may show."""
        if obj.docstring is not None:
            fenced = EXAMPLE.sub(
                lambda found: f"{found[1]}```pycon\n{found[0].rstrip()}\n{found[1]}```\n", obj.docstring.value
            )
            obj.docstring.value = fenced


def on_files(files: Files, config: Any) -> Files:
    """The README is the first page; docs/index.md is about the search index and gets a place of its own."""
    index = files.get_file_from_path("index.md")
    assert index is not None
    index.dest_uri = "search-index.html"
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "home.md", content=readme))
    home = files.get_file_from_path("home.md")
    assert home is not None
    home.dest_uri = "index.html"
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files of the repository that are no pages become their text; lists begin after an empty line."""
    folder = Path(page.file.src_uri).parent

    def shown(found: re.Match[str]) -> str:
        text, target = found.groups()
        path = target.partition("#")[0]
        inside = not path or "://" in path or files.get_file_from_path(_joined(folder, path)) is not None
        there = (ROOT if page.file.src_uri == "home.md" else ROOT / "docs" / folder) / path
        return found[0] if inside or not there.is_file() else text

    return re.sub(r"(?m)^(?![ ]*[-|#>])(\S.*)\n(- )", r"\1\n\n\2", LINK.sub(shown, markdown))


def _joined(folder: Path, path: str) -> str:
    parts: list[str] = []
    for part in (folder / path).parts:
        parts = parts[:-1] if part == ".." and parts else [*parts, part]
    return "/".join(parts)
