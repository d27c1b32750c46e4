"""What the command line takes: every command, its arguments, and an example of its use."""

import argparse
from pathlib import Path

from smar import __version__, arguments

BULK = ("parquet", "opensearch", "elasticsearch", "qdrant", "vespa")
MODES = ("adaptive", "route", "text", "multimodal", "hybrid")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    root = argparse.ArgumentParser(
        prog="smar",
        description="Product search that reads words and looks at pictures: from search log to search box.",
        epilog="prepare -> train -> evaluate -> embed -> index -> search | serve.   See it all: smar demo",
    )
    root.add_argument("--version", action="version", version=f"smar {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _prepare(commands)
    _train(commands)
    _evaluate(commands)
    _queries(commands)
    _ablate(commands)
    _embed_and_index(commands)
    _export(commands)
    _search(commands)
    _compare(commands)
    _serve_and_demo(commands)
    return root


Commands = argparse._SubParsersAction  # the type that add_subparsers returns has no public name


def _command(
    commands: "Commands[argparse.ArgumentParser]", name: str, what: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog="example:\n  " + "\n  ".join(example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _prepare(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "prepare",
        "turn a catalogue, its pictures and a search log into a dataset",
        "smar prepare --items items.parquet --clicks clicks-*.csv --test-from 2026-09-27 --out dataset\n"
        "smar prepare --items s3://shop/items --clicks https://shop.example/log.csv --out dataset\n"
        "smar prepare --config configs/recipes/shopify.yaml --items products.csv --clicks log.csv --out dataset",
    )
    tables = {
        "items": "catalogue: item_id, title and more",
        "clicks": "search log: query, item_id, timestamp, clicked; or query, item_id[, weight]",
        "images": "pictures in a table of their own: item_id, image",
        "queries": "attributes of queries for the report, such as needs_image",
    }
    for name, text in tables.items():
        command.add_argument(
            f"--{name}",
            nargs="+",
            action="extend",
            default=[],
            metavar="PATH",
            help=f"{text} (files, folders, globs or addresses; Parquet, Arrow, CSV, TSV, JSON lines)",
        )
    _configuration(command)
    command.add_argument(
        "--pictures-for",
        metavar="CHECKPOINT",
        help="pack pictures as the image processor of this model (name or folder) does: size, fit, resampling",
    )
    arguments.add_runner(command, "--pictures", "decode the pictures")
    command.add_argument("--test-from", type=arguments.date, metavar="DATE", help="first day of the test period")
    command.add_argument("--out", type=arguments.folder, required=True, metavar="DATASET")
    command.add_argument(
        "--engine", choices=("duckdb", "spark"), default="duckdb", help="what makes pairs of the log; see docs/scale.md"
    )
    command.add_argument("--spark-master", metavar="URL", help="such as local[4], spark://host:7077 or yarn")


def _configuration(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=arguments.file, metavar="FILE", help="YAML file, see docs/configuration.md")
    _assignments(command)


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--folder",
        type=arguments.made,
        metavar="DIR",
        help="with a URL: where query encoder and pictures lie, if not where it was loaded from",
    )


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="what computes: a GPU where there is one (auto), the processor, or a GPU and nothing else (cuda)",
    )


def _assignments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="section.key=value",
        help="override one setting",
    )


def _train(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "train",
        "train the model and its baselines, or finish a run that was interrupted",
        "smar train dataset --out run\nsmar train dataset --out run --config configs/fashion.yaml --set train.seed=1\n"
        "smar train dataset-tuesday --from run-monday --out run-tuesday",
    )
    command.add_argument("dataset", type=arguments.made, metavar="DATASET")
    command.add_argument(
        "--from",
        type=arguments.made,
        dest="source",
        metavar="RUN",
        help="go on from this finished run: its settings, its weights, a quarter of its steps",
    )
    command.add_argument("--out", type=arguments.folder, required=True, metavar="RUN")
    _configuration(command)
    _device(command)


