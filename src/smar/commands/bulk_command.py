"""Write the catalogue as bulk files for an engine that is loaded and asked elsewhere.

smar bulk embeddings --to opensearch --out bulk
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import Rows, say
from smar.core.progress import summary

_ENGINES = ("parquet", "opensearch", "elasticsearch", "qdrant", "vespa")


def arguments(command: ArgumentParser) -> None:
    command.add_argument("embeddings", type=types.made, metavar="EMBEDDINGS")
    command.add_argument("--to", choices=_ENGINES, required=True, help="for which engine")
    command.add_argument("--out", type=types.folder, required=True, metavar="DIR")


def run(options: Namespace) -> None:
    from smar.export.bulk import write_bulk

    done = write_bulk(options.embeddings, options.to, options.out)
    rows: Rows = [("items", done.items), ("files", ", ".join(done.files))]
    rows.append(("servers", "none was run here; the files follow the vendor's published format"))
    summary(f"bulk files for {options.to} in {options.out}", rows, say("encode-service", options.embeddings))
