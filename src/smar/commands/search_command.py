"""Search an index, one query or a file of them.

smar search index "red dress" -k 5 --filter 'price<50'
smar search index '' --filter 'category=Dress' --sort=-price --facets brand
smar search index --queries queries.txt -k 50 --run run.trec
"""

import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from smar.commands import arguments as types
from smar.core.errors import InputError
from smar.core.progress import summary

if TYPE_CHECKING:
    from smar.serving.engine import Searching

MODES = ("adaptive", "route", "text", "multimodal", "hybrid")
_SHAPE = ("offset", "sort", "rank", "collapse", "facets", "cutoff")


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("index", type=types.held, metavar="INDEX", help="a folder, or the URL of an engine")
    types.add_folder(command)
    add("query", nargs="?", metavar="QUERY")
    add("-k", type=int, default=10, metavar="N", help="hits per query (default 10)")
    add("--filter", metavar="EXPRESSION", help="such as: price<50 and category in (Shirt, Dress)")
    add("--mode", choices=MODES, default="adaptive", help="which vectors answer (default adaptive)")
    add("--offset", type=int, default=0, metavar="N", help="hits to leave out before them")
    add("--sort", type=types.names, default=[], metavar="A,B", help="such as: price or -created_at")
    add("--rank", metavar="EXPRESSION", help="such as: score * (1 + 0.2 * log1p(sold))")
    add("--collapse", metavar="COLUMN", help="one hit for all items with the same value")
    add("--facets", type=types.names, default=[], metavar="A,B", help="count these columns")
    add("--cutoff", action="store_true", help="leave out hits that are not relevant to the query")
    add("--fields", type=types.names, metavar="A,B", help="with --json: columns to print")
    add("--rules", type=types.file, metavar="RULES.yaml", help="a shop's rules: see docs/rules.md")
    add("--json", action="store_true", help="print JSON")
    add("--queries", type=types.file, metavar="FILE", help="one query a line")
    text = "with --queries: write a TREC run; topic = line number from 0"
    add("--run", type=types.new_file, metavar="RUN.trec", help=text)


def run(options: Namespace) -> None:
    from smar.api.index import Index
    from smar.serving.printed import print_result

    if (options.query is None) == (options.queries is None):
        raise InputError(
            'give one query, such as smar search INDEX "red dress", or --queries FILE with --run RUN.trec.'
        )
    if (options.queries is None) != (options.run is None):
        raise InputError("--queries FILE and --run RUN.trec belong together: the run is where the answers go.")
    if options.queries is not None and options.rules is not None:
        raise InputError("--rules are for one query; a run of --queries shows what the model finds.")
    index = Index.open(options.index, options.folder, rules=options.rules)
    if options.queries is not None:
        _search_file(index.engine, options)
        return
    given = {name: getattr(options, name) for name in _SHAPE}
    result = index.search(options.query, options.k, options.mode, options.filter, **given)
    if options.json:
        import msgspec

        from smar.serving.answers import as_json, result_out

        print(msgspec.json.format(as_json(result_out(result, options.fields)), indent=2).decode())
        return
    print_result(result)


def _search_file(engine: "Searching", options: Namespace) -> None:
    """Answer a file of queries as a TREC run whose topics are line numbers from 0."""
    from smar.core.files import atomic
    from smar.core.progress import track
    from smar.search.protocol import Mode

    started = time.perf_counter()
    try:
        text = options.queries.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--queries {options.queries} cannot be read: {error}") from None
    # Not splitlines, which also ends lines at signs such as U+2028: topics are numbers of lines that others see.
    queries = text.removesuffix("\n").split("\n")
    options.run.parent.mkdir(parents=True, exist_ok=True)
    answers = engine.search_many(queries, options.k, Mode(options.mode), options.filter)
    lines = 0
    with atomic(options.run) as partial, partial.open("w", encoding="utf-8") as out:
        for topic, hits in enumerate(track(answers, "search (queries)", len(queries))):
            for place, hit in enumerate(hits, start=1):
                if len(hit.item_id.split()) != 1:
                    raise InputError(f"item_id {hit.item_id!r} holds white space, which a TREC run cannot.")
                out.write(f"{topic} Q0 {hit.item_id} {place} {hit.score:.6f} smar-{options.mode}\n")
                lines += 1
    rate = len(queries) / (time.perf_counter() - started)
    rows = [("queries", len(queries)), ("lines", lines), ("queries per second", rate)]
    summary(f"run in {options.run}", rows)
