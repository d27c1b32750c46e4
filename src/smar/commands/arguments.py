"""Types of what is typed, and options that several commands share.

A wrong argument is one sentence and exit code 2, before anything is loaded.
"""

import argparse
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pydantic import ByteSize, TypeAdapter

from smar.runners.run import RUNNERS, Part
from smar.storage.location import is_store


def date(text: str) -> datetime:
    """A date or a time such as 2026-09-27."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-09-27") from None


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def size(text: str) -> int:
    """Bytes, such as 4GB (4,000,000,000) or 4GiB.

    >>> size("4GB")
    4000000000
    """
    try:
        found = int(TypeAdapter(ByteSize).validate_python(text))
    except ValueError:
        found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4GB")
    return found


def part(text: str) -> Part:
    """One of several calls that share the work, such as 3/16."""
    number, sign, of = text.partition("/")
    if not (sign and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 3/16 for the third of sixteen parts")
    return Part(int(number), int(of))


def named_file(text: str) -> tuple[str, Path]:
    """A name and a file to read, such as solr=solr.trec."""
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE, such as solr=solr.trec")
    return name, file(path)


def served(text: str) -> tuple[str | None, Path | str]:
    """A folder that a command of smar made, an engine's URL, or NAME=ONE; the name is None where there is none."""
    name, own = _name_of(text)
    return name, held(own)


def named_folder(text: str) -> tuple[str | None, Path | str]:
    """A folder that a command of smar made, or NAME=FOLDER; the name is None where there is none."""
    name, own = _name_of(text)
    return name, made(own)


def _name_of(text: str) -> tuple[str | None, str]:
    name, sign, rest = text.partition("=")
    return (name, rest) if sign and "/" not in name and not Path(text).exists() else (None, text)


def shares(text: str) -> tuple[tuple[str, float], ...]:
    """Names with a number each, such as a:50,b:50."""
    pairs = [part.partition(":") for part in names(text)]
    try:
        return tuple((name, float(share)) for name, _, share in pairs)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:SHARE,NAME:SHARE, such as a:50,b:50") from None


def made(text: str) -> Path | str:
    """A folder that a command of smar made, here or in a store; what is not there is told by who needs it."""
    if is_store(text):
        return text
    return _usable(text, True, "the folder that smar made", "read", _not_readable)


def held(text: str) -> Path | str:
    """A folder that a command of smar made, or the URL of an engine, such as postgresql://host/shop."""
    return text if "://" in text else made(text)


def url(text: str) -> str:
    """The URL of an engine."""
    if "://" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL such as postgresql://host/shop or lance:///srv/shop")
    return text


def file(text: str) -> Path:
    """A file to read."""
    return _usable(text, False, "a file", "read", _not_readable)


def folder(text: str) -> Path | str:
    """A folder to write, here or in a store: new, or made by this command before."""
    if is_store(text):
        return text
    return _usable(text, True, "a folder, new or made by this command before", "written", _not_writable)


def new_file(text: str) -> Path:
    """A file to write or to replace."""
    return _usable(text, False, "a file, new or to be replaced", "written", _not_writable)


def _usable(text: str, folder: bool, wanted: str, use: str, hindrance: Callable[[Path], str]) -> Path:
    """A path that is not of the wrong kind, and with which `hindrance` finds nothing wrong."""
    path = Path(text)
    try:
        if path.exists() and path.is_dir() != folder:
            raise argparse.ArgumentTypeError(f"{text} is a {'file' if folder else 'folder'}; give {wanted}")
        found = hindrance(path)
    except OSError as error:
        found = error.strerror or str(error)
    if found:
        raise argparse.ArgumentTypeError(f"{text} cannot be {use}: {found}")
    return path


def _not_readable(path: Path) -> str:
    if not path.exists() or os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        return ""
    return "permission denied"


def _not_writable(path: Path) -> str:
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        return f"{above} is a file"
    return "" if os.access(path if path.exists() else above, os.W_OK) else "permission denied"


def add_runner(command: argparse.ArgumentParser, option: str = "", what: str = "") -> None:
    """Who does the work: this machine, a Ray cluster, or, where there is an option, several calls with a part each."""
    text = "local, or ray: a cluster (RAY_ADDRESS) or this machine"
    command.add_argument("--runner", choices=RUNNERS, default="local", help=text)
    if option:
        text = f"{what} of one of N calls only; a call without it finishes"
        command.add_argument(option, type=part, dest="part", metavar="K/N", help=text)


def add_configuration(command: argparse.ArgumentParser) -> None:
    """Settings as a file, and single ones."""
    command.add_argument("--config", type=file, metavar="FILE", help="YAML file, see docs/configuration.md")
    add_assignments(command)


def add_assignments(
    command: argparse.ArgumentParser, metavar: str = "section.key=value", text: str = "override one setting"
) -> None:
    """Single settings."""
    command.add_argument("--set", action="append", default=[], dest="assignments", metavar=metavar, help=text)


def add_device(command: argparse.ArgumentParser) -> None:
    """What computes."""
    text = "what computes: a GPU where there is one (auto), the processor, or a GPU and nothing else (cuda)"
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)


def add_folder(command: argparse.ArgumentParser) -> None:
    """Where the files of an engine's index lie."""
    text = "with a URL: where query encoder and pictures lie, if not where it was loaded from"
    command.add_argument("--folder", type=made, metavar="DIR", help=text)


def add_address(command: argparse.ArgumentParser) -> None:
    """Where a service listens."""
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8080)
