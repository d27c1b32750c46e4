"""Types of the command line's arguments: a wrong one is one sentence and exit code 2, before anything is loaded."""

import argparse
import os
from datetime import datetime
from pathlib import Path


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


def named_file(text: str) -> tuple[str, Path]:
    """A name and a file to read, such as solr=solr.trec."""
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE, such as solr=solr.trec")
    return name, file(path)


def made(text: str) -> Path:
    """A folder that a command of smar made; what is not there is told by the command that needs it."""
    return _checked(text, folder=True)


def file(text: str) -> Path:
    """A file to read."""
    return _checked(text, folder=False)


def _checked(text: str, folder: bool) -> Path:
    path = Path(text)
    try:
        if path.exists() and path.is_dir() != folder:
            wanted = "the folder that smar made" if folder else "a file"
            raise argparse.ArgumentTypeError(f"{text} is a {'file' if folder else 'folder'}; give {wanted}")
        if path.exists() and not os.access(path, os.R_OK | (os.X_OK if folder else 0)):
            raise argparse.ArgumentTypeError(f"{text} cannot be read: permission denied")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {error.strerror}") from None
    return path


def folder(text: str) -> Path:
    """A folder to write: new, or made by this command before."""
    return _writable(text, folder=True)


def new_file(text: str) -> Path:
    """A file to write or to replace."""
    return _writable(text, folder=False)


def _writable(text: str, folder: bool) -> Path:
    path = Path(text)
    try:
        if path.exists() and path.is_dir() != folder:
            wanted = "a folder, new or made by this command before" if folder else "a file, new or to be replaced"
            raise argparse.ArgumentTypeError(f"{text} is a {'file' if folder else 'folder'}; give {wanted}")
        above = next(parent for parent in path.absolute().parents if parent.exists())
        if not above.is_dir():
            raise argparse.ArgumentTypeError(f"{text} cannot be written: {above} is a file")
        if not os.access(path if path.exists() else above, os.W_OK):
            raise argparse.ArgumentTypeError(f"{text} cannot be written: permission denied")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {error.strerror}") from None
    return path
