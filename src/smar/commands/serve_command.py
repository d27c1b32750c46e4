"""Serve an index: HTTP API and search page.

smar serve index --port 8080
smar serve index --workers 4 --model run --keys keys.txt --rate 20
smar serve shop=index1 test=index2 --model shop=run1
smar serve a=index1 b=index2 --split a:50,b:50
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from smar.commands import arguments as types
from smar.core.errors import InputError

_OPTIONS = (
    *("workers", "protect_reads", "rate", "log", "cors", "root_path", "rules", "facets", "sort", "collapse"),
    *("split", "interleave", "events", "events_sessions"),
)


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    text = "a folder, here or in a store, a URL, or several as NAME=INDEX; the first answers what names none"
    add("indexes", nargs="+", type=types.served, metavar="INDEX", help=text)
    types.add_folder(command)
    types.add_address(command)
    add("--workers", type=types.positive, default=1, metavar="N", help="processes that answer (default 1)")
    text = "run of the (first) index: items can be written over HTTP; or NAME=RUN, also several times"
    add("--model", action="append", default=[], type=types.named_folder, metavar="RUN", help=text)
    compare = command.add_mutually_exclusive_group().add_argument
    text = "indexes that share the sessions"
    compare("--split", type=types.shares, default=(), metavar="A:50,B:50", help=text)
    compare("--interleave", type=types.names, default=(), metavar="A,B", help="two indexes that rank together")
    types.add_device(command)
    text = "between looks for new versions in a store (10)"
    add("--poll", type=float, default=10.0, metavar="SECONDS", help=text)
    add("--keys", type=types.file, metavar="FILE", help="API keys, one a line; or SMAR_API_KEYS=KEY,KEY")
    text = "whose pages may call it, such as https://shop.example"
    add("--cors", nargs="+", default=(), metavar="ORIGIN", help=text)
    add("--rules", type=types.file, metavar="RULES.yaml", help="pins, boosts, synonyms, ...: see docs/rules.md")
    add("--root-path", default="", metavar="PREFIX", help="where a proxy shows it, such as /search")
    text = "columns to filter by on the page (default category,brand,price)"
    add("--facets", type=types.names, default="category,brand,price", metavar="COLUMNS", help=text)
    add("--sort", type=types.names, default=(), metavar="COLUMNS", help="columns to sort by: price,-created_at")
    text = "one card there for each value: product_id:colours"
    add("--collapse", default="", metavar="COLUMN[:NOUN]", help=text)
    add("--protect-reads", action="store_true", help="searching needs a key, too")
    add("--rate", type=float, default=0.0, metavar="N", help="requests a second and client (no limit)")
    add("--events", type=types.folder, metavar="DIR", help="take shoppers' impressions and clicks into this folder")
    add("--events-sessions", action="store_true", help="keep hashes of their session and client ids")
    add("--log", choices=("errors", "requests", "queries"), default="errors", help="what is logged")
    types.add_assignments(command, "name=value", "see docs/serving.md")


def run(options: Namespace) -> None:
    from smar.core.logs import configure_logs
    from smar.serving.options import named_paths, read_keys, service_options
    from smar.serving.supervise import serve
    from smar.storage.following import following

    named = {name: getattr(options, name) for name in _OPTIONS}
    chosen = service_options(options.assignments, keys=read_keys(options.keys), **named)
    configure_logs()
    indexes = named_paths(options.indexes)
    if any(isinstance(one, str) for one in indexes.values()):
        _check_engine(indexes, options)
    runs = named_paths(options.model, next(iter(indexes)))
    with following(options.stores, options.poll):
        serve(indexes, options.host, options.port, chosen, runs, options.device, options.folder)


def _check_engine(indexes: Mapping[str, Path | str], options: Namespace) -> None:
    if len(indexes) > 1:
        raise InputError("an engine behind a URL is served alone; give each a `smar serve` of its own.")
    if options.model:
        raise InputError("--model writes to an index folder; items of an engine are changed with `smar index URL`.")
    if options.rules is not None:
        raise InputError("--rules are followed by the embedded index alone; an engine behind a URL has none.")
    if options.events is not None:
        raise InputError("--events are taken beside the embedded index alone; an engine behind a URL has none.")
