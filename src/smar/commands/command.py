"""What the module of a command is: named NAME_command, a docstring of description and examples, `arguments`, `run`."""

import shlex
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Any, Protocol

from smar.storage.copies import local_copies

LAST = "when all parts are there, the same command without {}, which finishes"
"""What is to do after a part of a work; `{}` is the option that named it."""
Rows = list[tuple[str, object]]
"""What `summary` prints: names and values."""


class Command(Protocol):
    """A module of this room."""

    __name__: str
    __doc__: str | None

    def arguments(self, command: ArgumentParser) -> None: ...  # noqa: D102

    def run(self, options: Namespace) -> None: ...  # noqa: D102


def name_of(command: Command) -> str:
    """As it is typed."""
    return command.__name__.rpartition(".")[2].removesuffix("_command").replace("_", "-")


def described(command: Command) -> dict[str, Any]:
    """Help, description and examples, as `ArgumentParser` takes them."""
    what, _, examples = (command.__doc__ or "").strip().partition("\n\n")
    shown = "\n".join(f"  {line}" for line in examples.splitlines())
    text = {"description": what, "epilog": f"example:\n{shown}", "formatter_class": RawDescriptionHelpFormatter}
    return text | {"help": what[:1].lower() + what[1:].removesuffix(".")}


def call(command: Command, options: Namespace) -> None:
    """Run a command with what was typed; folders in a store are fetched before and published after."""
    with local_copies(name_of(command), vars(options)) as given:
        command.run(Namespace(**given))


def say(*words: object) -> str:
    """A command as it is typed."""
    return shlex.join(["smar", *map(str, words)])
