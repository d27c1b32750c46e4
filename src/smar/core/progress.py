"""What a command shows: a progress bar on long work, a closing summary, the next command to run."""

from collections.abc import Iterable, Iterator, Sequence
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
    console.print(f"\n[bold]{title}[/bold]")
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else str(value)
        console.print(f"  {name:<{width}}  {text}", markup=False)
    if next_command:
        console.print(f"\nnext: {next_command}\n", markup=False, soft_wrap=True)
