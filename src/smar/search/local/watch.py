"""Whether the files of a version that this process maps are still what it opened.

They never change; but a hand may shorten one in place (`cp`, `truncate`), and whoever then reads a page that is gone is
killed by SIGBUS. So they are looked at from outside, some microseconds for each, whenever the index is.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

Looks: TypeAlias = tuple[int, int, int]
"""Number of the file, when it was changed (ns), bytes."""
_GONE: Looks = (0, 0, 0)


def looks(path: str) -> Looks:
    """How a file looks from outside; zeros where it cannot be looked at."""
    try:
        seen = os.stat(path)  # noqa: PTH116  # a third of what `Path` takes
    except OSError:
        return _GONE
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def folder_looks(folder: Path) -> tuple[tuple[str, Looks], ...]:
    """How each file below a folder looks."""
    return tuple((path, looks(path)) for path in sorted(map(str, folder.rglob("*"))))


class WatchedFiles:
    """Files as they look now; `changes` tells what is not so any more."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._before = [(path, looks(path)) for path in map(str, files)]

    def changes(self) -> tuple[bool, str | None]:
        """Whether anything looks different, and the name of a file that was changed where it lies, if there is one.

        Another file in the place of one, or none, harms nobody: what is mapped stays until it is let go.
        """
        changed = [(path, was, now) for path, was in self._before if (now := looks(path)) != was]
        return bool(changed), next((path for path, was, now in changed if was[0] == now[0]), None)
