"""The parser of all commands."""

from argparse import ArgumentParser

from smar import __version__
from smar.commands import (
    ablate_command,
    bulk_command,
    compare_command,
    demo_command,
    embed_command,
    encode_service_command,
    evaluate_command,
    export_command,
    index_command,
    prepare_command,
    queries_command,
    search_command,
    serve_command,
    train_command,
)
from smar.commands.command import Command, described, name_of

_ORDER: tuple[Command, ...] = (
    *(prepare_command, train_command, evaluate_command, queries_command, ablate_command, embed_command),
    *(index_command, export_command, search_command, compare_command, serve_command, encode_service_command),
    *(bulk_command, demo_command),
)
COMMANDS = {name_of(command): command for command in _ORDER}
"""Name -> module, in the order of `smar --help`."""


def parser() -> ArgumentParser:
    """The parser of all commands; the one that was typed is `command`."""
    root = ArgumentParser(
        prog="smar",
        description="Product search that reads words and looks at pictures: from search log to search box.",
        epilog="prepare -> train -> evaluate -> embed -> index -> search | serve.   See it all: smar demo",
    )
    root.add_argument("--version", action="version", version=f"smar {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.arguments(commands.add_parser(name, **described(command)))
    return root