def _evaluate(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "evaluate",
        "compare the models of one or several runs on the test period: tables, tests, controls, charts",
        "smar evaluate run dataset --out report\n"
        "smar evaluate run dataset --out report --runner ray\n"
        "smar evaluate run dataset --qrels qrels.parquet --out report\n"
        "smar evaluate run-a run-b dataset --names small,large --out report\n"
        "smar evaluate run dataset --trec-run solr=solr.trec --out report",
    )
    command.add_argument("runs", type=arguments.made, nargs="+", metavar="RUN")
    command.add_argument("dataset", type=arguments.made, metavar="DATASET")
    command.add_argument(
        "--qrels",
        metavar="FILE",
        help="query, item_id, relevance[, hidden], or TREC's judgements; test clicks when not given",
    )
    command.add_argument(
        "--trec-run",
        type=arguments.named_file,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another system's ranking, a TREC run file, as a row of the report",
    )
    command.add_argument(
        "--topics", type=arguments.file, metavar="FILE", help="lines `id query`: what TREC files call the queries"
    )
    command.add_argument(
        "--names", type=arguments.names, default=[], metavar="A,B", help="names of the runs in the report"
    )
    _assignments(command)
    _device(command)
    arguments.add_runner(command)
    command.add_argument("--out", type=arguments.folder, required=True, metavar="REPORT")


def _queries(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "queries",
        "report which queries a service answers badly, by the events that `smar serve --events` took",
        "smar queries events --index index --out report",
    )
    command.add_argument("events", type=arguments.made, nargs="+", metavar="EVENTS")
    command.add_argument("--index", type=arguments.made, required=True, metavar="INDEX", help="titles and pictures")
    command.add_argument(
        "--least",
        type=arguments.positive,
        default=5,
        metavar="N",
        help="list queries with so many searches (default 5)",
    )
    command.add_argument("--out", type=arguments.folder, required=True, metavar="REPORT")


def _ablate(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "ablate",
        "train and measure variants of a configuration as one table, or finish such a table",
        "smar ablate configs/fashion.yaml dataset --out ablation --plan\n"
        "smar ablate configs/fashion.yaml dataset --out ablation --only base,vit --workers 2 "
        "--set 'ablate.steps=[150, 50]'",
    )
    command.add_argument("config", type=arguments.file, metavar="CONFIG", help="YAML file with a section `ablate`")
    command.add_argument("dataset", type=arguments.made, metavar="DATASET")
    command.add_argument("--out", type=arguments.folder, required=True, metavar="FOLDER")
    command.add_argument("--only", type=arguments.names, default=[], metavar="NAME,NAME", help="these variants only")
    command.add_argument(
        "--workers", type=arguments.positive, default=1, metavar="N", help="variants at once, a thread each"
    )
    command.add_argument("--plan", action="store_true", help="print what would run, and stop")
    command.add_argument("--qrels", type=arguments.file, metavar="FILE", help="judgements to measure beside the clicks")
    _assignments(command)
    _device(command)


def _embed_and_index(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "embed",
        "encode the catalogue, or finish an encoding that was interrupted",
        "smar embed run dataset --out embeddings\n"
        "smar embed run dataset --out embeddings --runner ray\n"
        "smar embed run dataset --out embeddings --part 3/16",
    )
    command.add_argument("run", type=arguments.made, metavar="RUN")
    command.add_argument("dataset", type=arguments.made, metavar="DATASET")
    command.add_argument("--out", type=arguments.folder, required=True, metavar="EMBEDDINGS")
    arguments.add_runner(command, "--part", "make the shards")
    _device(command)
    _index(commands)


