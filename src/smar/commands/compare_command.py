"""Tell which of two models does better in a shop, from what shoppers did.

smar compare events
smar compare events --control a --effect 0.02 --json
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.core.progress import summary


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("events", nargs="+", type=types.made, metavar="EVENTS", help="folders that `smar serve --events` filled")
    add("--control", metavar="NAME", help="the variant to compare with (default: first by name)")
    text = "relative effect that is worth seeing (0.05)"
    add("--effect", type=float, default=0.05, metavar="SHARE", help=text)
    add("--design", choices=("split", "interleaved"), help="how the service was run, where the events do not tell")
    add("--json", action="store_true", help="print JSON")


def run(options: Namespace) -> None:
    import msgspec

    from smar.evaluation.compare import compare, comparison_rows

    done = compare(options.events, options.control, options.effect, options.design)
    if options.json:
        told = [vars(row) | {"winner": row.winner} for row in done.rows]
        print(msgspec.json.format(msgspec.json.encode(vars(done) | {"rows": told}), indent=2).decode())
        return
    summary(f"{done.design}: {', '.join(map(str, options.events))}", comparison_rows(done, options.effect))
