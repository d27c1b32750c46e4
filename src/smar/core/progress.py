"""What a command shows: a progress bar on long work, a closing summary, the next command to run."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)
T = TypeVar("T")
_NAMES: dict[str, str] = {}


def show_as(path: Path, name: str) -> None:
    """From now on `shown` says `name` for a path: what the user gave, where a copy is worked on."""
    _NAMES[str(path)] = name


def shown(text: object) -> str:
    """A message as the user reads it.

    >>> show_as(Path("/tmp/copy/run"), "s3://bucket/run")
    >>> shown("smar embed /tmp/copy/run")
    'smar embed s3://bucket/run'
    """
    found = str(text)
    for path, name in _NAMES.items():
        found = found.replace(path, name)
    return found


def bar() -> Progress:
    """Progress bar in the house style; use as a context manager."""
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar."""
    with bar() as progress:
        yield from progress.track(items, total=total, description=what)


def summary(title: str, rows: Sequence[tuple[str, object]], next_command: str | None = None) -> None:
    """Print the closing summary of a command: its counts and timings, then the command to run next."""
    console.print(f"\n[bold]{shown(title)}[/bold]")
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else shown(value)
        console.print(f"  {name:<{width}}  {text}", markup=False)
    if next_command:
        console.print(f"\nnext: {shown(next_command)}\n", markup=False, soft_wrap=True)
