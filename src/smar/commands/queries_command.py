"""Report which queries a service answers badly, by the events that `smar serve --events` took.

smar queries events --index index --out report
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import Rows
from smar.core.progress import summary


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("events", type=types.made, nargs="+", metavar="EVENTS")
    add("--index", type=types.made, required=True, metavar="INDEX", help="titles and pictures")
    text = "list queries with so many searches (default 5)"
    add("--least", type=types.positive, default=5, metavar="N", help=text)
    add("--out", type=types.folder, required=True, metavar="REPORT")


def run(options: Namespace) -> None:
    from smar.evaluation.queries import find_queries
    from smar.evaluation.queries_report import write_queries_report
    from smar.search.local import UpdatableIndex

    found = find_queries(options.events)
    catalogue = UpdatableIndex.open(options.index).snapshot.catalogue
    lists = write_queries_report(options.out, found, catalogue, options.least)
    rows: Rows = [("searches", found.total.searches), ("queries", len(found.queries))]
    rows += [(name.lower(), count) for name, count in lists.items()]
    rows += [("proposed synonyms", len(found.replaced)), ("report", options.out / "report.md")]
    summary(f"report in {options.out}", rows)
