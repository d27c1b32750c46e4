"""Turn a catalogue, its pictures and a search log into a dataset.

smar prepare --items items.parquet --clicks clicks-*.csv --test-from 2026-09-27 --out dataset
smar prepare --items s3://shop/items --clicks https://shop.example/log.csv --out dataset
smar prepare --config configs/recipes/shopify.yaml --items products.csv --clicks log.csv --out dataset
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import LAST, say
from smar.core.progress import summary

_TABLES = {
    "items": "catalogue: item_id, title and more",
    "clicks": "search log: query, item_id, timestamp, clicked; or query, item_id[, weight]",
    "images": "pictures in a table of their own: item_id, image",
    "queries": "attributes of queries for the report, such as needs_image",
}


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    for name, what in _TABLES.items():
        text = f"{what} (files, folders, globs or addresses; Parquet, Arrow, CSV, TSV, JSON lines)"
        add(f"--{name}", nargs="+", action="extend", default=[], metavar="PATH", help=text)
    types.add_configuration(command)
    text = "pack pictures as the image processor of this model (name or folder) does: size, fit, resampling"
    add("--pictures-for", metavar="CHECKPOINT", help=text)
    types.add_runner(command, "--pictures", "decode the pictures")
    add("--test-from", type=types.date, metavar="DATE", help="first day of the test period")
    add("--out", type=types.folder, required=True, metavar="DATASET")
    text = "what makes pairs of the log; see docs/scale.md"
    add("--engine", choices=("duckdb", "spark"), default="duckdb", help=text)
    add("--spark-master", metavar="URL", help="such as local[4], spark://host:7077 or yarn")


def run(options: Namespace) -> None:
    from smar.api.stages import pictures_prepared, prepared

    tables = {name: getattr(options, name) for name in _TABLES}
    given = (options.config, options.assignments, options.pictures_for)
    if options.part is not None:
        made = pictures_prepared(tables, options.out, options.part, *given, options.runner)
        title = f"part {options.part} of the pictures of {options.out}"
        summary(title, [("decoded", "now" if made else "before")], LAST.format("--pictures"))
        return
    chosen = (options.engine, options.spark_master, options.runner)
    done = prepared(tables, options.out, *given, options.test_from, *chosen)
    next_command = ["train", options.out, "--out", "run"] + (["--config", options.config] if options.config else [])
    summary(f"dataset in {options.out}", done.rows(), say(*next_command))
