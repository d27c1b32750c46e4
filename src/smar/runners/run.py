"""`run(tasks, parts)`: results as they come, with progress; what fails is named with its part."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from smar.core.errors import one_of
from smar.core.progress import track
from smar.runners.failures import P, R, called

RUNNERS = ("local", "ray")


class Part(NamedTuple):
    """One of several calls that share the work: number 3 of 16, from 1 on.

    >>> str(Part(3, 16)), list(range(40))[Part(3, 16).slice]
    ('3/16', [2, 18, 34])
    """

    number: int
    of: int

    @property
    def slice(self) -> slice:
        """Which of a list's elements are this part's."""
        return slice(self.number - 1, None, self.of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def run(
    tasks: Sequence[Callable[[P], R]],
    parts: Iterable[P],
    total: int,
    what: str,
    runner: str = "local",
    gpu: bool = False,
) -> Iterator[R]:
    """Call a task on each part and yield the results as they come.

    >>> sorted(run([abs], [-2, 1], 2, "sizes"))
    [1, 2]

    Args:
        tasks: equal but for where they compute. Locally one works in this process, several each in a process of its
            own, which takes part after part. Ray takes the first. What goes to another process can be pickled.
        parts: their text names the part where it fails.
        total: how many parts there are.
        what: the progress bar's name; "" for none.
        runner: `local` or `ray`.
        gpu: whether a task of Ray needs a GPU, where the cluster has any.

    Raises:
        InputError: of the task, with the part's name before it; or a part's process died `TRIES` times.
        Exception: any other of the task, with a note that names the part.
    """
    if runner == "ray":
        from smar.runners.ray import with_ray

        results = with_ray(tasks[0], parts, gpu)
    elif runner == "local":
        from smar.runners.local import in_processes

        results = (called(tasks[0], part) for part in parts) if len(tasks) == 1 else in_processes(tasks, parts)
    else:
        raise one_of(runner, RUNNERS, "the runner")
    return track(results, what, total) if what else iter(results)