def _index(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "index",
        "build the search index from embeddings, or change an index",
        "smar index embeddings --out index\n"
        "smar index embeddings --to postgresql://user@host/shop --workers 4\n"
        "smar index index --update new-items.parquet --run run\n"
        "smar index index --delete ids.txt\n"
        "smar index index --compact\n"
        "smar index index --rollback",
    )
    command.add_argument(
        "source",
        type=arguments.held,
        metavar="SOURCE",
        help="embeddings with --out or --to; else the index to change, a folder or the URL of an engine",
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=arguments.folder, metavar="INDEX", help="add a version to this index and serve it")
    what.add_argument(
        "--to",
        type=arguments.url,
        metavar="URL",
        help="load an engine instead: postgresql://, milvus://, lance:// (docs/engines.md)",
    )
    command.add_argument(
        "--workers", type=arguments.positive, default=1, metavar="N", help="with --to: processes that load shards"
    )
    arguments.add_runner(command)
    what.add_argument("--update", nargs="+", metavar="ITEMS", help="tables of new and changed items; needs --run")
    what.add_argument("--delete", type=arguments.file, metavar="FILE", help="ids of items to remove, one a line")
    what.add_argument("--compact", action="store_true", help="make one new version of index and updates")
    what.add_argument("--rollback", action="store_true", help="serve the previous version again")
    command.add_argument(
        "--recall", type=float, metavar="SHARE", help="with --out or --to: recall@50 to tune to (default 0.98)"
    )
    command.add_argument(
        "--query", type=arguments.made, metavar="DIR", help="with --out: a query encoder of `smar export`"
    )
    command.add_argument(
        "--memory", type=arguments.size, metavar="SIZE", help="with --out: build large catalogues in so much, e.g. 4GB"
    )
    command.add_argument(
        "--run", type=arguments.made, metavar="RUN", help="with --update: the run whose model encodes the items"
    )
    command.add_argument("--images", nargs="+", default=[], metavar="PATH", help="with --update: pictures of the items")
    _device(command)


def _export(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "export",
        "write a model for machines without torch or smar: its query encoder, or a sentence-transformers folder",
        "smar export run --out encoder\nsmar export run --embeddings embeddings --precision int8 --out encoder\n"
        "smar export run --baseline dpsr --format sentence-transformers --out sentences",
    )
    command.add_argument("run", type=arguments.made, metavar="RUN")
    command.add_argument("--out", type=arguments.folder, required=True, metavar="DIR")
    command.add_argument("--baseline", metavar="NAME", help="a baseline of the run instead of its own model")
    command.add_argument(
        "--format",
        choices=("onnx", "sentence-transformers"),
        default="onnx",
        help="onnx: query tower and gate as a graph (default); sentence-transformers: queries and items of kind dpsr",
    )
    command.add_argument(
        "--embeddings", type=arguments.made, metavar="EMBEDDINGS", help="add int8, measured on their validation queries"
    )
    command.add_argument(
        "--precision", choices=("float32", "int8"), default="float32", help="the default of the folder (float32)"
    )


def _search(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "search",
        "search an index, one query or a file of them",
        "smar search index \"red dress\" -k 5 --filter 'price<50'\n"
        "smar search index '' --filter 'category=Dress' --sort=-price --facets brand\n"
        "smar search index --queries queries.txt -k 50 --run run.trec",
    )
    command.add_argument("index", type=arguments.held, metavar="INDEX", help="a folder, or the URL of an engine")
    _folder(command)
    command.add_argument("query", nargs="?", metavar="QUERY")
    command.add_argument("-k", type=int, default=10, metavar="N", help="hits per query (default 10)")
    command.add_argument("--filter", metavar="EXPRESSION", help="such as: price<50 and category in (Shirt, Dress)")
    command.add_argument("--mode", choices=MODES, default="adaptive", help="which vectors answer (default adaptive)")
    arguments.add_shape(command)
    command.add_argument("--rules", type=arguments.file, metavar="RULES.yaml", help="a shop's rules: see docs/rules.md")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--queries", type=arguments.file, metavar="FILE", help="one query a line")
    command.add_argument(
        "--run",
        type=arguments.new_file,
        metavar="RUN.trec",
        help="with --queries: write a TREC run; topic = line number from 0",
    )


