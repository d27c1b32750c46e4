"""What a table's cell says of pictures: how many it names, and where each of them is."""

import ast
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from smar.data.fetch import Source, Url
from smar.data.images import Unusable

MANY = r'[|;,\[" \t\r\n]'
"""Pattern of what a cell that names several pictures holds; others are not looked at closely."""
_SEPARATORS = tuple(map(re.compile, (r"[\r\n]+", r"\|", ";", ",", r"[ \t]+")))
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://.", re.IGNORECASE)
_NEXT_ADDRESS = re.compile(r"[|;,\s]+(?=[a-z][a-z0-9+.-]*://|$)", re.IGNORECASE)
_FILE = re.compile(
    r".\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|p[bgnp]m|avif|jp2|j2k|jpx|ico|tga|hei[cf]|svg)$", re.IGNORECASE
)
_OTHER_MACHINE = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)


def references(text: str, root: Path) -> list[str]:
    """The pictures that a cell names: as a JSON or Python list, or with line breaks, `|`, `;`, `,` or blanks between.

    Names and addresses may hold any of these. So addresses are divided only before another one
    (``https://x/w_300,h_300/a.jpg`` is one), paths only where each part ends like a picture file (``red, small.jpg``
    is one), and the name of a file below `root` never.
    """
    text = text.strip()
    listed = _listed(text) if text.startswith(("[", '"')) and text.endswith(("]", '"')) else None
    if isinstance(listed, str):
        return references(listed, root)
    if listed is not None:
        return [name.strip() for name in listed if name and name.strip()]
    if _ADDRESS.match(text):
        return [part for part in _NEXT_ADDRESS.split(text) if part]
    for separator in _SEPARATORS:
        parts = [part.strip() for part in separator.split(text) if part.strip()]
        if parts != [text] and parts and all(_FILE.search(part) and not _ADDRESS.match(part) for part in parts):
            if _is_file(root, text):
                break
            return [name for part in parts for name in references(part, root)]
    return [text] if text else []


def _listed(text: str) -> str | list[str | None] | None:
    """A text or a list of texts in JSON or, as pandas writes it, in Python; None for anything else."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        several = isinstance(found, list) and all(name is None or isinstance(name, str) for name in found)
        if several or isinstance(found, str):
            return found  # type: ignore[no-any-return]
    return None


def _is_file(root: Path, text: str) -> bool:
    try:
        return (root / text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False


def source(value: object, root: Path) -> Source | Unusable:
    """Where to read a picture: encoded bytes as they are, an address, or the file below `root` that a path leads to."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return value
    text = str(value or "").strip()
    if not text:
        return Unusable("missing", "an empty reference")
    if "://" not in text:
        return _file(root, text)
    if text.lower().startswith(("http://", "https://")):
        return Url(text)
    if text.lower().startswith(("file:///", "file://localhost/")):
        return _below(root, unquote(urlsplit(text).path))
    return Unusable("fetch_failed", f"{text.partition(':')[0]}: only http and https are fetched")


def _file(root: Path, text: str) -> Path | Unusable:
    """The file of a path, which may be written with backslashes or percent-encoded where it is not there as written."""
    if "\\" not in text and "%" not in text and not _OTHER_MACHINE.match(text):
        return _below(root, text)
    slashes = text.replace("\\", "/")
    found = {way: _below(root, way) for way in (text, slashes, unquote(slashes))}
    there = [path for path in found.values() if isinstance(path, Path) and path.exists()]
    if not there and _OTHER_MACHINE.match(text):
        return Unusable(
            "fetch_failed",
            "a path of a Windows drive or server: write it from data.images_root on",
        )
    return there[0] if there else found[slashes]


def _below(root: Path, text: str) -> Path | Unusable:
    """The file that a table's path leads to, which no absolute path, `..` or link may place outside of `root`.

    Links are followed here, and what is opened later is where they led.
    """
    try:
        full = Path(os.path.realpath(root / text))
    except ValueError as error:  # a null character
        return Unusable("missing", f"no path: {error}")
    if full.is_relative_to(root):
        return full
    advice = "set data.images_root to a folder that holds it (relative paths then start there)"
    return Unusable("fetch_failed", f"leads out of {root}, links followed: {advice}")