def _compare(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "compare",
        "tell which of two models does better in a shop, from what shoppers did",
        "smar compare events\nsmar compare events --control a --effect 0.02 --json",
    )
    command.add_argument(
        "events", nargs="+", type=arguments.made, metavar="EVENTS", help="folders that `smar serve --events` filled"
    )
    command.add_argument("--control", metavar="NAME", help="the variant to compare with (default: first by name)")
    command.add_argument(
        "--effect", type=float, default=0.05, metavar="SHARE", help="relative effect that is worth seeing (0.05)"
    )
    command.add_argument(
        "--design", choices=("split", "interleaved"), help="how the service was run, where the events do not tell"
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def _serve_and_demo(commands: "Commands[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "serve",
        "serve an index: HTTP API and search page",
        "smar serve index --port 8080\n"
        "smar serve index --workers 4 --model run --keys keys.txt --rate 20\n"
        "smar serve shop=index1 test=index2 --model shop=run1\n"
        "smar serve a=index1 b=index2 --split a:50,b:50",
    )
    command.add_argument(
        "indexes",
        nargs="+",
        type=arguments.served,
        metavar="INDEX",
        help="a folder, here or in a store, a URL, or several as NAME=INDEX; the first answers what names none",
    )
    _folder(command)
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8080)
    command.add_argument(
        "--workers", type=arguments.positive, default=1, metavar="N", help="processes that answer (default 1)"
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        type=arguments.named_folder,
        metavar="RUN",
        help="run of the (first) index: items can be written over HTTP; or NAME=RUN, also several times",
    )
    compare = command.add_mutually_exclusive_group()
    compare.add_argument(
        "--split", type=arguments.shares, default=(), metavar="A:50,B:50", help="indexes that share the sessions"
    )
    compare.add_argument(
        "--interleave", type=arguments.names, default=(), metavar="A,B", help="two indexes that rank together"
    )
    _device(command)
    command.add_argument(
        "--poll", type=float, default=10.0, metavar="SECONDS", help="between looks for new versions in a store (10)"
    )
    command.add_argument(
        "--keys", type=arguments.file, metavar="FILE", help="API keys, one a line; or SMAR_API_KEYS=KEY,KEY"
    )
    command.add_argument(
        "--cors", nargs="+", default=(), metavar="ORIGIN", help="whose pages may call it, such as https://shop.example"
    )
    command.add_argument(
        "--rules", type=arguments.file, metavar="RULES.yaml", help="pins, boosts, synonyms, ...: see docs/rules.md"
    )
    command.add_argument("--root-path", default="", metavar="PREFIX", help="where a proxy shows it, such as /search")
    command.add_argument(
        "--facets",
        type=arguments.names,
        default="category,brand,price",
        metavar="COLUMNS",
        help="columns to filter by on the page (default category,brand,price)",
    )
    command.add_argument(
        "--sort",
        type=arguments.names,
        default=(),
        metavar="COLUMNS",
        help="columns to sort by: price,-created_at",
    )
    command.add_argument(
        "--collapse", default="", metavar="COLUMN[:NOUN]", help="one card there for each value: product_id:colours"
    )
    command.add_argument("--protect-reads", action="store_true", help="searching needs a key, too")
    command.add_argument("--rate", type=float, default=0.0, metavar="N", help="requests a second and client (no limit)")
    command.add_argument(
        "--events",
        type=arguments.folder,
        metavar="DIR",
        help="take shoppers' impressions and clicks into this folder",
    )
    command.add_argument("--events-sessions", action="store_true", help="keep hashes of their session and client ids")
    command.add_argument("--log", choices=("errors", "requests", "queries"), default="errors", help="what is logged")
    command.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="name=value", help="see docs/serving.md"
    )
    command = _command(
        commands,
        "encode-service",
        "answer POST /v1/encode with a query's vector, for an engine that is asked elsewhere",
        "smar encode-service embeddings --port 8081",
    )
    command.add_argument(
        "folder", type=arguments.made, metavar="FOLDER", help="embeddings, an index, or `smar export`'s"
    )
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8080)
    command.add_argument("--workers", type=arguments.positive, default=1, metavar="N", help="processes (default 1)")
    command = _command(
        commands,
        "bulk",
        "write the catalogue as bulk files for an engine that is loaded and asked elsewhere",
        "smar bulk embeddings --to opensearch --out bulk",
    )
    command.add_argument("embeddings", type=arguments.made, metavar="EMBEDDINGS")
    command.add_argument("--to", choices=BULK, required=True, help="for which engine")
    command.add_argument("--out", type=arguments.folder, required=True, metavar="DIR")
    command = _command(
        commands,
        "demo",
        "the whole line on a generated shop, then the search page",
        "smar demo\nsmar demo --out /tmp/shop --no-serve\nsmar demo --quick --no-serve",
    )
    command.add_argument("--out", type=arguments.folder, default=Path("demo"), metavar="DIR")
    command.add_argument("--quick", action="store_true", help="300 items and two steps: does everything run here?")
    command.add_argument("--no-serve", action="store_true", help="stop before serving")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8080)
